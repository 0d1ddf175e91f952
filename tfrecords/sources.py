"""Where images come from.

Sources are pickled and sent to each process of the builder. Each process reads any range of images by itself.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from alexnet_tf import cli
from alexnet_tf.tfrecords import (
    fashion_mnist,
    ilsvrc,
    ilsvrc_folder,
    image_folder,
    image_list,
    record_source,
    storage,
    tfds_source,
)

_KINDS = ("folder", "list", "tfds", "tfrecords", "imagenet", "ilsvrc2012", "ilsvrc2010")


class Source(Protocol):
    """What the builder needs from a source.

    Attributes:
        class_names: class names in the order of the labels.
        splits: names of the splits; if it is missing, "train" and "validation".
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def count(self, split: str) -> int:
        """Number of images in a split."""
        ...

    def checksum(self) -> str:
        """Checksum of the list of images and labels, by which an interrupted build finds that they have changed."""
        ...

    def read(
        self, split: str, start: int, stop: int
    ) -> Iterator[tuple[str, str | pathlib.Path | bytes | np.ndarray, int]]:
        """Yields (filename, image, label) for a range of a split.

        An image is the path or the content of an image file, or uint8 (height, width). Labels start at 0.
        """
        ...


def open_source(
    source: str,
    seed: int = 0,
    validation_fraction: float = 0.1,
    tfds_data_dir: str | pathlib.Path | None = None,
    record_format: Mapping[str, Any] | None = None,
) -> Source:
    """Opens a source by its name.

    Args:
        source: one of
            "fashion_mnist", "fashion_mnist:installed", "fashion_mnist:PATH": the sample in this package, or the
                complete data set;
            "folder:PATH": one folder per class, or one per split with one per class; see
                `image_folder.make_folder_source`;
            "tfds:NAME": a data set of TensorFlow Datasets;
            "tfrecords:PATH": third-party TFRecords; see `record_source.make_record_files_source`;
            "ilsvrc2012:PATH", "ilsvrc2010:PATH": a folder with ImageNet's archives, or unpacked, or Kaggle's;
            "imagenet:PATH": a complete release of ImageNet, a tar with a tar per class;
            "list:PATH": a text or CSV file of image paths and labels; see `image_list.make_list_source`.
        seed: seed of the order of the images and of the choice of held-out images. Fashion-MNIST keeps its order, which
            is random.
        validation_fraction: fraction of each class to hold out if the source has no validation images.
        tfds_data_dir: folder where TensorFlow Datasets stores its data; None for its default.
        record_format: keyword arguments for `record_source.make_record_files_source`.

    Raises:
        ValueError: if the source does not exist, or its path does not contain such a source.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"`validation_fraction` must be between 0 and 1. Received: {validation_fraction}")
    check_exists(source)
    kind, name = parse_source(source)
    match kind:
        case "fashion_mnist":
            return fashion_mnist.make_fashion_mnist_source(name)
        case "folder":
            return image_folder.make_folder_source(name, seed, validation_fraction)
        case "tfds":
            return tfds_source.make_tfds_source(name, seed, validation_fraction, tfds_data_dir)
        case "tfrecords":
            return record_source.make_record_files_source(name, seed, validation_fraction, **record_format or {})
        case "list":
            return image_list.make_list_source(name, seed, validation_fraction)
        case "imagenet":
            return ilsvrc.make_release_source(name, seed, validation_fraction)
        case _:
            unpacked = ilsvrc_folder.find_unpacked(name)
            make = ilsvrc_folder.make_ilsvrc_folder_source if unpacked else ilsvrc.make_ilsvrc_source
            return make(kind.removeprefix("ilsvrc"), name, seed)


def check_exists(source: str) -> None:
    """Raises ValueError if the folder or file that a source names does not exist. Object stores are not asked."""
    kind, name = parse_source(source)
    if kind not in ("fashion_mnist", "tfds") and not storage.is_remote(name):
        cli.check_exists(pathlib.Path(name).expanduser())


def parse_source(source: str) -> tuple[str, str]:
    """Splits the name of a source into its kind and a path or name. Raises ValueError for an unknown kind."""
    kind, _, name = source.partition(":")
    if kind != "fashion_mnist" and not (kind in _KINDS and name):
        raise ValueError(
            "`source` must be fashion_mnist, fashion_mnist:installed, fashion_mnist:PATH, folder:PATH, list:PATH, "
            f"tfds:NAME, tfrecords:PATH, imagenet:PATH, ilsvrc2012:PATH or ilsvrc2010:PATH. Received: {source!r}"
        )
    return kind, name
