"""Where images come from.

Sources are pickled and sent to each of the builder's processes, any of which reads any range of images by itself.
"""

import dataclasses
import functools
import gzip
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from alexnet_tf.tfrecords import ilsvrc, image_folder, record_files, tfds_source

_SAMPLE_DIR = pathlib.Path(__file__).parent / "fashion_mnist_sample"
_INSTALLED_DIRS = (
    pathlib.Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
    pathlib.Path.home() / ".keras" / "datasets" / "fashion-mnist",  # keras.datasets.fashion_mnist.load_data()
)


class Source(Protocol):
    """What the builder needs of a source.

    Attributes:
        class_names: names in the order of the labels.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def count(self, split: str) -> int:
        """Number of images in a split, "train" or "validation"."""
        ...

    def read(
        self, split: str, start: int, stop: int
    ) -> Iterator[tuple[str, str | pathlib.Path | bytes | np.ndarray, int]]:
        """Yields (filename, image, label) of a range of a split's images.

        An image is the path or the bytes of an encoded file, or a uint8 array (rows, columns). Labels count from 0.
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
        source: "fashion_mnist" (the sample in this package), "fashion_mnist:installed", "fashion_mnist:PATH" (the
            complete set), "folder:PATH" (one folder per class, or `train` and `validation` folders of such: see
            `image_folder.make_folder_source`),
            "tfds:NAME", "tfrecords:PATH" (record files of others: see `record_files.make_record_files_source`), or
            "ilsvrc2012:PATH" or "ilsvrc2010:PATH" (a folder of ImageNet's original archives).
        seed: of the order of the images and of the choice of those held out. Fashion-MNIST keeps its own order, which
            is random.
        validation_fraction: fraction of each class that is held out if the source has no validation images.
        tfds_data_dir: folder in which TensorFlow Datasets keeps its data; None for its own default.
        record_format: `label_offset`, `image_key`, `label_key` and `class_names` of record files; None for the usual.

    Raises:
        ValueError: if there is no such source, or nothing of its kind at its path.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"`validation_fraction` must be between 0 and 1. Received: {validation_fraction}")
    kind, name = parse_source(source)
    if kind == "fashion_mnist":
        return FashionMnist(_fashion_mnist_folder(name))
    if kind == "folder":
        return image_folder.make_folder_source(name, seed, validation_fraction)
    if kind == "tfds":
        return tfds_source.make_tfds_source(name, seed, validation_fraction, tfds_data_dir)
    if kind == "tfrecords":
        return record_files.make_record_files_source(name, seed, validation_fraction, **record_format or {})
    return ilsvrc.make_ilsvrc_source(kind.removeprefix("ilsvrc"), name, seed)


def parse_source(source: str) -> tuple[str, str]:
    """The kind of a source, and its path or name. Raises ValueError if there is no such kind."""
    kind, _, name = source.partition(":")
    if kind != "fashion_mnist" and not (kind in ("folder", "tfds", "tfrecords", "ilsvrc2012", "ilsvrc2010") and name):
        raise ValueError(
            "`source` must be fashion_mnist, fashion_mnist:installed, fashion_mnist:PATH, folder:PATH, tfds:NAME, "
            f"tfrecords:PATH, ilsvrc2012:PATH or ilsvrc2010:PATH. Received: {source!r}"
        )
    return kind, name


@dataclasses.dataclass(frozen=True)
class FashionMnist:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) in a folder of its four IDX files, gzipped or not.

    The 10,000 images that its authors call the test set are the validation images.
    """

    folder: pathlib.Path
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def count(self, split: str) -> int:
        return len(self._arrays(split)[1])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        images, labels = self._arrays(split)
        for index in range(start, stop):
            yield f"{self._prefix(split)}-{index:05d}", images[index], int(labels[index])

    def _prefix(self, split):
        return {"train": "train", "validation": "t10k"}[split]

    def _arrays(self, split):
        prefix = self._prefix(split)
        images = _read_idx(self.folder / f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(self.folder / f"{prefix}-labels-idx1-ubyte", 1)
        if len(images) != len(labels) or labels.max(initial=0) >= len(self.class_names):
            raise ValueError(
                f"{self.folder} must hold one label from 0 to 9 for each image. "
                f"Received: {len(images)} {prefix} images, {len(labels)} labels, the largest {labels.max(initial=0)}"
            )
        return images, labels


def _fashion_mnist_folder(name):
    if not name:
        return _SAMPLE_DIR
    folders = _INSTALLED_DIRS if name == "installed" else (pathlib.Path(name).expanduser(),)
    for folder in folders:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder.resolve()
    raise ValueError(f"Fashion-MNIST's file train-images-idx3-ubyte(.gz) is not in {' or '.join(map(str, folders))}")


@functools.lru_cache(maxsize=4)
def _read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of bytes, gzipped or not; returns a uint8 array of the given number of dimensions."""
    packed = path.with_name(path.name + ".gz")
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{packed if packed.exists() else path} can't be read: {error}") from error
    # The magic number: two zeros, 8 for unsigned bytes, the number of dimensions; then their sizes, 4 bytes each.
    header = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4")) if len(content) >= header else ()
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) - header != np.prod(shape, dtype="int64"):
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes of {dimensions} dimensions and of the length in its "
            "header. "
            f"Received: it begins with {content[:header].hex()} and has {len(content)} bytes"
        )
    return np.frombuffer(content, "uint8", offset=header).reshape(shape)
