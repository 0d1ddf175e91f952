"""The format of a data set on disk: the keys of a record, the names of shards, and dataset.json.

A data set's folder holds

    train-00000-of-00016 ...        TFRecord shards of tf.train.Example
    validation-00000-of-00004 ...
    statistics.npz                  of the training images' pixels (statistics.py)
    index.npz                       offset of each record (records.py)
    dataset.json                    written last: a folder with it is complete
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from alexnet_tf import files
from alexnet_tf.tfrecords import storage

if TYPE_CHECKING:
    import numpy as np  # which programs that only check their flags need not wait for

# The keys of the ImageNet convention, as in TensorFlow's first ImageNet scripts. Those counted labels from 1 and kept
# 0 for "background"; here, as in TensorFlow Datasets, they count from 0.
ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
HEIGHT = "image/height"
WIDTH = "image/width"

SPLITS = ("train", "validation")
ENCODINGS = ("jpeg", "png", "raw")
ORIGINAL = "original"  # the encoding of images that are read in place: JPEG or PNG, of any size
RESIZES = ("crop", "warp")  # the central square, as section 2 says; or both sides, whatever the aspect
DATASET_FILE = "dataset.json"
_FORMAT_VERSION = 2


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of a shard, e.g. "train-00000-of-00016"."""
    return f"{split}-{index:05d}-of-{count:05d}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records.

    Attributes:
        name: the file's name; of a file that is read in place, its path.
        count: records in it.
        bytes: the file's size.
        sha256: of its content, in hexadecimal.
        left_out: numbers of the damaged records that are skipped, in ascending order. The builder writes none; see
            `verify.skip_damaged_records`.
        end: the file's last four bytes, the checksum of its last record, in hexadecimal; by it another shard of the
            same size is noticed. Empty for data sets built before 0.2.
    """

    name: str
    count: int
    bytes: int
    sha256: str
    left_out: tuple[int, ...] = ()
    end: str = ""


@dataclasses.dataclass(frozen=True)
class Split:
    """One split. `skipped` lists the unreadable images of the source as (filename, reason)."""

    count: int
    count_per_class: tuple[int, ...]
    shards: tuple[Shard, ...]
    skipped: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class DatasetDescription:
    """The content of dataset.json.

    Attributes:
        class_names: names in the order of the labels.
        image_px: shorter side of the stored images, in pixels; that to which "original" ones are resized when read.
        keep_aspect: whether images keep their longer side. Else all are square.
        encoding: one of `ENCODINGS`, or "original".
        splits: a dict from "train" and "validation" to their `Split`.
        settings: the builder's arguments, by name.
        checksums: of what statistics.npz and index.npz hold (`array_checksum`), by these names. Empty for data sets
            built before 0.2.
    """

    class_names: tuple[str, ...]
    image_px: int
    keep_aspect: bool
    encoding: str
    splits: dict[str, Split]
    settings: dict[str, Any]
    checksums: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_class_names(self.class_names)

    @property
    def exif_orientation(self) -> bool | None:
        """Whether images were turned upright when they were built. None for data sets built before 0.2, which were not,
        and whose transparency and values of more than 8 bits were treated otherwise."""
        return self.settings.get("exif_orientation")

    @property
    def resize(self) -> str:
        """How images became squares, one of `RESIZES`."""
        return self.settings.get("resize", "crop")

    @property
    def in_place(self) -> bool:
        """Whether the shards are files of others, which are read where they are and never written."""
        return self.settings.get("in_place", False)

    @property
    def record_keys(self) -> tuple[str, str, int]:
        """The features with an image and its label, and the label of the first class."""
        settings = self.settings
        return settings.get("image_key", ENCODED), settings.get("label_key", LABEL), settings.get("label_offset", 0)

    def save(self, data_dir: str | pathlib.Path) -> None:
        """Writes dataset.json into a folder, atomically."""
        content = {"format_version": _FORMAT_VERSION} | dataclasses.asdict(self)
        content["checksum"] = _checksum(content)
        files.write_text(pathlib.Path(data_dir) / DATASET_FILE, json.dumps(content, indent=2))


def check_class_names(names: Iterable[str]) -> None:
    """Raises ValueError naming the first name that holds control characters or ends of lines: in a file with a name per
    line it would shift all that follow."""
    for name in names:
        if any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") and each != "\t" for each in name):
            raise ValueError(f"Names of classes must hold no control characters or ends of lines. Received: {name!r}")


def load_description(data_dir: str | pathlib.Path) -> DatasetDescription:
    """Reads dataset.json from a folder.

    Returns: a `DatasetDescription`.

    Raises:
        ValueError: if it is missing, damaged or edited, or has another format version.
    """
    path = storage.join(data_dir, DATASET_FILE)
    try:
        content = json.loads(storage.read_bytes(path))
    except FileNotFoundError as error:
        remedy = f"`alexnet-tfrecords --source=... --data_dir={data_dir}` builds or finishes it."
        if storage.is_remote(data_dir):
            remedy = "`alexnet-tfrecords` builds or finishes it on a disk, from where it is copied."
        if _holds_records(data_dir):  # a data set of others, or an unfinished one
            remedy += (
                f" Record files of others: `alexnet-train --data_dir=tfrecords:{data_dir}` reads them where they are, "
                f"`alexnet-tfrecords --source=tfrecords:{data_dir} --data_dir=ANOTHER` makes a data set of them."
            )
        raise ValueError(f"{path} does not exist: the folder is no data set, or an unfinished one. {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != _FORMAT_VERSION:
        raise ValueError(
            f"{path} must have format version {_FORMAT_VERSION}. Received: format_version={version}. "
            "Build it again in another folder."
        )
    checksum = content.pop("checksum", None)
    unchanged = checksum in (None, _checksum(content))  # None: built before 0.2
    del content["format_version"]
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
        _check_names(content["class_names"])
        description = DatasetDescription(class_names=tuple(content.pop("class_names")), splits=splits, **content)
        _check(description)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not unchanged:
        raise ValueError(
            f"{path} must be as it was written: class names, counts and settings belong to the records. It was edited: "
            f"its checksum is not {checksum}"
        )
    return description


def _holds_records(data_dir: str | pathlib.Path) -> bool:
    try:
        return any("-of-" in name for name in storage.list_files(data_dir))
    except OSError:  # there is no such folder
        return False


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_names(class_names: Any) -> None:
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"`class_names` must be a list of strings. Received: {class_names!r}")


def _check(description: DatasetDescription) -> None:
    """Raises ValueError for what no builder writes."""
    if description.encoding not in (*ENCODINGS, ORIGINAL):
        raise ValueError(f"`encoding` must be one of {(*ENCODINGS, ORIGINAL)}. Received: {description.encoding!r}")
    for name in ("settings", "checksums"):
        if not isinstance(getattr(description, name), dict):
            raise ValueError(f"`{name}` must be an object. Received: {getattr(description, name)!r}")
    classes = len(description.class_names)
    for name, split in description.splits.items():
        for shard in split.shards:
            if pathlib.PurePath(shard.name).name != shard.name and not description.in_place:
                raise ValueError(f"a shard's `name` must be that of a file beside it. Received: {shard.name!r}")
        counts = [shard.count for shard in split.shards]
        left = sum(counts) - sum(len(shard.left_out) for shard in split.shards)
        if not counts:
            raise ValueError(f"the split {name!r} must have a shard")
        if len(split.count_per_class) != classes or sum(split.count_per_class) != sum(counts) or split.count != left:
            raise ValueError(
                f"the split {name!r} must count the {sum(counts)} records of its shards in all {classes} classes. "
                f"Received: {split.count} in all, {sum(split.count_per_class)} in {len(split.count_per_class)} classes"
            )


def split_of(description: DatasetDescription, split: str) -> Split:
    """The `Split` with a name. Raises ValueError if there is none."""
    if split not in description.splits:
        raise ValueError(f"`split` must be one of {sorted(description.splits)}. Received: split={split!r}")
    return description.splits[split]


def check_shard_sizes(data_dir: str | pathlib.Path, split: Split) -> None:
    """Raises ValueError naming the first shard of a `Split` that is missing, or does not have its recorded size or end.

    A shard with skipped records is known to be damaged, and not checked.
    """
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # an object store takes a while to answer each
        for _ in pool.map(functools.partial(_check_shard_size, data_dir), split.shards):
            pass


def _check_shard_size(data_dir: str | pathlib.Path, shard: Shard) -> None:
    if shard.left_out:
        return
    path = storage.join(data_dir, shard.name)
    size = storage.size(path)
    found = "no such file" if size is None else f"{size:,} bytes"
    if found != f"{shard.bytes:,} bytes":
        raise ValueError(f"{path} must hold {shard.bytes:,} bytes, according to {DATASET_FILE}. Found: {found}")
    if shard.end and (end := storage.read_end(path)) != shard.end:
        raise ValueError(
            f"{path} must end with the bytes {shard.end}, according to {DATASET_FILE}. Found: {end}. It is damaged, "
            "or a shard of another data set"
        )


def array_checksum(arrays: "Mapping[str, np.ndarray]") -> str:
    """SHA-256 of arrays by name, in hexadecimal. (Not of their .npz file: zlib's versions compress differently.)"""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def check_arrays(path: str, arrays: "Mapping[str, np.ndarray]", checksums: Mapping[str, str]) -> None:
    """Raises ValueError if the arrays of a file are not those that a `DatasetDescription` names."""
    if checksums.get(pathlib.PurePath(path).name) not in (None, array_checksum(arrays)):
        raise ValueError(f"{path} must belong to {DATASET_FILE} beside it. It is that of another data set, or damaged")
