"""Prepares, encodes and decodes the images of a data set."""

from __future__ import annotations

import io
import pathlib
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import tensorflow as tf

# The longer side may be at most so many times the shorter: a line of 1 x 5000 pixels would take a gigabyte.
_MAX_ASPECT_RATIO = 4
# As exact as Pillow and the served model, and measured to be as fast as TensorFlow's default, which is off by up to 12
# gray levels.
_DCT = "INTEGER_ACCURATE"


def prepare_image(
    image: bytes | str | pathlib.Path | np.ndarray, image_px: int, keep_aspect: bool = False
) -> np.ndarray:
    """Crops and resizes an image of a source: central square, shorter side `image_px`, antialiased.

    The format is determined by the content, not by the file's name: gray, palette, CMYK, transparent and 16-bit images
    become 8-bit RGB.

    Args:
        image: bytes of an encoded image, or the path of one, or uint8 (rows, columns) or (rows, columns, 3).
        image_px: shorter side of the result, in pixels.
        keep_aspect: whether to keep the longer side, up to four times the shorter, instead of cutting out a square.

    Returns: uint8 (rows, columns, 3).

    Raises:
        Exception: of one of many kinds, if Pillow can't read the image.

    Source: section 2.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # else Pillow allows twice the limit
        if isinstance(image, np.ndarray):
            opened = Image.fromarray(image)
        else:
            opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    if opened.mode.startswith(("I", "F")):  # more than 8 bits per pixel, which Pillow would clip at 255
        values = np.asarray(opened)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels must have 8 or 16 bits. Received: {values.dtype} up to {values.max()}")
        opened = Image.fromarray((values >> 8).astype("uint8"))
    # Cropped before it is resized: 5000 x 1 pixels never become 1,280,000 x 256. A square that can't be exactly
    # central is half a pixel up or left, as in the served model.
    side = min(opened.size)
    width, height = (min(length, (_MAX_ASPECT_RATIO if keep_aspect else 1) * side) for length in opened.size)
    left, top = (opened.width - width) // 2, (opened.height - height) // 2
    kept = opened.convert("RGB").crop((left, top, left + width, top + height))
    columns, rows = (round(length * image_px / side) for length in kept.size)
    return np.asarray(kept.resize((columns, rows), Image.Resampling.BILINEAR))


def encode_image(image: np.ndarray, encoding: str, quality: int) -> bytes:
    """Encodes uint8 (rows, columns, 3) as "jpeg" of a quality, as "png", or as "raw" pixels."""
    if encoding == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality} if encoding == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=encoding, **options)
    return buffer.getvalue()


def decode_image(encoded: tf.Tensor, encoding: str, size: tf.Tensor) -> tf.Tensor:
    """Decodes an image of a data set, eagerly or in a graph.

    Args:
        encoded: string scalar.
        encoding: one of `schema.ENCODINGS`.
        size: int32 (2,), its rows and columns.

    Returns: uint8 (rows, columns, 3).

    Raises:
        tf.errors.InvalidArgumentError: if it can't be decoded, or has another size.
    """
    import tensorflow as tf  # not with the module: preparing images works without it

    if encoding == "raw":
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), tf.concat([size, [3]], axis=0))
    if encoding == "jpeg":
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT)
    else:
        image = tf.io.decode_png(encoded, channels=3)
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image)[:2], size)]):
        return tf.identity(image)


def decode_crop(
    encoded: tf.Tensor, encoding: str, size: tf.Tensor, top: tf.Tensor, left: tf.Tensor, crop_px: int
) -> tf.Tensor:
    """Decodes a square of an image of a data set.

    Args:
        encoded, encoding, size: see `decode_image`.
        top, left: int32 scalars, the first row and column of the square.
        crop_px: side of the square, in pixels.

    Returns: uint8 (crop_px, crop_px, 3).
    """
    import tensorflow as tf  # not with the module: preparing images works without it

    if encoding == "jpeg":  # decodes only the crop
        image = tf.io.decode_and_crop_jpeg(encoded, [top, left, crop_px, crop_px], channels=3, dct_method=_DCT)
    else:
        image = decode_image(encoded, encoding, size)[top : top + crop_px, left : left + crop_px]
    return tf.ensure_shape(image, (crop_px, crop_px, 3))
