"""Resizing and center crop inside of a model or an input pipeline."""

from typing import Any

import keras
from keras import ops

from alexnet_tf.layers.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class Preprocess(keras.layers.Layer):
    """Resizes images of any size and takes the center crop, as `alexnet_tf.preprocess` does outside of a model.

    Pixels differ from `alexnet_tf.preprocess` by at most 1.

    Call arguments:
        images: uint8 or float tensor (height, width, 3) or (batch, height, width, 3), RGB pixels from 0 to 255.

    Returns: uint8 tensor (crop_px, crop_px, 3) or (batch, crop_px, crop_px, 3).

    Args:
        crop_px: side of the network's input, in pixels.
        image_px: length to which the shorter side is resized first, in pixels; None for 256, or `crop_px` if that is
            larger.
        resize: "crop" for the central square, "warp" to resize both sides.

    Raises:
        ValueError: if `crop_px` is larger than `image_px`, `resize` has another value, or images have not 3 channels.

    Source: section 2.

    Example:

    >>> photos = keras.Input((None, None, 3), dtype="uint8")  # of any size
    >>> network = alexnet_tf.build_alexnet("testing", 10)
    >>> model = keras.Model(photos, network(alexnet_tf.Preprocess(crop_px=56, image_px=64)(photos)))
    >>> model.predict(np.zeros((2, 300, 400, 3), "uint8"), verbose=0).shape
    (2, 10)
    """

    def __init__(self, crop_px: int = 224, image_px: int | None = None, resize: str = "crop", **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # bfloat16 is too coarse for pixel values
        self.crop_px = crop_px
        self.image_px = max(256, crop_px) if image_px is None else image_px
        self.resize = resize
        if not 1 <= crop_px <= self.image_px:
            raise ValueError(f"`crop_px` must be from 1 to `image_px`, {self.image_px}. Received: {crop_px=}")
        if resize not in ("crop", "warp"):
            raise ValueError(f'`resize` must be "crop" or "warp". Received: resize={resize!r}')

    def call(self, images: Tensor) -> Tensor:
        if images.shape[-1] != 3:
            raise ValueError(f"`images` must be (height, width, 3). Received: images.shape={images.shape}")
        squares = ops.image.resize(
            ops.cast(images, "float32"),
            (self.image_px, self.image_px),
            interpolation="bilinear",
            antialias=True,
            crop_to_aspect_ratio=self.resize == "crop",
            data_format="channels_last",
        )
        first = (self.image_px - self.crop_px) // 2
        center = slice(first, first + self.crop_px)
        return ops.cast(ops.clip(ops.round(squares[..., center, center, :]), 0, 255), "uint8")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"crop_px": self.crop_px, "image_px": self.image_px, "resize": self.resize}
