"""Data sets of TensorFlow Datasets as a source, read in random order from their files."""

import pathlib
from typing import Any

from alexnet_tf.tfrecords import record_source


def make_tfds_source(
    name: str, seed: int, validation_fraction: float, data_dir: str | pathlib.Path | None
) -> record_source.RecordFiles:
    """Opens a data set. TensorFlow Datasets downloads and prepares it if necessary.

    The validation split is `validation`, else `test`, else a part of each class of `train`. The order on disk depends
    on the data set, and is by class in some, so images are mixed; see `record_source`.

    Args:
        name: name of the data set.
        seed, validation_fraction: see `sources.open_source`.
        data_dir: folder where TensorFlow Datasets stores its data; None for its default.

    Raises:
        ValueError: if the data set can't be prepared, has no split `train` with one image and one label per example, or
            is not stored as TFRecords.
    """
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:  # one of many types, AssertionError among them
        hint = " ImageNet's archives need no preparation: --source=ilsvrc2012:FOLDER" if "imagenet2012" in name else ""
        reason = " ".join(str(error).split()) or repr(error)
        raise ValueError(f"TensorFlow Datasets can't prepare tfds:{name}.{hint} Reason: {reason}") from error
    features, splits = builder.info.features, builder.info.splits
    labeled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    if not labeled or "image" not in features or "train" not in splits:
        raise ValueError(
            f"tfds:{name} must have a split `train` with the features `image` and `label`. "
            f"Received: splits {sorted(splits)}, features {sorted(features)}"
        )
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(f"tfds:{name} must be stored as tfrecord. Received: {builder.info.file_format.value}")
    validation = next((split for split in ("validation", "test") if split in splits), None)
    names = {"train": "train"} | ({"validation": validation} if validation else {})
    files = {split: [str(path) for path in splits[name].filepaths] for split, name in names.items()}
    entries, _ = record_source.index_records(files, "label")
    return record_source.mix(entries, files, seed, validation_fraction, features["label"].names, names, "image")
