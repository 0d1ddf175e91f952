"""Mean image and principal components of color, gathered while the training images are built."""

import dataclasses
import pathlib

import numpy as np

from alexnet_tf.tfrecords import schema

STATISTICS_FILE = "statistics.npz"

# How large the color noise is. Section 4.1 adds [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T to every pixel of an image, with
# p_i and l_i the i-th eigenvector and eigenvalue of the covariance of RGB and a_i drawn from N(0, 0.1). Taken by the
# letter on pixels of 0 to 255 that drowns every image: ImageNet's first eigenvalue is about 121.8 squared, and the
# offset then has a standard deviation of 1,480 grey levels. So the paper can only have meant something else:
COLOR_NOISE_SCALES = {
    # a_i times the standard deviation along p_i, the square root of l_i: what the original program computes, and so
    # what the paper's numbers were reached with. On ImageNet 12, 4 and 2 grey levels along the three components.
    "standard_deviation": lambda eigenvalues: np.sqrt(eigenvalues),
    # a_i l_i with pixels of 0 to 1: the reading of most re-implementations. On ImageNet 6, 0.5 and 0.2 grey levels.
    "eigenvalue_unit_range": lambda eigenvalues: eigenvalues / 255.0,
    # By the letter.
    "eigenvalue": lambda eigenvalues: eigenvalues,
    "none": np.zeros_like,
}
COLOR_NOISE_STD = 0.1  # section 4.1: "a Gaussian with mean zero and standard deviation 0.1"


class PixelSums:
    """Exact sums over images, from which the statistics follow. Sums of parts, added, are those of the whole.

    All sums are of integers, so they do not depend on the order of the images.

    Attributes:
        count: number of images.
        image: (side, side, 3), sum of the images: uint32, which is enough for the 16 million images that one shard
            never has, and added to several times as fast as int64; int64 once sums of parts were added.
        products: int64 (3, 3), sums over all pixels of the products of two of red, green and blue.
    """

    def __init__(self, image_px):
        self.count = 0
        self.image = np.zeros((image_px, image_px, 3), "uint32")
        self.products = np.zeros((3, 3), "int64")
        # The pixels of an image in blocks of 256 rows, eight pixels in each; zeros fill the last.
        self._blocks = np.zeros((-(-image_px * image_px // 2048), 256, 24), "float32")

    def add_image(self, image):
        """Adds an image, uint8 (side, side, 3)."""
        self.count += 1
        self.image += image
        # Integer products have no fast routine. float32 holds these exactly: the 256 products of two bytes that are
        # summed up in a block are below 2^24 together. Of eight pixels beside one another those of a pixel with
        # itself are kept. Four times as fast as a product of (pixels, 3) in float64.
        self._blocks.reshape(-1)[: image.size] = image.reshape(-1)
        products = np.matmul(self._blocks.transpose(0, 2, 1), self._blocks).sum(axis=0, dtype="float64")
        self.products += np.int64(products).reshape(8, 3, 8, 3).trace(axis1=0, axis2=2)

    def add(self, other):
        """Adds the sums of another part."""
        self.count += other.count
        self.image = np.add(self.image, other.image, dtype="int64")
        self.products += other.products


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the network and its color noise need to know of the training images.

    Attributes:
        mean_image: float32 (side, side, 3), pixels of 0 to 255.
        rgb_mean: float64 (3,).
        rgb_covariance: float64 (3, 3), over all pixels of all images.
        eigenvalues: float64 (3,), of the covariance, the largest first, none below 0.
        eigenvectors: float64 (3, 3), one in each column, its largest component positive.

    Source: sections 2 and 4.1.
    Deviation: of the pixels before they are stored as JPEG, which changes them by a grey level or two: they need not
    be decoded again for it.
    """

    mean_image: np.ndarray
    rgb_mean: np.ndarray
    rgb_covariance: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    @classmethod
    def of(cls, sums):
        """The statistics that follow from `PixelSums` of at least one image."""
        pixels = sums.count * sums.image.shape[0] * sums.image.shape[1]
        total = sums.image.sum(axis=(0, 1))
        # n * sum(xy) - sum(x) sum(y) in Python's integers, which do not overflow: two large numbers of nearly the
        # same size are subtracted without rounding.
        covariance = np.array(
            [
                [float(pixels * int(sums.products[i, j]) - int(total[i]) * int(total[j])) / pixels**2 for j in range(3)]
                for i in range(3)
            ]
        )
        eigenvalues, eigenvectors = np.linalg.eigh(covariance)
        # Of grey images two eigenvalues are 0, and come out as 1e-13 below it.
        eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1]
        largest = np.abs(eigenvectors).argmax(axis=0)
        eigenvectors = eigenvectors * np.sign(eigenvectors[largest, range(3)])
        return cls(
            mean_image=np.float32(sums.image / sums.count),
            rgb_mean=total / pixels,
            rgb_covariance=covariance,
            eigenvalues=eigenvalues,
            eigenvectors=eigenvectors,
        )

    def mean(self, kind):
        """What a network subtracts, float32 (side, side, 3): the mean "image", or the mean "color" at every pixel."""
        if kind not in ("image", "color"):
            raise ValueError(f'`kind` must be "image" or "color". Received: kind={kind!r}')
        return self.mean_image if kind == "image" else np.full_like(self.mean_image, self.rgb_mean)

    def save(self, data_dir):
        """Writes statistics.npz into a data set's folder."""
        path = pathlib.Path(data_dir) / STATISTICS_FILE
        schema.write_whole(path, lambda file: np.savez_compressed(file, **dataclasses.asdict(self)))

    @classmethod
    def load(cls, data_dir):
        """Reads statistics.npz from a data set's folder. Raises ValueError where it is missing or damaged."""
        path = pathlib.Path(data_dir) / STATISTICS_FILE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in dataclasses.fields(cls)})
        except Exception as error:  # a damaged archive raises one of half a dozen kinds
            raise ValueError(f"{path} must hold the statistics of a data set. Reading it failed: {error!r}") from error

    def color_noise(self, scale="standard_deviation"):
        """The matrix that makes color noise of three independent draws from N(0, 1).

        Args:
            scale: a key of `COLOR_NOISE_SCALES`.

        Returns: float32 (3, 3): times a vector of three draws it is what is added to red, green and blue.

        Raises:
            ValueError: where the scale does not exist.
        """
        if scale not in COLOR_NOISE_SCALES:
            raise ValueError(f"`color_noise` must be one of {sorted(COLOR_NOISE_SCALES)}. Received: {scale!r}")
        return np.float32(COLOR_NOISE_STD * self.eigenvectors * COLOR_NOISE_SCALES[scale](self.eigenvalues))
