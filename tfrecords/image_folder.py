"""Image files as a source: one folder per class, or one folder per split that holds such."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

import numpy as np

# What folders of splits are called, in any case.
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
# What lies beside images. Other names count as images, also those without an ending: the content tells.
_NO_IMAGES = ("thumbs.db", "desktop.ini")
_NO_IMAGE_SUFFIXES = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml"),
    *(".html", ".htm", ".pdf", ".log", ".zip", ".py"),
)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Files in one folder per class. `files` maps a split to (path, label) pairs in their order."""

    class_names: tuple[str, ...]
    files: dict[str, list[tuple[pathlib.Path, int]]]

    def count(self, split: str) -> int:
        return len(self.files[split])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        for path, label in self.files[split][start:stop]:
            yield str(path), path, label


def make_folder_source(path: str | pathlib.Path, seed: int, validation_fraction: float) -> Folder:
    """A `Folder` of PATH/class/image, or of PATH/train/class/image and PATH/validation/class/image.

    The folders of splits may be called as is usual: train or training; validation, valid, val or dev; test or testing.
    With `train` and `test` alone, `test` is the validation split if it has classes; with all three it is skipped; with
    `train` alone, a part of it is held out.

    Every file below a class's folder is taken for an image, except by names such as notes.txt and Thumbs.db; links are
    followed, and names that begin with a dot are skipped. A link that leads nowhere, or a folder that can't be listed,
    counts as an image that can't be read. What else is skipped is printed.

    Args:
        path: the folder.
        seed: of the order and of the choice of images that are held out.
        validation_fraction: fraction of each class that is held out if there are no validation images.

    Raises:
        ValueError: if the path holds no folders, a class is empty or called like a split, or the two splits' classes
            differ.
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
                    f"{root}: the class {name!r} must have at least 2 images, so that one can be held out for "
                    f"validation. Received: {len(paths)}"
                )
            classes["train"][name], classes["validation"][name] = (
                [paths[i] for i in part] for part in hold_out(len(paths), validation_fraction, random)
            )
    elif classes["train"].keys() != classes["validation"].keys():
        differing = sorted(classes["train"].keys() ^ classes["validation"].keys())
        raise ValueError(f"{root}: train and validation must have the same classes. Only one has: {differing}")
    files = {}
    for split, by_name in classes.items():
        listed = [(path, label) for label, name in enumerate(names) for path in by_name[name]]
        files[split] = [listed[i] for i in random.permutation(len(listed))]
    return Folder(names, files)


def hold_out(count: int, fraction: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divides the images of a class, which it numbers from 0, at random.

    Returns: the numbers of those to train on, of which there is at least one, and of those held out.
    """
    held_out = min(max(1, round(count * fraction)), max(count - 1, 0))
    order = random.permutation(count)
    return order[held_out:], order[:held_out]


def _find_splits(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """A dict from a split to its folder: {"train": root} if there are no folders of splits."""
    folders = _list_folders(root)
    found = {split: [folder for folder in folders if _split_of(folder) == split] for split in _SPLIT_NAMES}
    if not any(found.values()):
        return {"train": root}
    others = [folder for folder in folders if not _split_of(folder)]
    alone = not found["validation"] and not found["test"]
    if len(found["train"]) != 1 or any(len(same) > 1 for same in found.values()) or (alone and others):
        raise ValueError(
            f"{root} must hold one folder for each class, none of them called like a split, or one folder for each "
            f"split: {', '.join('/'.join(names) for names in _SPLIT_NAMES.values())} (a class can be called so below "
            f"them). Received: {', '.join(folder.name for folder in folders)}"
        )
    splits = {split: same[0] for split, same in found.items() if same}
    test = splits.pop("test", None)
    if test and "validation" in splits:
        print(f"{test} is skipped: the validation split is {splits['validation']}.")
    elif test and not _list_folders(test):  # as contests hand it out
        print(f"{test} is skipped: it has no folders of classes.")
    elif test:
        splits["validation"] = test
        print(f"The validation split is {test}: there is no other.")
    _print_left_out(root, "folders beside those of the splits", others)
    return splits


def _split_of(folder: pathlib.Path) -> str | None:
    """The split that a folder is called like, or None."""
    return next((split for split, names in _SPLIT_NAMES.items() if folder.name.lower() in names), None)


def _list_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder that are not hidden, sorted."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder that holds one folder of images per class. It is not a folder.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """A dict from the name of each class to its files, both sorted."""
    folders = _list_folders(folder)
    beside = [path for path in folder.iterdir() if path not in folders and not path.name.startswith(".")]
    _print_left_out(folder, "files in no class's folder", beside)
    if len(folders) < 2 or all(map(_split_of, folders)):
        raise ValueError(
            f"{folder} must hold one folder of images for each of at least 2 classes, not all of them called like "
            f"splits. Found: {', '.join(child.name for child in folders) or 'none'}"
        )
    classes = {}
    for child in folders:
        if any("\ud800" <= letter <= "\udfff" for letter in child.name):  # what Python makes of other bytes
            raise ValueError(f"The name of a class must be UTF-8. Received: {str(child)!r}")
        classes[child.name] = sorted(_list_files(child))
        if not classes[child.name]:
            raise ValueError(f"{child} must hold the images of a class. It is empty.")
    return classes


def _list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below the folder of a class, and what counts as unreadable. Prints what is skipped."""
    files, left_out, no_images = [], [], []
    reached = {folder.resolve(), *folder.resolve().parents}
    list(folder.iterdir())  # raises an OSError if it can't be listed
    for place, folder_names, file_names in os.walk(
        folder, followlinks=True, onerror=lambda error: files.append(pathlib.Path(error.filename))
    ):
        followed = []
        for name in sorted(folder_names):
            path = pathlib.Path(place, name)
            if name.startswith("."):
                continue
            if path.resolve() in reached:  # a link to what is listed already, or back up: without end
                left_out.append(path)
            else:
                reached.add(path.resolve())
                followed.append(name)
        folder_names[:] = followed
        for path in (pathlib.Path(place, name) for name in file_names if not name.startswith(".")):
            if path.name.lower() in _NO_IMAGES or path.suffix.lower() in _NO_IMAGE_SUFFIXES:
                no_images.append(path)
                continue
            try:
                readable = stat.S_ISREG(path.stat().st_mode)  # a pipe would be waited for without end
            except OSError:
                readable = True  # until the builder tries it, and counts it
            (files if readable else left_out).append(path)
    _print_left_out(folder, "files that are no images by their names", no_images)
    _print_left_out(folder, "pipes, devices, and links to folders that are listed already", left_out)
    return files


def _print_left_out(folder: pathlib.Path, kind: str, paths: Sequence[pathlib.Path]):
    if paths:
        listed = ", ".join(repr(path.name) for path in sorted(paths)[:3])
        print(f"{folder}: skipped {len(paths):,} {kind}: {listed}{', ...' if len(paths) > 3 else ''}")
