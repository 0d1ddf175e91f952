"""What a data set on disk looks like: the keys of a record, the names of shards, and dataset.json.

A data set's folder holds

    train-00000-of-00016 ...        TFRecord shards of tf.train.Example
    validation-00000-of-00004 ...
    statistics.npz                  of the training images' pixels (statistics.py)
    dataset.json                    written last: a folder with it is whole
"""

import dataclasses
import hashlib
import json
import os
import pathlib

# The keys of the ImageNet convention, as in TensorFlow's first ImageNet scripts. Those counted labels from 1 and kept
# 0 for "background"; here, as in TensorFlow Datasets, labels count from 0.
ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"

SPLITS = ("train", "validation")
ENCODINGS = ("jpeg", "png", "raw")
DATASET_FILE = "dataset.json"
_FORMAT_VERSION = 1


def shard_name(split, index, count):
    """The file name of a shard, e.g. "train-00000-of-00016"."""
    return f"{split}-{index:05d}-of-{count:05d}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records."""

    name: str
    count: int  # records
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: its images, and those of the source that could not be read, as (filename, reason)."""

    count: int
    count_per_class: tuple
    shards: tuple
    skipped: tuple = ()


@dataclasses.dataclass(frozen=True)
class DatasetDescription:
    """What dataset.json says.

    Attributes:
        class_names: names in the order of the labels.
        image_px: side of the stored images, in pixels.
        encoding: one of `ENCODINGS`.
        splits: "train" and "validation" to their `Split`.
        settings: what the builder was asked for, by the names of its arguments.
    """

    class_names: tuple
    image_px: int
    encoding: str
    splits: dict
    settings: dict

    def save(self, data_dir):
        """Writes dataset.json into a folder, which holds the old one or the new one and never half of one."""
        text = json.dumps({"format_version": _FORMAT_VERSION} | dataclasses.asdict(self), indent=2)
        write_whole(pathlib.Path(data_dir) / DATASET_FILE, lambda file: file.write(text.encode()))


def load_description(data_dir):
    """Reads dataset.json from a folder.

    Returns: a `DatasetDescription`.

    Raises:
        ValueError: where there is none, or it is damaged, or of another version of this format.
    """
    path = pathlib.Path(data_dir) / DATASET_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} does not exist: the folder is no data set, or one whose building was broken off. "
            f"`alexnet-tfrecords --source=... --data_dir={data_dir}` makes it whole."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != _FORMAT_VERSION:
        raise ValueError(f"{path} must be of format version {_FORMAT_VERSION}. Received: format_version={version}")
    try:
        splits = {
            name: Split(
                count=split["count"],
                count_per_class=tuple(split["count_per_class"]),
                shards=tuple(Shard(**shard) for shard in split["shards"]),
                skipped=tuple(map(tuple, split["skipped"])),
            )
            for name, split in content.pop("splits").items()
        }
        return DatasetDescription(class_names=tuple(content.pop("class_names")), splits=splits, **content)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def split_of(description, split):
    """The `Split` of a name. Raises ValueError where there is none."""
    if split not in description.splits:
        raise ValueError(f"`split` must be one of {sorted(description.splits)}. Received: split={split!r}")
    return description.splits[split]


def check_shard_sizes(data_dir, split):
    """Raises ValueError naming the first shard of a `Split` that is missing or not of its recorded size."""
    for shard in split.shards:
        path = pathlib.Path(data_dir) / shard.name
        found = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
        if found != f"{shard.bytes:,} bytes":
            raise ValueError(f"{path} must hold {shard.bytes:,} bytes, {DATASET_FILE} says. Found: {found}")


def check_shard_contents(data_dir, split):
    """Raises ValueError naming the first shard of a `Split` whose content is not what was written."""
    check_shard_sizes(data_dir, split)
    for shard in split.shards:
        path = pathlib.Path(data_dir) / shard.name
        found = sha256(path)
        if found != shard.sha256:
            raise ValueError(f"{path} is damaged: its SHA-256 must be {shard.sha256}. Found: {found}")


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path, write):
    """Writes a file under a temporary name, syncs it and renames it: `path` is never half written.

    Args:
        path: the file's path.
        write: a function that is given the open binary file.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
