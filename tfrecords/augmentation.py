"""Augmentation of training images: random crops and flips, and the offsets of the color noise."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import dataclasses
import math

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import crops, decoding, schema

_ATTEMPTS = 10
RATIO = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random. The defaults are the paper's.

    Attributes:
        color_noise: size of the color noise, a key of `statistics.COLOR_NOISE_SCALES`.
        color_noise_epochs: number of epochs, from the first, with color noise; None for all epochs. (66 in the original
            program.)
        images_per_crop: number of consecutive images that share a crop position and a flip. (32 in the original
            program.)
        last_offset: whether a crop may touch the right and bottom edges. Section 4.1 counts 32 x 32 positions of a
            224 pixel crop in 256 pixels, which excludes them. The original program has 33 x 33 positions.
        center_crops: whether to take the center crop of each image instead of a random one.
        flip: whether to mirror half of the images, drawn at random.
        mean_at_crop: whether to subtract the part of the mean image at the position of the crop, before the flip, and
            add its center, which the network subtracts. Only for square images and crops of fixed size.
        crop_scale: None for crops of the size of the network's input; otherwise the smallest and largest fraction of an
            image's area that a crop covers, before it is resized.
        crop_ratio: the smallest and largest aspect ratio (width / height) of such a crop.

    Raises:
        ValueError: if `images_per_crop` is less than 1, `crop_scale` is not two ascending numbers in (0, 1], or
            `crop_ratio` is not two ascending numbers above 0.

    Source: section 4.1.
    """

    color_noise: str = "standard_deviation"
    color_noise_epochs: int | None = None
    images_per_crop: int = 1
    last_offset: bool = False
    center_crops: bool = False
    flip: bool = True
    mean_at_crop: bool = False
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = RATIO

    def __post_init__(self):
        if self.images_per_crop < 1:
            raise ValueError(f"`images_per_crop` must be at least 1. Received: images_per_crop={self.images_per_crop}")
        for name, values, most in (("scale", self.crop_scale or (1, 1), 1), ("ratio", self.crop_ratio, math.inf)):
            if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
                raise ValueError(
                    f"`crop_{name}` must be two numbers above 0 and at most {most}, the smaller first. Received: "
                    f"{values}"
                )

    def draw(self, key: tf.Tensor, epoch: tf.Tensor, batch_size: int, noise: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws the random numbers of a batch.

        Args:
            key: int64 (2,), the key of the random numbers.
            epoch: int64 scalar.
            batch_size: number of images.
            noise: the matrix from `Statistics.color_noise`.

        Returns: (draws, offsets): uniform numbers in [0, 1) for `apply`, float32 (batch_size, n), and the color noise,
        float32 (batch_size, 3).
        """
        crop_key, noise_key = tf.unstack(tf.random.split(key))
        for_crop = 2 if self.crop_scale is None else 2 * _ATTEMPTS + 2
        draws = tf.random.stateless_uniform((batch_size, for_crop + 1), crop_key)
        draws = tf.gather(draws, np.arange(batch_size) // self.images_per_crop * self.images_per_crop)
        offsets = tf.random.stateless_normal((batch_size, 3), noise_key) @ noise.T
        if self.color_noise_epochs is not None:
            offsets = tf.cast(epoch < self.color_noise_epochs, tf.float32) * offsets
        return draws, offsets

    def apply(
        self,
        encoded: tf.Tensor,
        encoding: str,
        size: tf.Tensor,
        draws: tf.Tensor,
        crop_px: int,
        mean_image: np.ndarray | None = None,
    ) -> tf.Tensor:
        """Decodes, crops and flips an image.

        Args:
            encoded, encoding, size: see `decoding.decode_image`. With a `crop_scale`, the crop of an "original" image
                is from the complete file, whatever its `size`.
            draws: float32 (n,), its row of `draw`.
            crop_px: side of the result, in pixels.
            mean_image: the mean image, which `mean_at_crop` needs.

        Returns: uint8 (crop_px, crop_px, 3); float32 with `mean_at_crop`.
        """
        if self.crop_scale is not None:
            if encoding == schema.ORIGINAL:
                size = decoding.read_size(encoded)
            window = decoding.decode_window(encoded, encoding, size, *self.window(size, draws))
            image = decoding.resize(window, crop_px, crop_px)
        else:
            top, left = self._position(size, draws, crop_px)
            image = decoding.decode_crop(encoded, encoding, size, top, left, crop_px)
            if self.mean_at_crop:
                image = tf.cast(image, tf.float32) - tf.slice(mean_image, [top, left, 0], [crop_px, crop_px, 3])
        if self.flip:  # four times as fast as image[:, ::-1]
            image = tf.cond(draws[-1] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
        return image + crops.center_crop(mean_image, crop_px) if self.mean_at_crop else image

    def _position(self, size, draws, crop_px):
        """The first row and column of a crop of fixed size, int32 scalars."""
        if self.center_crops:
            return tf.unstack(crops.center_offset(size, crop_px))
        positions = tf.cast(tf.maximum(size - crop_px + int(self.last_offset), 1), tf.float32)
        return [tf.cast(draws[axis] * positions[axis], tf.int32) for axis in range(2)]

    def window(self, size: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """A window of random area and aspect ratio: (top, left, height, width), int32 scalars.

        The first of ten windows that fits into the image, with a uniform area, a log-uniform aspect ratio and a uniform
        position. If none fits, the largest central window with an aspect ratio within `crop_ratio`.

        Args:
            size: int32 (2,), height and width of the image.
            draws: float32 (22 or more,): ten for areas, ten for aspect ratios, one for the row, one for the column.

        Source: torchvision, transforms.RandomResizedCrop, after Szegedy et al., Going Deeper with Convolutions, 2014.
        """
        least, most = self.crop_scale or (1, 1)
        areas, aspects, position, _ = tf.split(tf.cast(draws, tf.float64), [_ATTEMPTS, _ATTEMPTS, 2, -1])
        height, width = tf.unstack(tf.cast(size, tf.float64))
        areas = height * width * (least + (most - least) * areas)
        low, high = map(math.log, self.crop_ratio)
        aspects = tf.exp(low + (high - low) * aspects)
        widths, heights = tf.round(tf.sqrt(areas * aspects)), tf.round(tf.sqrt(areas / aspects))
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        first = tf.argmax(fits)
        lengths = tf.stack([height, width])
        fitting = tf.stack([heights[first], widths[first]])
        nearest = tf.stack([tf.round(width / self.crop_ratio[0]), tf.round(height * self.crop_ratio[1])])
        sides = tf.where(tf.reduce_any(fits), fitting, tf.minimum(lengths, nearest))
        corner = tf.where(tf.reduce_any(fits), tf.floor(position * (lengths - sides + 1)), (lengths - sides) // 2)
        top, left, height, width = tf.unstack(tf.cast(tf.concat([corner, sides], axis=0), tf.int32))
        return top, left, height, width
