"""A text or CSV file of image paths and labels as a source."""

import csv
import io
import pathlib
import unicodedata
from collections.abc import Iterator

from alexnet_tf.tfrecords import image_files, image_folder

# Names of columns, in lower case.
_COLUMNS = {
    "path": ("path", "filepath", "file", "filename", "file_name", "image", "image_path", "img", "image_id"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset"),
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def make_list_source(path: str | pathlib.Path, seed: int, validation_fraction: float) -> image_files.ImageFiles:
    """Reads images and labels from a file, or from one file per split in a folder, in random order.

    A .csv or .tsv file has the columns path, label and optionally split, in this order or named by a header. Any other
    file has lines of a path and a label after the last blank, such as train.txt of Caffe. Paths are relative to the
    folder of the file. Labels are class names. Classes are sorted, by number if all labels are numbers.

    Args:
        path: the file; or a folder with files such as train.csv and val.csv.
        seed, validation_fraction: see `sources.open_source`.

    Raises:
        ValueError: if a file can't be read as such a list, a path is listed twice, there are fewer than two classes, or
            the splits have different classes.
    """
    root = pathlib.Path(path).expanduser()
    classes: dict[str, dict[str, list[pathlib.Path]]] = {}
    listed: set[pathlib.Path] = set()
    for file, default_split in _find_lists(root).items():
        for number, name, label, split in _read_list(file):
            image = file.parent / name
            if image in listed:
                raise ValueError(f"Each image must be listed only once. {file}, line {number}, repeats {image}")
            listed.add(image)
            split = _find_split(split, file, number) or default_split
            classes.setdefault(split, {}).setdefault(label, []).append(image)
    if "validation" not in classes and "test" in classes:
        classes["validation"] = classes["test"]
    classes.pop("test", None)
    names = list(classes.get("train", ()))
    if len(names) < 2:
        raise ValueError(f"{root} must list training images of at least 2 classes. Found: {names}")
    numbers = all(label.isdecimal() for labels in classes.values() for label in labels)
    for split, labels in classes.items():
        classes[split] = {label: labels[label] for label in sorted(labels, key=int if numbers else None)}
    return image_files.mix(root, classes, seed, validation_fraction)


def _find_lists(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """A dict from file to the split of its images."""
    if root.is_file():
        return {root: "train"}
    if not root.is_dir():
        raise ValueError(f"list:PATH must be a file of paths and labels or a folder of such files. Received: {root}")
    files = [file for file in sorted(root.iterdir()) if file.is_file() and not file.name.startswith(".")]
    found = {file: image_folder.split_of(file.stem) for file in files}
    splits = {file: split for file, split in found.items() if split}
    if "train" not in splits.values() or len(set(splits.values())) < len(splits):
        raise ValueError(
            f"{root} must contain one file per split, such as train.csv and val.csv. "
            f"Found: {', '.join(file.name for file in files[:5]) or 'no files'}"
        )
    return splits


def _read_list(file: pathlib.Path) -> Iterator[tuple[int, str, str, str]]:
    """Yields (line number, path, label, split) of each image. The split is empty if the file has no such column."""
    delimiter = _DELIMITERS.get(file.suffix.lower())
    try:
        text = file.read_text(encoding="utf-8-sig")
        if delimiter:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        else:
            rows = [line.rsplit(maxsplit=1) for line in text.splitlines()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} can't be read as a list of images: {error}") from error
    columns = {"path": 0, "label": 1, "split": 2}
    header = {
        name: index
        for index, title in enumerate(rows[0] if rows else ())
        for name, titles in _COLUMNS.items()
        if title.strip().lower() in titles
    }
    if delimiter and {"path", "label"} <= header.keys():
        columns = header
    for number, row in enumerate(rows, start=1):
        if not any(row) or (number == 1 and columns is header):
            continue
        cells = {name: row[index].strip() for name, index in columns.items() if index < len(row)}
        if not cells.get("path") or not cells.get("label"):
            raise ValueError(f"{file}, line {number}, must have a path and a label. Received: {row}")
        yield number, cells["path"], unicodedata.normalize("NFC", cells["label"]), cells.get("split", "")


def _find_split(name: str, file: pathlib.Path, number: int) -> str | None:
    """The split with a name; None for an empty name."""
    split = image_folder.split_of(name)
    if name and not split:
        raise ValueError(f"{file}, line {number}: the split must be train, validation or test. Received: {name!r}")
    return split
