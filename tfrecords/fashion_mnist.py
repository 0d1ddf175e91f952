"""Fashion-MNIST as a source."""

import dataclasses
import functools
import gzip
import hashlib
import pathlib
from collections.abc import Iterator

import numpy as np

_SAMPLE_DIR = pathlib.Path(__file__).parent / "fashion_mnist_sample"
_INSTALLED_DIRS = (
    pathlib.Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
    pathlib.Path.home() / ".keras" / "datasets" / "fashion-mnist",  # keras.datasets.fashion_mnist.load_data()
)


@dataclasses.dataclass(frozen=True)
class FashionMnist:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) in a folder with its four IDX files, gzipped or not.

    Its test split is the validation split here.
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

    def checksum(self) -> str:
        arrays = [array for split in ("train", "validation") for array in self._arrays(split)]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

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
                f"{self.folder} must contain one label from 0 to 9 for each image. Received: {len(images)} {prefix} "
                f"images and {len(labels)} labels, the largest {labels.max(initial=0)}"
            )
        return images, labels


def make_fashion_mnist_source(name: str) -> FashionMnist:
    """Opens the sample in this package if `name` is empty, the installed data set for "installed", else a folder.

    Raises:
        ValueError: if the folder does not contain Fashion-MNIST.
    """
    if not name:
        return FashionMnist(_SAMPLE_DIR)
    folders = _INSTALLED_DIRS if name == "installed" else (pathlib.Path(name).expanduser(),)
    for folder in folders:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return FashionMnist(folder.resolve())
    raise ValueError(f"Found no train-images-idx3-ubyte(.gz) of Fashion-MNIST in {' or '.join(map(str, folders))}")


@functools.lru_cache(maxsize=4)
def _read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of bytes, gzipped or not, as a uint8 array with the given number of dimensions."""
    packed = path.with_name(path.name + ".gz")
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{packed if packed.exists() else path} can't be read: {error}") from error
    # Two zeros, 8 for unsigned bytes, the number of dimensions; then the size of each dimension in 4 bytes.
    header = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4")) if len(content) >= header else ()
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) - header != np.prod(shape, dtype="int64"):
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes with {dimensions} dimensions and the length in its header. "
            f"Received: {len(content)} bytes that begin with {content[:header].hex()}"
        )
    return np.frombuffer(content, "uint8", offset=header).reshape(shape)
