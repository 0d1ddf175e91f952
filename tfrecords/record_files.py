"""TFRecord files of others as a source, read in random order: TensorFlow's ImageNet scripts', TFDS's, or your own."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_tf.tfrecords import image_folder, schema, storage

# The keys of an image and of its label: those of the ImageNet convention, and those of TensorFlow Datasets.
_CONVENTIONS = ((schema.ENCODED, schema.LABEL), ("image", "label"))
_SPLIT_NAMES = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing"}
_NO_RECORDS = (".json", ".txt", ".md", ".csv", ".npz", ".npy", ".pbtxt", ".pb", ".idx", ".index")
MAGIC_BYTES = 4  # of an image that `read_facts` returns
_ENTRY = [("file", "int32"), ("offset", "int64"), ("place", "int64"), ("label", "int32")]


@dataclasses.dataclass(frozen=True)
class RecordFiles:
    """Images inside TFRecords of `tf.train.Example`s.

    Attributes:
        class_names: in the order of the labels.
        paths: of all files.
        images: a dict from a split to a structured array with an entry for each image, in the order in which they are
            read: the number of its file, the offset of its record there, its place in the split, and its label.
        splits: a dict from a split to its name in the files.
        image_key: the feature that holds an encoded image.
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
    """A `RecordFiles` of a folder with files such as train-00000-of-01024, or flowers-train.tfrecord-00000-of-00002.

    The split is a word of a file's name: train or training; validation, valid, val or dev; test or testing. Without
    validation files those of the test are taken; without both, a part of each class is held out. All records are read
    once, for their labels and their sizes, with which any can be read alone: whatever order they are in on disk, they
    are mixed here. An entry takes 24 bytes of memory.

    Args:
        folder: of the files. Nothing is written there.
        seed: of the order and of the choice of images that are held out.
        validation_fraction: fraction of each class that is held out if there are no validation images.
        label_offset: the label of the first class: 1 where 0 is the background, as in TensorFlow's first ImageNet
            scripts and the Model Garden; it is subtracted.
        image_key, label_key: features of a record; None for those of the ImageNet convention, "image/encoded" and
            "image/class/label", or of TensorFlow Datasets, "image" and "label", by what the first record has.
        class_names: a file with a name per line, in the order of the labels; None for TensorFlow Datasets' own file
            beside the records, else the records' "image/class/text", else the labels' numbers.

    Raises:
        ValueError: if there are no such files, one is damaged or compressed, or its records have no such features or
            other labels.
    """
    root = storage.absolute(folder)
    files = find_files(root)
    paths = [path for of_split in files.values() for path in of_split]
    image_key, label_key = find_keys(paths[0], image_key, label_key)
    found, texts, first = {}, {}, 0
    for split, of_split in files.items():
        print(f"Reading the labels of {len(of_split):,} files of {root}, split {split}.", flush=True)
        found[split] = index_records(of_split, first, label_key, image_key, texts)
        found[split]["label"] -= label_offset
        first += len(of_split)
    labels = np.concatenate([entries["label"] for entries in found.values()])
    names = name_classes(root, labels, texts, label_offset, class_names)
    return mixed(found, seed, validation_fraction, names, paths, {split: split for split in files}, image_key)


def name_classes(
    root: str,
    labels: np.ndarray,
    texts: Mapping[int, str],
    label_offset: int,
    class_names: str | pathlib.Path | None,
) -> list[str]:
    """The names of the classes, in the order of the labels.

    Args:
        root: folder of the files.
        labels: of all records, from 0 on.
        texts: a name for labels, as they are in the records.
        label_offset, class_names: as `make_record_files_source` takes them.

    Raises:
        ValueError: if labels are negative, or more than the names; or are from 1 on, and no names were given.
    """
    texts = {label - label_offset: text for label, text in texts.items()}
    names = _read_class_names(root, class_names)
    lowest, highest = int(labels.min()), int(labels.max())
    if names is None:
        if lowest == 1:
            raise ValueError(
                "`label_offset` must be 1 for records whose labels are from 1 on, unless `class_names` names a class 0 "
                f"without images. Received: labels from 1 to {highest} in {root}"
            )
        names = [texts.get(label, str(label)) for label in range(highest + 1)]
    if lowest < 0 or highest >= len(names):
        raise ValueError(
            f"`label_offset` and `class_names` must make the labels of the records 0 to {len(names) - 1}. Received: "
            f"label_offset={label_offset}, which makes them {lowest} to {highest} in {root}"
        )
    return names


