"""Data sets of TensorFlow Datasets as a source, read in random order from the files in which it keeps them."""

import pathlib
from typing import Any

from alexnet_tf.tfrecords import record_files


def make_tfds_source(
    name: str, seed: int, validation_fraction: float, data_dir: str | pathlib.Path | None
) -> record_files.RecordFiles:
    """The source of a data set, which TensorFlow Datasets downloads and prepares if it has not yet.

    Its split `validation`, or else `test`, is the validation split; without both, a part of each class of `train`.

    The order on disk is whatever the data set's author chose, by class for some, and is mixed: see `record_files`.

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
        of_split = [str(path) for path in splits[split].filepaths]
        found[split] = record_files.index_records(of_split, len(paths), "label")
        paths += of_split
    images = {"train": found["train"]} | ({} if validation == "train" else {"validation": found[validation]})
    names = {"train": "train", "validation": validation}
    return record_files.mixed(images, seed, validation_fraction, features["label"].names, paths, names, "image")
