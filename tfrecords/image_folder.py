"""Folders of image files as a source: one folder per class, or one folder per split with one folder per class."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

import numpy as np

# Names of the folders of splits, in lower case.
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
# Files that are not images. All others count as images: content decides, not the suffix.
_OTHER_FILES = ("thumbs.db", "desktop.ini")
_OTHER_SUFFIXES = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml"),
    *(".html", ".htm", ".pdf", ".log", ".zip", ".py"),
)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Image files. `files` maps a split to (path, label) pairs."""

    class_names: tuple[str, ...]
    files: dict[str, list[tuple[pathlib.Path, int]]]

    def count(self, split: str) -> int:
        return len(self.files[split])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        for path, label in self.files[split][start:stop]:
            yield str(path), path, label


def make_folder_source(path: str | pathlib.Path, seed: int, validation_fraction: float) -> Folder:
    """Lists PATH/class/image, or PATH/train/class/image and PATH/validation/class/image, in random order.

    Names of splits, in any case: train or training; validation, valid, val or dev; test or testing. If there are only
    `train` and `test`, `test` is the validation split, provided that it has classes; if there is a validation split,
    `test` is skipped; if there is only `train`, a part of it is held out.

    Every file below the folder of a class counts as an image, except hidden files and files such as notes.txt and
    Thumbs.db. Links are followed. A dangling link or a folder that can't be listed counts as an unreadable image. All
    other skipped files are printed.

    Args:
        path: the folder.
        seed: seed of the order and of the choice of held-out images.
        validation_fraction: fraction of each class to hold out if there is no validation split.

    Raises:
        ValueError: if the path has no folders, a class is empty or has the name of a split, or the splits have
            different classes.
    """
    root = pathlib.Path(path).expanduser()
    random = np.random.default_rng(seed)
    classes = {split: _list_classes(folder) for split, folder in _find_splits(root).items()}
    names = tuple(classes["train"])
    if "validation" not in classes:
        everything, classes = classes["train"], {"train": {}, "validation": {}}
        for name, paths in everything.items():
            if len(paths) < 2:
                raise ValueError(
                    f"{root}: class {name!r} must have at least 2 images, one of them for validation. "
                    f"Received: {len(paths)}"
                )
            classes["train"][name], classes["validation"][name] = (
                [paths[i] for i in part] for part in hold_out(len(paths), validation_fraction, random)
            )
    elif classes["train"].keys() != classes["validation"].keys():
        differing = sorted(classes["train"].keys() ^ classes["validation"].keys())
        raise ValueError(f"{root}: train and validation must have the same classes. In only one: {differing}")
    files = {}
    for split, by_name in classes.items():
        listed = [(path, label) for label, name in enumerate(names) for path in by_name[name]]
        files[split] = [listed[i] for i in random.permutation(len(listed))]
    return Folder(names, files)


def hold_out(count: int, fraction: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divides the images of a class at random.

    Returns: the indices of the training images, at least one, and of the held-out images.
    """
    held_out = min(max(1, round(count * fraction)), max(count - 1, 0))
    order = random.permutation(count)
    return order[held_out:], order[:held_out]


def _find_splits(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """A dict from split to folder; {"train": root} if no folder has the name of a split."""
    folders = _list_folders(root)
    found = {split: [folder for folder in folders if _split_of(folder) == split] for split in _SPLIT_NAMES}
    if not any(found.values()):
        return {"train": root}
    others = [folder for folder in folders if not _split_of(folder)]
    alone = not found["validation"] and not found["test"]
    if len(found["train"]) != 1 or any(len(same) > 1 for same in found.values()) or (alone and others):
        raise ValueError(
            f"{root} must contain either one folder per class, none with the name of a split, or one folder per split: "
            f"{', '.join('/'.join(names) for names in _SPLIT_NAMES.values())}. "
            f"Received: {', '.join(folder.name for folder in folders)}"
        )
    splits = {split: same[0] for split, same in found.items() if same}
    test = splits.pop("test", None)
    if test and "validation" in splits:
        print(f"Skipped {test}: the validation split is {splits['validation']}.")
    elif test and not _list_folders(test):  # images of a contest, without labels
        print(f"Skipped {test}: it has no folders of classes.")
    elif test:
        splits["validation"] = test
        print(f"Using {test} as the validation split.")
    _print_skipped(root, "folders that are not splits", others)
    return splits


def _split_of(folder: pathlib.Path) -> str | None:
    """The split with the name of a folder, or None."""
    return next((split for split, names in _SPLIT_NAMES.items() if folder.name.lower() in names), None)


def _list_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The sorted folders in a folder, without hidden ones."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with one folder of images per class. It is not a folder.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """A dict from class name to files, both sorted."""
    folders = _list_folders(folder)
    others = [path for path in folder.iterdir() if path not in folders and not path.name.startswith(".")]
    _print_skipped(folder, "files outside of the folders of classes", others)
    if len(folders) < 2 or all(map(_split_of, folders)):
        raise ValueError(
            f"{folder} must contain one folder of images for each of at least 2 classes, not all with the names of "
            f"splits. Found: {', '.join(child.name for child in folders) or 'no folders'}"
        )
    classes = {}
    for child in folders:
        if any("\ud800" <= letter <= "\udfff" for letter in child.name):  # Python's escapes of other bytes
            raise ValueError(f"Class names must be UTF-8. Received: {str(child)!r}")
        classes[child.name] = sorted(_list_files(child))
        if not classes[child.name]:
            raise ValueError(f"{child} must contain the images of a class. It is empty.")
    return classes


def _list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below the folder of a class, and what counts as an unreadable image. Prints what is skipped."""
    files, skipped, not_images = [], [], []
    visited = {folder.resolve(), *folder.resolve().parents}
    list(folder.iterdir())  # raises an OSError if the folder can't be listed
    for parent, folder_names, file_names in os.walk(
        folder, followlinks=True, onerror=lambda error: files.append(pathlib.Path(error.filename))
    ):
        followed = []
        for name in sorted(folder_names):
            path = pathlib.Path(parent, name)
            if name.startswith("."):
                continue
            if path.resolve() in visited:  # a link to a listed folder, or upwards: an endless loop
                skipped.append(path)
            else:
                visited.add(path.resolve())
                followed.append(name)
        folder_names[:] = followed
        for path in (pathlib.Path(parent, name) for name in file_names if not name.startswith(".")):
            if path.name.lower() in _OTHER_FILES or path.suffix.lower() in _OTHER_SUFFIXES:
                not_images.append(path)
                continue
            try:
                readable = stat.S_ISREG(path.stat().st_mode)  # opening a pipe would wait forever
            except OSError:
                readable = True  # until the builder opens it and counts it as unreadable
            (files if readable else skipped).append(path)
    _print_skipped(folder, "files whose names are not those of images", not_images)
    _print_skipped(folder, "pipes, devices and links to folders that are already listed", skipped)
    return files


def _print_skipped(folder: pathlib.Path, kind: str, paths: Sequence[pathlib.Path]):
    if paths:
        listed = ", ".join(repr(path.name) for path in sorted(paths)[:3])
        print(f"{folder}: skipped {len(paths):,} {kind}: {listed}{', ...' if len(paths) > 3 else ''}")
