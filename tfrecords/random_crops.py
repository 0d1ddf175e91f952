"""Random crops of training images: of one size as in the paper, or of random size and aspect ratio, resized."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import dataclasses
import math

import tensorflow as tf

from alexnet_tf.tfrecords import crops, decoding, schema

_ATTEMPTS = 10
RATIO = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A random crop of a training image.

    Attributes:
        crop_px: side of the result, in pixels.
        last_offset: whether a crop of this size may touch the right and bottom edges.
        centered: whether crops of this size are center crops instead of random ones.
        scale: None for crops of `crop_px`; otherwise the smallest and largest fraction of an image's area that a crop
            covers, before it is resized to `crop_px`.
        ratio: the smallest and largest aspect ratio (width / height) of such a crop.

    Raises:
        ValueError: if `scale` is not two ascending numbers in (0, 1], or `ratio` not two ascending numbers above 0.
    """

    crop_px: int
    last_offset: bool = False
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = RATIO
    centered: bool = False

    def __post_init__(self):
        for name, values, most in (("scale", self.scale or (1, 1), 1), ("ratio", self.ratio, math.inf)):
            if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
                raise ValueError(
                    f"`crop_{name}` must be two numbers above 0 and at most {most}, the smaller first. Received: "
                    f"{values}"
                )

    @property
    def num_draws(self) -> int:
        """Number of random numbers per image."""
        return 2 if self.scale is None else 2 * _ATTEMPTS + 2

    def decode(self, encoded: tf.Tensor, encoding: str, size: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Decodes a crop of an image.

        Args:
            encoded, encoding, size: see `decoding.decode_image`. With a `scale`, the crop of an "original" image is
                from the complete file, whatever its `size`.
            draws: float32 (num_draws,), uniform in [0, 1).

        Returns: uint8 (crop_px, crop_px, 3).
        """
        if self.scale is not None:
            if encoding == schema.ORIGINAL:
                size = decoding.read_size(encoded)
            window = decoding.decode_window(encoded, encoding, size, *self.window(size, draws))
            return decoding.resize(window, self.crop_px, self.crop_px)
        return decoding.decode_crop(encoded, encoding, size, *self.position(size, draws), self.crop_px)

    def position(self, size: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The first row and column of a crop of fixed size, int32 scalars. Arguments as in `decode`."""
        if self.centered:
            top, left = tf.unstack(crops.center_offset(size, self.crop_px))
        else:
            places = tf.cast(tf.maximum(size - self.crop_px + (1 if self.last_offset else 0), 1), tf.float32)
            top, left = (tf.cast(draws[axis] * places[axis], tf.int32) for axis in range(2))
        return top, left

    def window(self, size: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """A window of random area and aspect ratio: (top, left, rows, columns), int32 scalars.

        The first of ten windows that fits into the image, with a uniform area, a log-uniform aspect ratio and a uniform
        position. If none fits, the largest central window with an aspect ratio within `ratio`.

        Args:
            size: int32 (2,), rows and columns of the image.
            draws: float32 (num_draws,): ten for areas, ten for aspect ratios, one for the row, one for the column.

        Source: torchvision, transforms.RandomResizedCrop, after Szegedy et al., Going Deeper with Convolutions, 2014.
        """
        least, most = self.scale or (1, 1)
        areas, aspects, place = tf.split(tf.cast(draws, tf.float64), [_ATTEMPTS, _ATTEMPTS, 2])
        height, width = tf.unstack(tf.cast(size, tf.float64))
        areas = height * width * (least + (most - least) * areas)
        low, high = map(math.log, self.ratio)
        aspects = tf.exp(low + (high - low) * aspects)
        columns, rows = tf.round(tf.sqrt(areas * aspects)), tf.round(tf.sqrt(areas / aspects))
        fits = (columns > 0) & (columns <= width) & (rows > 0) & (rows <= height)
        first = tf.argmax(fits)
        lengths = tf.stack([height, width])
        fitting = tf.stack([rows[first], columns[first]])
        nearest = tf.stack([tf.round(width / self.ratio[0]), tf.round(height * self.ratio[1])])
        sides = tf.where(tf.reduce_any(fits), fitting, tf.minimum(lengths, nearest))
        corner = tf.where(tf.reduce_any(fits), tf.floor(place * (lengths - sides + 1)), (lengths - sides) // 2)
        top, left, rows, columns = tf.unstack(tf.cast(tf.concat([corner, sides], axis=0), tf.int32))
        return top, left, rows, columns
