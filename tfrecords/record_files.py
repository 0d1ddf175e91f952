"""Finds third-party TFRecords, and reads their labels and class names.

They are written by TensorFlow's ImageNet scripts, TensorFlow Datasets or your own program.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from alexnet_tf.tfrecords import image_folder, schema, storage

# Feature keys of image and label: of TensorFlow's ImageNet scripts, and of TensorFlow Datasets.
_CONVENTIONS = ((schema.ENCODED, schema.LABEL), ("image", "label"))
_OTHER_SUFFIXES = (".json", ".txt", ".md", ".csv", ".npz", ".npy", ".pbtxt", ".pb", ".idx", ".index")
_LEFTOVER_SUFFIXES = (".bak", ".old", ".orig", ".tmp", ".part", ".partial", "~")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x5e": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}
MAGIC_BYTES = 4  # number of bytes per image that `read_facts` returns


def find_files(root: str) -> dict[str, list[str]]:
    """A dict from "train" and, if there are validation or test files, "validation" to the paths of the files.

    Raises:
        ValueError: if there are no training files, a name contains two splits, shards are missing, or there are other
            files among the shards.
    """
    try:
        names = [name for name in storage.list_files(root) if not name.lower().endswith(_OTHER_SUFFIXES)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"`source` must be a folder of TFRecord files. {root} is not a folder.") from error
    files = {
        split: [name for name in names if re.search(rf"(?<![a-z])({'|'.join(words)})(?![a-z])", name.lower())]
        for split, words in image_folder.SPLIT_NAMES.items()
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
    for names in found.values():
        _check_complete(root, names)
    return {split: [storage.join(root, name) for name in names] for split, names in found.items()}


def _check_complete(root: str, names: list[str]):
    """Raises ValueError if one of N shards `-of-N` is missing, or a file is not one of them."""
    shards = [re.fullmatch(r"(.*?)(\d+)-of-(\d+)(.*)", name) for name in names]
    suffix = next((shard[4] for shard in shards if shard), None)
    others = [
        name
        for name, shard in zip(names, shards, strict=True)
        if name.lower().endswith(_LEFTOVER_SUFFIXES) or (suffix is not None and (not shard or shard[4] != suffix))
    ]
    if others:
        raise ValueError(
            f"{root} contains files that are not part of the data set: {', '.join(others[:3])}. Move them away."
        )
    indices: dict[tuple[str, int], set[int]] = {}
    for prefix, index, count, _ in (shard.groups() for shard in shards if shard):
        indices.setdefault((prefix, int(count)), set()).add(int(index))
    for (prefix, count), found in indices.items():
        if len(found) != count:
            missing = next((index for index in range(count) if index not in found), count)
            raise ValueError(
                f"{root} must contain {count:,} files {prefix}*-of-{count:05d}. Found: {len(found):,}. The first that "
                f"is missing has number {missing}."
            )
    if len(indices) > len({prefix for prefix, _ in indices}):
        listed = ", ".join(f"{prefix}*-of-{count:05d}" for prefix, count in sorted(indices))
        raise ValueError(f"{root} must contain one set of files per split. Found: {listed}")


def find_keys(path: str, image_key: str | None, label_key: str | None) -> tuple[str, str]:
    """The feature keys of image and label: those given, or those of the first record.

    Raises:
        ValueError: if the file is compressed or damaged, or its first record lacks the features.
    """
    import tensorflow as tf

    try:
        (record,) = tf.data.TFRecordDataset(path).take(1).as_numpy_iterator()
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # DataLossError, DecodeError, ValueError if there is no record
        with storage.open_binary(path) as file:
            compression = _COMPRESSED.get(file.read(2))
        if compression:
            raise ValueError(
                f"{path} must not be compressed, because records are read in random order. Decompress it; it seems to "
                f"be a {compression} file."
            ) from error
        raise ValueError(f"{path} must be a TFRecord file of tf.train.Examples. Reading it failed: {error}") from error
    for conventional in _CONVENTIONS:
        keys = (image_key or conventional[0], label_key or conventional[1])
        if all(key in features for key in keys):
            return keys
    raise ValueError(
        f"--image_key and --label_key must be features of the records; their defaults are {_CONVENTIONS[0]} or "
        f"{_CONVENTIONS[1]}. Received: {image_key}, {label_key}. Features in {path}: {', '.join(sorted(features))}"
    )


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


def name_classes(
    root: str,
    labels: Mapping[str, np.ndarray],
    texts: Iterable[Mapping[int, str]],
    label_offset: int,
    class_names: str | pathlib.Path | None,
) -> list[str]:
    """The class names in the order of the labels.

    Args:
        root: folder of the files.
        labels: a dict from split to the labels of its records, after subtracting `label_offset`.
        texts: the `Facts.texts` of all files.
        label_offset, class_names: see `record_source.make_record_files_source`.

    Raises:
        ValueError: if labels are negative or exceed the names; or if no names are given, and labels start at 1, imply
            far more classes than records, differ between splits or have two names.
    """
    names = _read_class_names(root, class_names)
    if names is None:
        names = _name_classes_by_records(root, labels, texts, label_offset)
    lowest = min(int(split_labels.min()) for split_labels in labels.values())
    highest = max(int(split_labels.max()) for split_labels in labels.values())
    if lowest < 0 or highest >= len(names):
        raise ValueError(
            f"Labels must be from 0 to {len(names) - 1} after subtracting --label_offset={label_offset}, according to "
            f"--class_names. Received: {lowest} to {highest} in {root}"
        )
    return names


def _name_classes_by_records(root, labels, texts, label_offset):
    """The class names in the records, else the labels."""
    found = {split: set(np.unique(split_labels).tolist()) for split, split_labels in labels.items()}
    every, records = set().union(*found.values()), sum(map(len, labels.values()))
    lowest, highest = min(every), max(every)
    if lowest == 1:
        raise ValueError(
            "--label_offset must be 1 if labels start at 1, unless --class_names has a class 0 without images. "
            f"Received: labels 1 to {highest} in {root}"
        )
    if highest >= max(1000, 10 * records):
        raise ValueError(
            f"Labels must number the classes. Received: labels up to {highest} in the {records:,} records of {root}. "
            "--label_key names another feature, --class_names the classes."
        )
    differing = [label for label in every if any(label not in split_labels for split_labels in found.values())]
    if differing:
        raise ValueError(
            f"The splits of {root} must have the same labels, unless --class_names names the classes. In only one: "
            f"{', '.join(map(str, sorted(differing)[:5]))}{', ...' if len(differing) > 5 else ''}"
        )
    names: dict[int, str] = {}
    for label, text in (item for file_texts in texts for item in file_texts.items()):
        if names.setdefault(label - label_offset, text) != text:
            raise ValueError(
                f"Each label must have one name in {schema.TEXT}, unless --class_names names the classes. Received: "
                f"label {label} is {names[label - label_offset]!r} and {text!r} in {root}"
            )
    return [names.get(label, str(label)) for label in range(highest + 1)]


def _read_class_names(root, file):
    """The class names in a file, else in the file of TensorFlow Datasets in the folder; None if neither exists."""
    tfds_file = storage.join(root, "label.labels.txt")
    if file is None and storage.size(tfds_file) is None:
        return None
    try:
        content = storage.read_bytes(storage.absolute(file or tfds_file))
    except OSError as error:
        raise ValueError(f"--class_names must be a file with one class name per line: {error}") from error
    return schema.parse_class_names(content, file or tfds_file)