def mixed(
    found: Mapping[str, np.ndarray],
    seed: int,
    validation_fraction: float,
    class_names: Sequence[str],
    paths: Sequence[str],
    splits: Mapping[str, str],
    image_key: str,
) -> RecordFiles:
    """The source of indexed records, in random order.

    Args:
        found: for "train" and, unless a part of each class is to be held out, "validation" what `index_records`
            returned.
        seed, validation_fraction: as `make_record_files_source` takes them.
        class_names, paths, splits, image_key: as in `RecordFiles`.
    """
    random = np.random.default_rng(seed)
    images = dict(found)
    if "validation" not in images:
        parts = [[], []]
        for label in np.unique(found["train"]["label"]):
            of_class = np.flatnonzero(found["train"]["label"] == label)
            divided = image_folder.hold_out(len(of_class), validation_fraction, random)
            for part, numbers in zip(parts, divided, strict=True):
                part.append(of_class[numbers])
        images = {split: found["train"][np.concatenate(part)] for split, part in zip(schema.SPLITS, parts, strict=True)}
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
    """The entries of `RecordFiles.images` of all records of files, in their order.

    Args:
        paths: of the files.
        first_file: number of the first of them.
        label_key: the feature with an image's label.
        image_key: None, or a feature that each record must have.
        texts: None, or a dict that gets the texts of labels that it lacks, from "image/class/text".

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
        raise ValueError(f"A file of each split must hold records. Of {len(paths)}, such as {paths[0]}, none does.")
    entries = np.empty(len(files), _ENTRY)
    entries["file"], entries["offset"], entries["place"], entries["label"] = files, offsets, range(len(files)), labels
    return entries


@dataclasses.dataclass(frozen=True)
class Facts:
    """What `read_facts` found in the records of a file.

    Attributes:
        bytes: int64 (records,), the size of each.
        labels: int64 (records,).
        texts: a dict from a label to "image/class/text" of its first record, if that has it.
        magics: bytes (records,), the first `MAGIC_BYTES` of each image; empty if images were not looked at.
    """

    bytes: np.ndarray
    labels: np.ndarray
    texts: dict[int, str]
    magics: np.ndarray


def read_facts(path: str, label_key: str, image_key: str | None) -> Facts:
    """The `Facts` of a file, whose records must have a feature with the label and, unless None, one with the image.

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
        raise ValueError(f"{path} must hold whole records with the features {sorted(features)}: {error}") from error
    if not batches:
        return Facts(np.empty(0, "int64"), np.empty(0, "int64"), {}, np.empty(0, object))
    sizes, labels, written, magics = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    texts = {
        int(label): bytes(written[place]).decode("utf-8", "replace")
        for label, place in zip(*np.unique(labels, return_index=True), strict=True)
        if written[place]
    }
    return Facts(sizes.astype("int64"), labels, texts, magics)


def find_files(root: str) -> dict[str, list[str]]:
    """The paths of the files of "train" and of "validation", which may be those called test; or of "train" alone.

    Raises:
        ValueError: if there are none of "train", or one has the names of two splits.
    """
    try:
        names = [name for name in storage.list_files(root) if not name.lower().endswith(_NO_RECORDS)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"`source` must name a folder of TFRecord files. There is none at {root}.") from error
    files = {
        split: [name for name in names if re.search(rf"(?<![a-z])({words})(?![a-z])", name.lower())]
        for split, words in _SPLIT_NAMES.items()
    }
    if not files["train"]:
        found = ", ".join(names[:3]) or "none"
        raise ValueError(
            f"{root} must hold TFRecord files with `train` in their names, such as train-00000-of-01024. Found: {found}"
        )
    validation = files["validation"] or files["test"]
    for name in set(files["train"]) & set(validation):
        raise ValueError(f"{storage.join(root, name)} must have the name of one split in its own. It has that of two.")
    found = {"train": files["train"]} | ({"validation": validation} if validation else {})
    return {split: [storage.join(root, name) for name in of_split] for split, of_split in found.items()}


def find_keys(path: str, image_key: str | None, label_key: str | None) -> tuple[str, str]:
    """The features to be read: those given, or of the convention that the first record of a file follows.

    Raises:
        ValueError: if the file is compressed or damaged, or its first record has no such features.
    """
    import tensorflow as tf

    with storage.open_binary(path) as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(f"{path} must not be compressed, since records are read from anywhere in it: gunzip it.")
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
        f"`image_key` and `label_key` must be features of the records: with none given, {_CONVENTIONS[0]} or "
        f"{_CONVENTIONS[1]}. Received: {image_key}, {label_key}. {path} has {', '.join(sorted(features))}"
    )


def _read_class_names(root: str, file: str | pathlib.Path | None) -> list[str] | None:
    """The names in a file, or in TensorFlow Datasets' own beside the records; None without both."""
    own = storage.join(root, "label.labels.txt")
    if file is None and storage.size(own) is None:
        return None
    try:
        return storage.read_bytes(storage.absolute(file or own)).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`class_names` must be a file with a name per line: {error}") from error
