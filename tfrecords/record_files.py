"""Third-party TFRecords as a source: by TensorFlow's ImageNet scripts, TensorFlow Datasets or your own program."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_tf.tfrecords import image_folder, schema, storage

# Feature keys of image and label: of TensorFlow's ImageNet scripts, and of TensorFlow Datasets.
_CONVENTIONS = ((schema.ENCODED, schema.LABEL), ("image", "label"))
_SPLIT_NAMES = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing"}
_OTHER_SUFFIXES = (".json", ".txt", ".md", ".csv", ".npz", ".npy", ".pbtxt", ".pb", ".idx", ".index")
MAGIC_BYTES = 4  # number of bytes per image that `read_facts` returns
_ENTRY = [("file", "int32"), ("offset", "int64"), ("place", "int64"), ("label", "int32")]


@dataclasses.dataclass(frozen=True)
class RecordFiles:
    """Images inside TFRecords of `tf.train.Example`s.

    Attributes:
        class_names: class names in the order of the labels.
        paths: paths of all files.
        images: a dict from split to a structured array with an entry per image, in reading order: index of its file,
            offset of its record, position in the split on disk, and label.
        splits: a dict from split to its name on disk.
        image_key: feature key of the encoded image.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    images: dict[str, np.ndarray]
    splits: dict[str, str]
    image_key: str

    def count(self, split: str) -> int:
        return len(self.images[split])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        import tensorflow as tf

        from alexnet_tf.tfrecords import records

        entries = self.images[split][start:stop]
        places: Any = tf.data.Dataset.from_tensor_slices((np.array(self.paths)[entries["file"]], entries["offset"]))
        one = tf.constant(1, tf.int64)
        examples = records.interleave(places, lambda path, offset: records.read_records(path, offset, one))
        for entry, example in zip(entries, examples.as_numpy_iterator(), strict=True):
            (image,) = tf.train.Example.FromString(example).features.feature[self.image_key].bytes_list.value
            yield f"{self.splits[split]}-{entry['place']}", image, int(entry["label"])


def make_record_files_source(
    folder: str | pathlib.Path,
    seed: int,
    validation_fraction: float,
    *,
    label_offset: int = 0,
    image_key: str | None = None,
    label_key: str | None = None,
    class_names: str | pathlib.Path | None = None,
) -> RecordFiles:
    """Opens a folder with files such as train-00000-of-01024 or flowers-train.tfrecord-00000-of-00002.

    The split is a word in the file name: train or training; validation, valid, val or dev; test or testing. Without
    validation files, test files are used; without both, a part of each class is held out. All records are read once
    for their labels and offsets, 24 bytes of memory per image. Then images are read in random order.

    Args:
        folder: folder of the files. Nothing is written there.
        seed: seed of the order and of the choice of held-out images.
        validation_fraction: fraction of each class to hold out if there is no validation split.
        label_offset: label of the first class, which is subtracted. 1 if label 0 is the background, as in TensorFlow's
            first ImageNet scripts and the Model Garden.
        image_key, label_key: feature keys; None for "image/encoded" and "image/class/label", or "image" and "label",
            whichever the first record has.
        class_names: file with one class name per line in the order of the labels; None for the class names of
            TensorFlow Datasets in the folder, else "image/class/text" of the records, else the labels.

    Raises:
        ValueError: if there are no such files, a file is damaged or compressed, or records lack the features or have
            labels outside of the range.
    """
    root = storage.absolute(folder)
    files = find_files(root)
    image_key, label_key = find_keys(files["train"][0], image_key, label_key)
    paths, entries, texts = [], {}, {}
    for split, split_paths in files.items():
        print(f"Reading the labels of {len(split_paths):,} files in {root}, split {split}.", flush=True)
        entries[split] = index_records(split_paths, len(paths), label_key, image_key, texts)
        entries[split]["label"] -= label_offset
        paths += split_paths
    labels = np.concatenate([split_entries["label"] for split_entries in entries.values()])
    names = name_classes(root, labels, texts, label_offset, class_names)
    return mix(entries, seed, validation_fraction, names, paths, {split: split for split in files}, image_key)


