"""Data sets of TensorFlow Datasets as a source, read in random order from the files in which it keeps them."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from alexnet_tf.tfrecords import image_folder


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Images inside TFRecords of `tf.train.Example`s.

    Attributes:
        class_names: in the order of the labels.
        paths: of all files.
        images: a dict from a split to a structured array with an entry for each image, in the order in which they are
            read: the number of its file, the offset of its record there, its place in the split, and its label.
        splits: a dict from a split to its name in TensorFlow Datasets.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    images: dict[str, np.ndarray]
    splits: dict[str, str]

    def count(self, split: str) -> int:
        return len(self.images[split])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        import tensorflow as tf

        from alexnet_tf.tfrecords import records

        entries = self.images[split][start:stop]
        places: Any = tf.data.Dataset.from_tensor_slices((np.array(self.paths)[entries["file"]], entries["offset"]))
        examples = places.flat_map(lambda path, offset: records.read_records(path, offset, tf.constant(1, tf.int64)))
        for entry, example in zip(entries, examples.as_numpy_iterator(), strict=True):
            (image,) = tf.train.Example.FromString(example).features.feature["image"].bytes_list.value
            yield f"{self.splits[split]}-{entry['place']}", image, int(entry["label"])


def make_tfds_source(name: str, seed: int, validation_fraction: float, data_dir: str | pathlib.Path | None) -> Tfds:
    """A `Tfds` source, which TensorFlow Datasets downloads and prepares if it has not yet.

    Its split `validation`, or else `test`, is the validation split; without both, a part of each class of `train`.

    All records are read once, for their labels and their sizes, with which any can be read alone: the order on disk is
    whatever the data set's author chose, by class for some, and is mixed here. An entry takes 24 bytes of memory.

    Args:
        name: of the data set.
        seed: of the order and of the choice of images that are held out.
        validation_fraction: fraction of each class that is held out.
        data_dir: folder in which TensorFlow Datasets keeps its data; None for its own default.

    Raises:
        ValueError: if the data set has no training split with one image and one label per example, or is not stored as
            TFRecords.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    features, splits = builder.info.features, builder.info.splits
    labeled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    if not labeled or "image" not in features or "train" not in splits:
        raise ValueError(
            f"tfds:{name} must have a split `train` with the features `image` and `label`. "
            f"Received: splits {sorted(splits)}, features {sorted(features)}"
        )
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(f"tfds:{name} must be stored as tfrecord. Received: {builder.info.file_format.value}")
    validation = next((split for split in ("validation", "test") if split in splits), "train")
    paths: list[str] = []
    found = {}
    for split in dict.fromkeys(("train", validation)):
        print(f"Reading the labels of tfds:{name}, split {split}: {splits[split].num_examples:,} images.", flush=True)
        found[split] = _index([str(path) for path in splits[split].filepaths], len(paths))
        paths += [str(path) for path in splits[split].filepaths]
    random = np.random.default_rng(seed)
    if validation == "train":
        parts = [[], []]
        for label in np.unique(found["train"]["label"]):
            of_class = np.flatnonzero(found["train"]["label"] == label)
            for part, numbers in zip(
                parts, image_folder.hold_out(len(of_class), validation_fraction, random), strict=True
            ):
                part.append(of_class[numbers])
        images = {
            split: found["train"][np.concatenate(part)]
            for split, part in zip(("train", "validation"), parts, strict=True)
        }
    else:
        images = {"train": found["train"], "validation": found[validation]}
    images = {split: random.permutation(entries) for split, entries in images.items()}
    return Tfds(tuple(features["label"].names), tuple(paths), images, {"train": "train", "validation": validation})


def _index(paths: Sequence[str], first_file: int) -> np.ndarray:
    """The entries of `Tfds.images` of all records of files, in their order. `first_file` is the first file's number."""
    import tensorflow as tf

    from alexnet_tf.tfrecords import records

    label = {"label": tf.io.FixedLenFeature((), tf.int64)}
    columns = []
    for number, path in enumerate(paths, start=first_file):
        facts = tf.data.TFRecordDataset(path).map(
            lambda record: (tf.strings.length(record), tf.io.parse_single_example(record, label)["label"]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        batches = list(facts.batch(1024).as_numpy_iterator())
        if not batches:
            continue
        sizes, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        sizes = np.int64(sizes) + records.FRAME_BYTES
        columns.append((np.full_like(labels, number), np.cumsum(sizes) - sizes, labels))
    files, offsets, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
    entries = np.empty(len(files), [("file", "int32"), ("offset", "int64"), ("place", "int64"), ("label", "int32")])
    entries["file"], entries["offset"], entries["place"], entries["label"] = files, offsets, range(len(files)), labels
    return entries
