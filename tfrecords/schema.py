"""The format of a data set on disk: feature keys, shard names and dataset.json.

The folder of a data set holds

    train-00000-of-00016 ...        TFRecord shards of tf.train.Example
    validation-00000-of-00004 ...
    statistics.npz                  pixel statistics of the training images (statistics.py)
    index.npz                       size of each record (records.py)
    dataset.json                    written last: a folder with this file is complete
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import pathlib
import unicodedata
from collections.abc import Iterable
from typing import Any

from alexnet_tf import files
from alexnet_tf.tfrecords import storage

# Feature keys of TensorFlow's first ImageNet scripts. Those scripts numbered labels from 1 and reserved 0 for
# "background"; here labels start at 0, as in TensorFlow Datasets.
ENCODED = "image/encoded"
LABEL = "image/class/label"
TEXT = "image/class/text"
FILENAME = "image/filename"
HEIGHT = "image/height"
WIDTH = "image/width"

SPLITS = ("train", "validation")  # every data set has these; ILSVRC-2010 also has "test"
ENCODINGS = ("jpeg", "png", "raw")
ORIGINAL = "original"  # encoding of images that are read in place: JPEG or PNG of any size
INTERPOLATIONS = ("bilinear", "area")
RESIZES = ("crop", "warp")  # the central square, as in section 2; or both sides, whatever the aspect ratio
DATASET_FILE = "dataset.json"
_FORMAT_VERSION = 2
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # by which a folder of images is recognized


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of a shard, such as "train-00000-of-00016"."""
    return f"{split}-{index:05d}-of-{count:05d}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
        name: file name. For a file that is read in place: its path.
        count: number of records.
        bytes: file size.
        sha256: SHA-256 of the file in hexadecimal.
        left_out: indices of damaged records to skip, in ascending order. The builder writes none; see
            `verify.skip_damaged_records`.
        end: last four bytes of the file in hexadecimal: the checksum of its last record. It tells shards of the same
            size apart.
    """

    name: str
    count: int
    bytes: int
    sha256: str
    left_out: tuple[int, ...] = ()
    end: str = dataclasses.field(kw_only=True)


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
        class_names: class names in the order of the labels.
        image_px: shorter side of the stored images in pixels. Images with encoding "original" are resized to it when
            they are read.
        keep_aspect: whether images keep their longer side. Otherwise images are square.
        encoding: one of `ENCODINGS`, or "original".
        splits: a dict from "train", "validation" and, if there is one, "test" to `Split`.
        settings: the settings of the builder, by name.
        checksums: `arrays.checksum` of statistics.npz and index.npz, by file name.
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
    def exif_orientation(self) -> bool:
        """Whether images were turned upright when the data set was built."""
        return self.settings.get("exif_orientation", True)

    @property
    def resize(self) -> str:
        """How images became squares, one of `RESIZES`."""
        return self.settings.get("resize", "crop")

    @property
    def in_place(self) -> bool:
        """Whether the shards are third-party files, which are read in place and never written."""
        return self.settings.get("in_place", False)

    @property
    def record_keys(self) -> tuple[str, str, int]:
        """The feature keys of the image and the label, and the label of the first class."""
        settings = self.settings
        return settings.get("image_key", ENCODED), settings.get("label_key", LABEL), settings.get("label_offset", 0)

    def save(self, data_dir: str | pathlib.Path) -> None:
        """Writes dataset.json into a folder, atomically."""
        content = {"format_version": _FORMAT_VERSION} | dataclasses.asdict(self)
        content["checksum"] = _checksum(content)
        files.write_text(pathlib.Path(data_dir) / DATASET_FILE, json.dumps(content, indent=2))


def check_class_names(names: Iterable[str]) -> None:
    """Raises ValueError if a class name contains control characters or line breaks, which would break text files with
    one name per line."""
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter != "\t" for letter in name):
            raise ValueError(f"Class names must not contain control characters or line breaks. Received: {name!r}")


def parse_class_names(content: bytes, path: str | pathlib.Path) -> list[str]:
    """The class names in a file with one name per line. A byte order mark and empty lines at the end don't count.

    Args:
        content: the content of the file, UTF-8.
        path: its path, for errors.

    Raises:
        ValueError: if it is not UTF-8, or a name is empty or occurs twice.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"Class names must be text in UTF-8. {path}: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or first_lines.setdefault(line, number) != number:
            problem = f"the same as line {first_lines[line]}: {line!r}" if line.strip() else "empty"
            raise ValueError(f"Class names must be unique and not empty. Line {number} of {path} is {problem}")
    return lines


