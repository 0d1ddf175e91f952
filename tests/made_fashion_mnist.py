"""Small data sets in the format of Fashion-MNIST."""

import gzip

import numpy as np


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype("uint8").tobytes()


def write_fashion_mnist(folder, counts=(("train", 6), ("t10k", 4)), suffix=".gz"):
    """Writes images with pixel value i % 256 and label i % 10. Returns the folder."""
    folder.mkdir()
    for prefix, count in dict(counts).items():
        images = np.repeat(np.arange(count) % 256, 28 * 28).reshape(count, 28, 28)
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            content = gzip.compress(idx(array), 1) if suffix else idx(array)
            (folder / f"{prefix}-{kind}-ubyte{suffix}").write_bytes(content)
    return folder
