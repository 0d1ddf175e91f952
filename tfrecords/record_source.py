"""Third-party TFRecords as a source, read in random order."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_tf.tfrecords import image_files, record_files, schema, storage

_ENTRY = [("file", "int32"), ("offset", "int64"), ("place", "int64"), ("label", "int64")]


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

    def checksum(self) -> str:
        digest = hashlib.sha256("\n".join(pathlib.PurePath(path).name for path in self.paths).encode())
        for images in self.images.values():
            digest.update(images.tobytes())
        return digest.hexdigest()

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
    for their labels and offsets, 28 bytes of memory per image. Then images are read in random order.

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
        ValueError: as `record_files.find_files`, `find_keys`, `read_facts` and `name_classes`.
    """
    root = storage.absolute(folder)
    files = record_files.find_files(root)
    image_key, label_key = record_files.find_keys(files["train"][0], image_key, label_key)
    paths, entries, texts = [], {}, []
    for split, split_paths in files.items():
        print(f"Reading the labels of {len(split_paths):,} files in {root}, split {split}.", flush=True)
        entries[split] = index_records(split_paths, len(paths), label_key, image_key, texts)
        entries[split]["label"] -= label_offset
        paths += split_paths
    labels = {split: split_entries["label"] for split, split_entries in entries.items()}
    names = record_files.name_classes(root, labels, texts, label_offset, class_names)
    return mix(entries, seed, validation_fraction, names, paths, {split: split for split in files}, image_key)


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
                parts, image_files.hold_out(len(members), validation_fraction, random), strict=True
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
    texts: list[dict[int, str]] | None = None,
) -> np.ndarray:
    """The entries of `RecordFiles.images` for all records of files, in their order.

    Args:
        paths: paths of the files.
        first_file: index of the first file.
        label_key: feature key of the label.
        image_key: None, or a feature that each record must have.
        texts: None, or a list to which the `Facts.texts` of each file are appended.

    Raises:
        ValueError: if a file is damaged, or a record lacks a feature.
    """
    from alexnet_tf.tfrecords import records

    columns = []
    for number, path in enumerate(paths, start=first_file):
        facts = record_files.read_facts(path, label_key, image_key)
        if texts is not None:
            texts.append(facts.texts)
        sizes = facts.bytes + records.FRAME_BYTES
        columns.append((np.full_like(facts.labels, number), np.cumsum(sizes) - sizes, facts.labels))
    files, offsets, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
    if not len(files):
        raise ValueError(f"Each split must have records. Found: none in {len(paths)} files such as {paths[0]}")
    entries = np.empty(len(files), _ENTRY)
    entries["file"], entries["offset"], entries["place"], entries["label"] = files, offsets, range(len(files)), labels
    return entries