def load_description(data_dir: str | pathlib.Path) -> DatasetDescription:
    """Reads dataset.json from a folder.

    Raises:
        ValueError: if the file is missing, damaged or edited, or has another format version.
    """
    path = storage.join(data_dir, DATASET_FILE)
    try:
        content = json.loads(storage.read_bytes(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist: not a complete data set. {_remedy(data_dir)}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != _FORMAT_VERSION:
        raise ValueError(
            f"{path} must have format version {_FORMAT_VERSION}. Received: format_version={version}. "
            "Build the data set again in another folder."
        )
    checksum = content.pop("checksum", None)
    if checksum != _checksum({"format_version": version} | content):
        raise ValueError(
            f"{path} was edited or is damaged: its checksum does not match. Class names, counts and settings belong to "
            "the records and can't be changed."
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
        description = DatasetDescription(class_names=tuple(content.pop("class_names")), splits=splits, **content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    for split in splits.values():
        for shard in split.shards:
            if pathlib.PurePath(shard.name).name != shard.name and not description.in_place:
                raise ValueError(f"{path}: shards must be in the same folder. Received: {shard.name!r}")
    return description


def _remedy(data_dir: str | pathlib.Path) -> str:
    """What to do about a folder without dataset.json."""
    try:
        has_records = any("-of-" in name for name in storage.list_files(data_dir))
    except OSError:  # the folder does not exist
        has_records = False
    if storage.is_remote(data_dir):
        remedy = "Build it with `alexnet-tfrecords` on a disk and copy it."
    else:
        remedy = f"`alexnet-tfrecords --source=... --data_dir={data_dir}` builds it or finishes an interrupted build."
        inside = pathlib.Path(data_dir).glob("*")  # nothing if there is no such folder
        if any(path.is_dir() or path.suffix.lower() in _IMAGE_SUFFIXES for path in inside):
            remedy += f" For a folder of images per class: `alexnet-train --data_dir=folder:{data_dir}`."
    if has_records:
        remedy += (
            f" If the folder holds third-party TFRecords: `alexnet-train --data_dir=tfrecords:{data_dir}` reads them "
            f"in place, and `alexnet-tfrecords --source=tfrecords:{data_dir} --data_dir=ANOTHER` builds a data set."
        )
    return remedy


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def split_of(description: DatasetDescription, split: str) -> Split:
    """The `Split` with a name. Raises ValueError if the data set has no such split."""
    if split not in description.splits:
        raise ValueError(f"`split` must be one of {sorted(description.splits)}. Received: split={split!r}")
    return description.splits[split]


def check_shard_sizes(data_dir: str | pathlib.Path, split: Split) -> None:
    """Raises ValueError if a shard is missing, or its size or its last bytes are not as recorded.

    Shards with skipped records are known to be damaged and are not checked.
    """
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # an object store takes a while to answer each request
        list(pool.map(functools.partial(_check_shard_size, data_dir), split.shards))


def _check_shard_size(data_dir: str | pathlib.Path, shard: Shard) -> None:
    if shard.left_out:
        return
    path = storage.join(data_dir, shard.name)
    size = storage.size(path)
    if size != shard.bytes:
        found = "no such file" if size is None else f"{size:,} bytes"
        raise ValueError(f"{path} must have {shard.bytes:,} bytes according to {DATASET_FILE}. Found: {found}")
    end = storage.read_end(path)
    if end != shard.end:
        raise ValueError(
            f"{path} must end with the bytes {shard.end} according to {DATASET_FILE}. Found: {end}. The file is "
            "damaged or belongs to another data set."
        )
