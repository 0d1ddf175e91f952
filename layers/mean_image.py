"""The network's first layer: from raw pixels to the input of conv1."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_tf.layers.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class MeanImage(keras.layers.Layer):
    """(pixels - mean image + color offset) * scale, where the color offset is added in training only.

    In training, an image with a color offset other than zero is then divided by `noise_divisor`.

    The mean image is a non-trainable weight: it is saved with the model, so that a served model takes raw pixels.

    Call arguments:
        images: uint8 or float tensor (batch, height, width, 3), RGB pixels from 0 to 255.
        color_offset: None, or float tensor (batch, 3): the paper's color noise for each image's red, green and blue,
            drawn by the input pipeline. Ignored at test time.
        training: whether to add the color offset.

    Returns: float tensor (batch, height, width, 3).

    Args:
        scale: factor of the centered pixels: a number, or one each for red, green and blue. It is 1 in the paper;
            1 / 80 gives photographs about unit variance, which later initialization schemes expect.
        noise_divisor: 1 in the paper. The original program's 1.1 gives images with color noise the scale of images
            without.
        training_data: a description of the training data, which is saved with the layer.

    Source: section 2 (mean) and 4.1 (color noise).
    Deviation: the paper subtracts the mean from the 256 x 256 image and crops afterwards. Here the center of the mean
    image is subtracted from every crop, as in the original program. (`Augmentation(mean_at_crop=True)` of the
    reader corrects training images for the position of their crop.)

    Example:

    >>> layer = alexnet_tf.MeanImage(scale=1 / 80)
    >>> layer.build((None, 224, 224, 3))
    >>> layer.set_mean_image(np.full((256, 256, 3), 120.0))
    >>> float(layer(np.full((1, 224, 224, 3), 200, "uint8"))[0, 0, 0, 0])
    1.0
    """

    def __init__(
        self,
        scale: float | Sequence[float] = 1.0,
        noise_divisor: float = 1.0,
        training_data: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        # Inputs are not cast to the compute dtype: bfloat16 is too coarse for pixel values.
        super().__init__(autocast=False, **kwargs)
        self.scale = scale
        self.noise_divisor = noise_divisor
        self.training_data = training_data

    def build(self, images_shape: Sequence[Any], color_offset_shape: Sequence[Any] | None = None) -> None:
        size = images_shape[1:3]
        shape = (*((1, 1) if None in size else size), images_shape[3])  # a color, if the size is unknown
        self.mean = self.add_weight(
            name="mean", shape=shape, initializer="zeros", trainable=False, dtype="float32", autocast=False
        )

    def set_mean_image(self, mean_image: np.ndarray) -> None:
        """Sets the mean image of a built layer.

        Args:
            mean_image: float array (height, width, 3). Its center is used if it is at least as large as the layer's
                images; otherwise, or if their size is unknown, its mean color.

        Raises:
            ValueError: if it has another number of dimensions or channels.
        """
        height, width, channels = self.mean.shape
        mean_image = np.asarray(mean_image, "float32")
        if mean_image.ndim != 3 or mean_image.shape[2] != channels:
            raise ValueError(
                f"`mean_image` must be (height, width, {channels}). Received: mean_image.shape={mean_image.shape}"
            )
        top, left = (mean_image.shape[0] - height) // 2, (mean_image.shape[1] - width) // 2
        if min(top, left) < 0 or (height, width) == (1, 1):
            self.mean.assign(np.broadcast_to(mean_image.mean((0, 1)), self.mean.shape))
        else:
            self.mean.assign(mean_image[top : top + height, left : left + width])

    def call(self, images: Tensor, color_offset: Tensor | None = None, training: bool = False) -> Tensor:
        x = ops.cast(images, "float32") - self.mean
        if color_offset is not None and training:
            color_offset = ops.cast(color_offset, "float32")[:, None, None, :]
            x = x + color_offset
            if self.noise_divisor != 1:
                noisy = ops.any(color_offset != 0, axis=-1, keepdims=True)
                x = ops.where(noisy, x / self.noise_divisor, x)
        if self.scale != 1:
            x = x * ops.array(self.scale, "float32")  # pyright: ignore[reportOperatorIssue]
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(
        self, images_shape: Sequence[Any], color_offset_shape: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        return images_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "scale": self.scale,
            "noise_divisor": self.noise_divisor,
            "training_data": self.training_data,
        }