def name_classes(
    root: str,
    labels: np.ndarray,
    texts: Mapping[int, str],
    label_offset: int,
    class_names: str | pathlib.Path | None,
) -> list[str]:
    """The class names in the order of the labels.

    Args:
        root: folder of the files.
        labels: labels of all records, after subtracting `label_offset`.
        texts: a dict from labels, as in the records, to class names.
        label_offset, class_names: see `make_record_files_source`.

    Raises:
        ValueError: if labels are negative or exceed the names, or start at 1 although no names are given.
    """
    texts = {label - label_offset: text for label, text in texts.items()}
    names = _read_class_names(root, class_names)
    lowest, highest = int(labels.min()), int(labels.max())
    if names is None:
        if lowest == 1:
            raise ValueError(
                "--label_offset must be 1 if labels start at 1, unless --class_names has a class 0 without images. "
                f"Received: labels 1 to {highest} in {root}"
            )
        names = [texts.get(label, str(label)) for label in range(highest + 1)]
    if lowest < 0 or highest >= len(names):
        raise ValueError(
            f"Labels must be from 0 to {len(names) - 1} after subtracting --label_offset={label_offset}, according to "
            f"--class_names. Received: {lowest} to {highest} in {root}"
        )
    return names


def mix(
    entries: Mapping[str, np.ndarray],
    seed: int,
    validation_fraction: float,
    class_names: Sequence[str],
    paths: Sequence[str],
    splits: Mapping[str, str],
    image_key: str,
) -> RecordFiles:
    """Puts indexed records into random order.

    Args:
        entries: a dict from "train" and "validation" to the result of `index_records`. Without "validation", a part of
            each class is held out.
        seed, validation_fraction: see `make_record_files_source`.
        class_names, paths, splits, image_key: see `RecordFiles`.
    """
    random = np.random.default_rng(seed)
    images = dict(entries)
    if "validation" not in images:
        parts = [[], []]
        for label in np.unique(entries["train"]["label"]):
            members = np.flatnonzero(entries["train"]["label"] == label)
            for part, indices in zip(
                parts, image_folder.hold_out(len(members), validation_fraction, random), strict=True
            ):
                part.append(members[indices])
        images = {
            split: entries["train"][np.concatenate(part)] for split, part in zip(schema.SPLITS, parts, strict=True)
        }
        splits = dict.fromkeys(schema.SPLITS, splits["train"])
    images = {split: random.permutation(images[split]) for split in schema.SPLITS}
    return RecordFiles(tuple(class_names), tuple(paths), images, dict(splits), image_key)


def index_records(
    paths: Sequence[str],
    first_file: int,
    label_key: str,
    image_key: str | None = None,
    texts: dict[int, str] | None = None,
) -> np.ndarray:
    """The entries of `RecordFiles.images` for all records of files, in their order.

    Args:
        paths: paths of the files.
        first_file: index of the first file.
        label_key: feature key of the label.
        image_key: None, or a feature that each record must have.
        texts: None, or a dict to which the class names in "image/class/text" are added by label.

    Raises:
        ValueError: if a file is damaged, or a record lacks a feature.
    """
    from alexnet_tf.tfrecords import records

    columns = []
    for number, path in enumerate(paths, start=first_file):
        facts = read_facts(path, label_key, image_key)
        for label, text in facts.texts.items():
            if texts is not None:
                texts.setdefault(label, text)
        sizes = facts.bytes + records.FRAME_BYTES
        columns.append((np.full_like(facts.labels, number), np.cumsum(sizes) - sizes, facts.labels))
    files, offsets, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
    if not len(files):
        raise ValueError(f"Each split must have records. Found: none in {len(paths)} files such as {paths[0]}")
    entries = np.empty(len(files), _ENTRY)
    entries["file"], entries["offset"], entries["place"], entries["label"] = files, offsets, range(len(files)), labels
    return entries


@dataclasses.dataclass(frozen=True)
class Facts:
    """The records of a file.

    Attributes:
        bytes: int64 (records,), size of each record.
        labels: int64 (records,).
        texts: a dict from label to "image/class/text" of its first record, if that has a text.
        magics: bytes (records,), the first `MAGIC_BYTES` of each image; empty without `image_key`.
    """

    bytes: np.ndarray
    labels: np.ndarray
    texts: dict[int, str]
    magics: np.ndarray


