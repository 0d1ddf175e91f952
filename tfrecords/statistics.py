"""Mean image and principal components of RGB, computed while the training images are stored."""

import dataclasses
import pathlib
from typing import Self

import numpy as np

from alexnet_tf.tfrecords import arrays, schema, storage

STATISTICS_FILE = "statistics.npz"

# Scales of the color noise. Section 4.1 adds [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T to every pixel of an image, with p_i
# and l_i the i-th eigenvector and eigenvalue of the covariance of RGB and a_i drawn from N(0, 0.1). With pixels from 0
# to 255 this destroys every image: ImageNet's first eigenvalue is about 121.8 squared, so the offset has a standard
# deviation of 1,480 gray levels. (The square roots of the eigenvalues are 121.8, 37.1 and 19.7 in cuda-convnet2's
# make-data/input_meta, and 118.9, 35.0 and 17.1 in tensorpack's examples.) The paper must mean something else:
COLOR_NOISE_SCALES = {
    # a_i times the standard deviation along p_i, the square root of l_i. The original program computes this, so the
    # paper's results are based on it. For ImageNet: 12, 4 and 2 gray levels along the three components.
    "standard_deviation": lambda eigenvalues: np.sqrt(eigenvalues),
    # a_i l_i with pixels from 0 to 1, as in most reimplementations. For ImageNet: 6, 0.5 and 0.2 gray levels.
    "eigenvalue_unit_range": lambda eigenvalues: eigenvalues / 255.0,
    # The formula of the paper with pixels from 0 to 255.
    "eigenvalue": lambda eigenvalues: eigenvalues,
    "none": np.zeros_like,
}
COLOR_NOISE_STD = 0.1  # section 4.1: "a Gaussian with mean zero and standard deviation 0.1"


class PixelSums:
    """Sums over images from which the statistics are computed. Sums of parts can be added.

    All sums are integers, so the result does not depend on the order of the images.

    Attributes:
        count: number of images.
        image: (side, side, 3), sum of the images. uint32 for a single part: several times as fast as int64, and enough
            for 16 million images, more than a shard ever has. int64 after parts were added.
        products: int64 (3, 3), sums over all pixels of the products of two color channels.
    """

    def __init__(self, image_px: int):
        self.count = 0
        self.image = np.zeros((image_px, image_px, 3), "uint32")
        self.products = np.zeros((3, 3), "int64")
        # The pixels of one image in blocks of 256 rows of eight pixels; the last block is padded with zeros.
        self._blocks = np.zeros((-(-image_px * image_px // 2048), 256, 24), "float32")

    def add_image(self, image: np.ndarray) -> None:
        """Adds an image, uint8 (side, side, 3)."""
        self.count += 1
        self.image += image
        # Matrix products of integers are slow. float32 is exact here: the sum of the 256 products of two bytes in a
        # block is below 2^24. Each row multiplies eight adjacent pixels with each other; only the products of a pixel
        # with itself are kept. This is four times as fast as a float64 product of (pixels, 3).
        self._blocks.reshape(-1)[: image.size] = image.reshape(-1)
        products = np.matmul(self._blocks.transpose(0, 2, 1), self._blocks).sum(axis=0, dtype="float64")
        self.products += np.int64(products).reshape(8, 3, 8, 3).trace(axis1=0, axis2=2)

    def add(self, other: "PixelSums") -> None:
        """Adds the sums of another part."""
        self.count += other.count
        self.image = np.add(self.image, other.image, dtype="int64")
        self.products += other.products


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Pixel statistics of the training images.

    Attributes:
        mean_image: float32 (side, side, 3), values from 0 to 255.
        rgb_mean: float64 (3,).
        rgb_covariance: float64 (3, 3), over all pixels of all images.
        eigenvalues: float64 (3,), eigenvalues of the covariance, not negative, in descending order.
        eigenvectors: float64 (3, 3), one eigenvector per column; its largest component is positive.

    Source: sections 2 and 4.1.
    Deviation: computed from the pixels before JPEG compression, so that images are not decoded again. Compression
    changes pixels by 3 gray levels (rms) and the mean image by 0.25.
    """

    mean_image: np.ndarray
    rgb_mean: np.ndarray
    rgb_covariance: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    @classmethod
    def of(cls, sums: PixelSums) -> Self:
        """Computes the statistics from `PixelSums` of at least one image."""
        pixels = sums.count * sums.image.shape[0] * sums.image.shape[1]
        total = sums.image.sum(axis=(0, 1))
        # n * sum(xy) - sum(x) sum(y) is a small difference of large numbers: Python's integers compute it exactly.
        covariance = np.array(
            [
                [float(pixels * int(sums.products[i, j]) - int(total[i]) * int(total[j])) / pixels**2 for j in range(3)]
                for i in range(3)
            ]
        )
        eigenvalues, eigenvectors = np.linalg.eigh(covariance)
        # For gray images, two eigenvalues are 0 but computed as about -1e-13.
        eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1]
        largest = np.abs(eigenvectors).argmax(axis=0)
        eigenvectors = eigenvectors * np.sign(eigenvectors[largest, range(3)])
        return cls(
            mean_image=(sums.image / sums.count).astype("float32"),
            rgb_mean=total / pixels,
            rgb_covariance=covariance,
            eigenvalues=eigenvalues,
            eigenvectors=eigenvectors,
        )

    def mean(self, kind: str) -> np.ndarray:
        """The mean "image", or the mean "color" at every pixel; float32 (side, side, 3)."""
        if kind not in ("image", "color"):
            raise ValueError(f'`kind` must be "image" or "color". Received: kind={kind!r}')
        return self.mean_image if kind == "image" else np.full_like(self.mean_image, self.rgb_mean)

    def save(self, data_dir: str | pathlib.Path) -> str:
        """Writes statistics.npz into the folder of a data set. Returns its `arrays.checksum`."""
        return arrays.save(pathlib.Path(data_dir) / STATISTICS_FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, data_dir: str | pathlib.Path) -> Self:
        """Reads statistics.npz from the folder of a data set.

        Raises:
            ValueError: if it or dataset.json is missing or damaged, or they do not belong together.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        path = storage.join(data_dir, STATISTICS_FILE)
        return cls(**arrays.load(path, names, schema.load_description(data_dir)))

    def color_noise(self, scale: str = "standard_deviation") -> np.ndarray:
        """The matrix that turns three independent draws from N(0, 1) into an offset of red, green and blue.

        Args:
            scale: a key of `COLOR_NOISE_SCALES`.

        Returns: float32 (3, 3), to be multiplied with the vector of draws.

        Raises:
            ValueError: if the scale does not exist.
        """
        if scale not in COLOR_NOISE_SCALES:
            raise ValueError(f"`color_noise` must be one of {sorted(COLOR_NOISE_SCALES)}. Received: {scale!r}")
        noise = COLOR_NOISE_STD * self.eigenvectors * COLOR_NOISE_SCALES[scale](self.eigenvalues)
        return noise.astype("float32")
