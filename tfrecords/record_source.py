"""Third-party TFRecords as a source, read in random order."""

import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_tf.tfrecords import image_files, record_files, schema, storage

_ENTRY = [("file", "int32"), ("offset", "int64"), ("position", "int64"), ("label", "int64")]


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
        positions: Any = tf.data.Dataset.from_tensor_slices((np.array(self.paths)[entries["file"]], entries["offset"]))
        one = tf.constant(1, tf.int64)
        examples = records.read_in_parallel(positions, lambda path, offset: records.read_records(path, offset, one))
        for entry, example in zip(entries, examples.as_numpy_iterator(), strict=True):
            (image,) = tf.train.Example.FromString(example).features.feature[self.image_key].bytes_list.value
            yield f"{self.splits[split]}-{entry['position']}", image, int(entry["label"])


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
        seed, validation_fraction: see `sources.open_source`.
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
    entries, texts = index_records(files, label_key, image_key)
    for split_entries in entries.values():
        split_entries["label"] -= label_offset
    labels = {split: split_entries["label"] for split, split_entries in entries.items()}
    names = record_files.name_classes(root, labels, texts, label_offset, class_names)
    return mix(entries, files, seed, validation_fraction, names, {split: split for split in files}, image_key)


def mix(
    entries: Mapping[str, np.ndarray],
    files: Mapping[str, Sequence[str]],
    seed: int,
    validation_fraction: float,
    class_names: Sequence[str],
    splits: Mapping[str, str],
    image_key: str,
) -> RecordFiles:
    """Puts indexed records into random order.

    Args:
        entries, files: result and argument of `index_records`. Without "validation", a part of each class is held out.
        seed, validation_fraction: see `make_record_files_source`.
        class_names, splits, image_key: see `RecordFiles`.
    """
    paths = tuple(itertools.chain(*files.values()))
    random = np.random.default_rng(seed)
    if "validation" not in entries:
        every = entries["train"]
        parts = image_files.hold_out(every["label"], validation_fraction, random)
        entries, splits = {split: every[part] for split, part in parts.items()}, dict.fromkeys(parts, splits["train"])
    images = {split: random.permutation(entries[split]) for split in schema.SPLITS}
    return RecordFiles(tuple(class_names), paths, images, dict(splits), image_key)


def index_records(
    files: Mapping[str, Sequence[str]], label_key: str, image_key: str | None = None
) -> tuple[dict[str, np.ndarray], list[dict[int, str]]]:
    """Reads the entries of `RecordFiles.images` for all records, in their order.

    Args:
        files: a dict from "train" and "validation" to the paths of the files.
        label_key: feature key of the label.
        image_key: None, or a feature that each record must have.

    Returns: (a dict from split to entries, the `Facts.texts` of each file).

    Raises:
        ValueError: if a file is damaged, a split is empty, or a record lacks a feature.
    """
    from alexnet_tf.tfrecords import records

    entries, texts = {}, []
    for split, paths in files.items():
        print(f"Reading the labels of {len(paths):,} files, split {split}: {paths[0]} ...", flush=True)
        facts = [record_files.read_facts(path, label_key, image_key) for path in paths]
        sizes = [each.bytes + records.FRAME_BYTES for each in facts]
        entries[split] = found = np.empty(sum(map(len, sizes)), _ENTRY)
        if not len(found):
            raise ValueError(f"Each split must have records. Found: none in {len(paths)} files such as {paths[0]}")
        found["file"] = np.repeat(np.arange(len(texts), len(texts) + len(paths)), [len(each) for each in sizes])
        found["offset"] = np.concatenate([np.cumsum(each) - each for each in sizes])
        found["position"] = np.arange(len(found))
        found["label"] = np.concatenate([each.labels for each in facts])
        texts += [each.texts for each in facts]
    return entries, texts
