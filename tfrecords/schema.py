"""What a data set on disk looks like: the keys of a record, the names of shards, and dataset.json.

A data set's folder holds

    train-00000-of-00016 ...        TFRecord shards of tf.train.Example
    validation-00000-of-00004 ...
    statistics.npz                  of the training images' pixels (statistics.py)
    index.npz                       where each record begins (records.py)
    dataset.json                    written last: a folder with it is whole
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import uuid

# The keys of the ImageNet convention, as in TensorFlow's first ImageNet scripts. Those counted labels from 1 and kept
# 0 for "background"; here, as in TensorFlow Datasets, labels count from 0.
ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
HEIGHT = "image/height"
WIDTH = "image/width"

SPLITS = ("train", "validation")
ENCODINGS = ("jpeg", "png", "raw")
DATASET_FILE = "dataset.json"
_FORMAT_VERSION = 2


def shard_name(split, index, count):
    """The file name of a shard, e.g. "train-00000-of-00016"."""
    return f"{split}-{index:05d}-of-{count:05d}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records.

    Attributes:
        name: the file's name.
        count: records in it.
        bytes: the file's size.
        sha256: of its content, in hexadecimal.
        left_out: numbers of the records that are not read, in ascending order: damaged ones, which the builder writes
            none of (`verify.leave_out_damaged`).
    """

    name: str
    count: int
    bytes: int
    sha256: str
    left_out: tuple = ()


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
        image_px: shorter side of the stored images, in pixels.
        keep_aspect: whether the longer side may be longer. Else all images are square.
        encoding: one of `ENCODINGS`.
        splits: "train" and "validation" to their `Split`.
        settings: what the builder was asked for, by the names of its arguments.
    """

    class_names: tuple
    image_px: int
    keep_aspect: bool
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
        raise ValueError(
            f"{path} must be of format version {_FORMAT_VERSION}. Received: format_version={version}. "
            "Build it again in another folder."
        )
    try:
        splits = {
            name: Split(
                count=split["count"],
                count_per_class=tuple(split["count_per_class"]),
                shards=tuple(Shard(**shard | {"left_out": tuple(shard["left_out"])}) for shard in split["shards"]),
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
    """Raises ValueError naming the first shard of a `Split` that is missing or not of its recorded size.

    A shard of which records are left out is known to be damaged, and not looked at.
    """
    for shard in split.shards:
        if shard.left_out:
            continue
        path = pathlib.Path(data_dir) / shard.name
        found = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
        if found != f"{shard.bytes:,} bytes":
            raise ValueError(f"{path} must hold {shard.bytes:,} bytes, {DATASET_FILE} says. Found: {found}")


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
    # Not named by the process: two containers on different machines can each have one of the same number.
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