def read_facts(path: str, label_key: str, image_key: str | None) -> Facts:
    """Reads the `Facts` of a file. Each record must have a label and, unless `image_key` is None, an image.

    Raises:
        ValueError: if the file is damaged, or a record lacks a feature.
    """
    import tensorflow as tf

    features = {label_key: tf.io.FixedLenFeature((), tf.int64), schema.TEXT: tf.io.FixedLenFeature((), tf.string, "")}
    if image_key:
        features[image_key] = tf.io.FixedLenFeature((), tf.string)

    def facts(record):
        example = tf.io.parse_single_example(record, features)
        magic = tf.strings.substr(example[image_key], 0, MAGIC_BYTES) if image_key else ""
        return tf.strings.length(record), example[label_key], example[schema.TEXT], magic

    dataset = tf.data.TFRecordDataset(path).map(facts, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        batches = list(dataset.batch(1024).as_numpy_iterator())
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(f"{path} must be complete and have the features {sorted(features)}: {error}") from error
    if not batches:
        return Facts(np.empty(0, "int64"), np.empty(0, "int64"), {}, np.empty(0, object))
    sizes, labels, names, magics = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    texts = {
        int(label): bytes(names[index]).decode("utf-8", "replace")
        for label, index in zip(*np.unique(labels, return_index=True), strict=True)
        if names[index]
    }
    return Facts(sizes.astype("int64"), labels, texts, magics)


def find_files(root: str) -> dict[str, list[str]]:
    """A dict from "train" and, if there are validation or test files, "validation" to the paths of the files.

    Raises:
        ValueError: if there are no training files, or a name contains two splits.
    """
    try:
        names = [name for name in storage.list_files(root) if not name.lower().endswith(_OTHER_SUFFIXES)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"`source` must be a folder of TFRecord files. {root} is not a folder.") from error
    files = {
        split: [name for name in names if re.search(rf"(?<![a-z])({words})(?![a-z])", name.lower())]
        for split, words in _SPLIT_NAMES.items()
    }
    if not files["train"]:
        found = ", ".join(names[:3]) or "none"
        raise ValueError(
            f"{root} must contain TFRecord files with `train` in their names, such as train-00000-of-01024. "
            f"Found: {found}"
        )
    validation = files["validation"] or files["test"]
    for name in set(files["train"]) & set(validation):
        raise ValueError(f"File names must contain the name of one split. Received: {storage.join(root, name)}")
    found = {"train": files["train"]} | ({"validation": validation} if validation else {})
    return {split: [storage.join(root, name) for name in names] for split, names in found.items()}


def find_keys(path: str, image_key: str | None, label_key: str | None) -> tuple[str, str]:
    """The feature keys of image and label: those given, or those of the first record.

    Raises:
        ValueError: if the file is compressed or damaged, or its first record lacks the features.
    """
    import tensorflow as tf

    with storage.open_binary(path) as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(f"{path} must not be compressed, because records are read in random order. Gunzip it.")
    try:
        (record,) = tf.data.TFRecordDataset(path).take(1).as_numpy_iterator()
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # DataLossError, ValueError if there is none, DecodeError
        raise ValueError(f"{path} must be a TFRecord file of tf.train.Examples: {error!r}") from error
    for conventional in _CONVENTIONS:
        keys = (image_key or conventional[0], label_key or conventional[1])
        if all(key in features for key in keys):
            return keys
    raise ValueError(
        f"--image_key and --label_key must be features of the records; their defaults are {_CONVENTIONS[0]} or "
        f"{_CONVENTIONS[1]}. Received: {image_key}, {label_key}. Features in {path}: {', '.join(sorted(features))}"
    )


def _read_class_names(root: str, file: str | pathlib.Path | None) -> list[str] | None:
    """The class names in a file, else in the file of TensorFlow Datasets in the folder; None if neither exists."""
    tfds_file = storage.join(root, "label.labels.txt")
    if file is None and storage.size(tfds_file) is None:
        return None
    try:
        return storage.read_bytes(storage.absolute(file or tfds_file)).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--class_names must be a file with one class name per line: {error}") from error
