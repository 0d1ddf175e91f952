"""One image of a source made into one of a data set, and read from it."""

import io
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image


def prepare_image(image, image_px):
    """Makes the square RGB image of a source's image: shorter side to `image_px`, centre crop, antialiased.

    What the image is, its content tells, whatever its file is called: grey, palette, CMYK, transparent and 16-bit
    images become 8-bit RGB.

    Args:
        image: bytes of an encoded image, or the path of one, or uint8 (rows, columns) or (rows, columns, 3).
        image_px: side of the result, in pixels.

    Returns: uint8 (image_px, image_px, 3).

    Raises:
        Exception: of one of many kinds, where Pillow can't read the image.

    Source: section 2.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # else Pillow opens twice as many pixels
        if isinstance(image, np.ndarray):
            opened = Image.fromarray(image)
        else:
            opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    if opened.mode.startswith(("I", "F")):  # more than 8 bits a pixel, which Pillow would clip at 255
        values = np.asarray(opened)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels must be of 8 or 16 bits. Received: {values.dtype} up to {values.max()}")
        opened = Image.fromarray(np.uint8(values >> 8))
    # Only the central square is resized: 5000 x 1 pixels never become 1,280,000 x 256. A square that can't be quite
    # central lies half a pixel up or left, as in the served model.
    side = min(opened.size)
    left, top = (opened.width - side) // 2, (opened.height - side) // 2
    square = opened.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((image_px, image_px), Image.Resampling.BILINEAR))


def encode_image(image, encoding, quality):
    """Encodes uint8 (rows, columns, 3) as "jpeg" of a quality, as "png", or as "raw", the pixels; returns bytes."""
    if encoding == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality} if encoding == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=encoding, **options)
    return buffer.getvalue()


def decode_image(encoded, encoding, image_px):
    """Decodes an image of a data set, eagerly or in a graph.

    Args:
        encoded: string scalar.
        encoding: one of `schema.ENCODINGS`.
        image_px: side of the image, in pixels.

    Returns: uint8 (image_px, image_px, 3).

    Raises:
        tf.errors.InvalidArgumentError: where it can't be decoded, or is of another size.
    """
    if encoding == "raw":
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), (image_px, image_px, 3))
    image = tf.io.decode_jpeg(encoded, channels=3) if encoding == "jpeg" else tf.io.decode_png(encoded, channels=3)
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image), (image_px, image_px, 3))]):
        return tf.ensure_shape(tf.identity(image), (image_px, image_px, 3))
