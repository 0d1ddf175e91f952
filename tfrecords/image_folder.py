"""Folders of image files as a source: one folder per class, or one folder per split with one folder per class."""

import collections
import os
import pathlib
import re
import stat
import unicodedata
from collections.abc import Sequence

from alexnet_tf.tfrecords import image_files

# Names of splits, in lower case.
SPLIT_NAMES = {
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


def make_folder_source(path: str | pathlib.Path, seed: int, validation_fraction: float) -> image_files.ImageFiles:
    """Lists PATH/class/image, or PATH/train/class/image and PATH/validation/class/image, in random order.

    Names of splits, in any case: train or training; validation, valid, val or dev; test or testing. If there are only
    `train` and `test`, `test` is the validation split, provided that it has classes; if there is a validation split,
    `test` is skipped; if there is only `train`, a part of it is held out.

    Every file below the folder of a class counts as an image, except hidden files and files such as notes.txt and
    Thumbs.db. Links are followed. A dangling link or a folder that can't be listed counts as an unreadable image. All
    other skipped files are printed.

    Args:
        path: the folder.
        seed, validation_fraction: see `sources.open_source`.

    Raises:
        ValueError: if the path has no folders, a class is empty or has the name of a split, or the splits have
            different classes.
    """
    root = pathlib.Path(path).expanduser()
    classes = {split: _list_classes(folder) for split, folder in _find_splits(root).items()}
    return image_files.mix(root, classes, seed, validation_fraction)


def _find_splits(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """A dict from split to folder; {"train": root} if no folders are splits."""
    folders = _list_folders(root)
    splits = {folder: split_of(folder.name) for folder in folders}
    if not any(splits.values()):
        splits = _find_long_names(folders)
    found = {split: [folder for folder in folders if splits.get(folder) == split] for split in SPLIT_NAMES}
    if not any(found.values()):
        if len(folders) > 1:
            _check_levels(root, folders)
        return {"train": root}
    others = [folder for folder in folders if not splits.get(folder)]
    only_train = not found["validation"] and not found["test"]
    if len(found["train"]) != 1 or any(len(same) > 1 for same in found.values()) or (only_train and others):
        raise ValueError(
            f"{root} must contain either one folder per class, none with the name of a split, or one folder per split: "
            f"{', '.join('/'.join(names) for names in SPLIT_NAMES.values())}. "
            f"Received: {', '.join(folder.name for folder in folders)}"
        )
    splits = {split: _skip_levels(same[0]) for split, same in found.items() if same}
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


def split_of(name: str) -> str | None:
    """The split that a name stands for, or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def _find_long_names(folders: list[pathlib.Path]) -> dict[pathlib.Path, str | None]:
    """The split of each folder with a name such as training_set, seg_train or val2017.

    There must be a training split and another one, and no two folders of the same split. If other folders exist, the
    splits must also have the same classes: a class may be called "train station".
    """
    found = {}
    for folder in folders:
        words = re.split(r"[\W\d_]+", folder.name.lower())
        splits = {split_of(word.removesuffix("set")) for word in words} - {None}
        if len(splits) == 1:
            found[folder] = splits.pop()
    if "train" not in found.values() or len(found) < 2 or len(found) > len(set(found.values())):
        return {}
    classes = [{child.name for child in _list_folders(_skip_levels(folder))} for folder in found]
    return found if len(found) == len(folders) or all(each == classes[0] != set() for each in classes) else {}


def _skip_levels(folder: pathlib.Path) -> pathlib.Path:
    """The first folder with more in it than one folder. Archives often repeat the name of a split: train/train."""
    children = [path for path in folder.iterdir() if not path.name.startswith(".")]
    repeated = len(children) == 1 and children[0].is_dir() and not children[0].is_symlink()
    return _skip_levels(children[0]) if repeated else folder


def _list_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The sorted folders in a folder, without hidden ones."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with one folder of images per class. It is not a folder.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """A dict from class name to files, both sorted."""
    folders = _list_folders(folder)
    others = [path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith(".")]
    _print_skipped(folder, "files outside of the folders of classes", others)
    if not folders:
        raise ValueError(f"{folder} must contain one folder of images for each class. Found no folders of classes.")
    if len(folders) < 2 or all(split_of(child.name) for child in folders):
        raise ValueError(
            f"{folder} must contain one folder of images for each of at least 2 classes, not all with the names of "
            f"splits. Found: {', '.join(child.name for child in folders)}"
        )
    classes, targets = {}, {}
    for child in folders:
        if any("\ud800" <= letter <= "\udfff" for letter in child.name):  # Python's escapes of other bytes
            raise ValueError(f"Class names must be UTF-8. Received: {str(child)!r}")
        name = unicodedata.normalize("NFC", child.name)  # macOS writes names in another form than other systems
        if name in classes:
            raise ValueError(f"{folder} contains two folders with the same name in different Unicode forms: {name!r}")
        if (same := targets.setdefault(child.resolve(), name)) != name:
            raise ValueError(f"{folder} contains two links to the same folder: {same!r} and {name!r}")
        classes[name] = sorted(list_files(child))
        if not classes[name]:
            raise ValueError(f"{child} must contain the images of a class. It is empty.")
    spellings = collections.Counter(name.casefold() for name in classes)
    same = [name for name in classes if spellings[name.casefold()] > 1]
    if same:
        print(f"Warning: {folder} has classes whose names differ only in case: {', '.join(same[:6])}")
    return dict(sorted(classes.items()))


def _check_levels(folder: pathlib.Path, folders: list[pathlib.Path]):
    """Raises ValueError if all folders contain only the same folders, which are more likely to be the classes."""
    names = set()
    for child in folders:
        inside = [path for path in child.iterdir() if not path.name.startswith(".")]
        if len(inside) < 2 or not all(path.is_dir() for path in inside):
            return
        names.add(tuple(sorted(path.name for path in inside)))
        if len(names) > 1:
            return
    raise ValueError(
        f"{folder} must contain one folder per class or per split. All its folders contain the same folders: "
        f"{', '.join(names.pop()[:5])}. If these are the classes, name the folders of the splits train and validation; "
        "otherwise list the images in a file (list:PATH)."
    )


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
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
