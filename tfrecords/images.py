"""One image of a source made into one of a data set, and read from it."""

import io
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image

# How many times longer than the shorter side the longer one may stay: a line of 1 x 5000 pixels would take a gigabyte.
_MOST_ASPECT = 4
# As exact as Pillow and the served model, and measured to be as fast as TensorFlow's default, which is off by up to 12
# grey levels.
_DCT = "INTEGER_ACCURATE"


def prepare_image(image, image_px, keep_aspect=False):
    """Makes the RGB image of a data set from a source's: shorter side to `image_px`, centre crop, antialiased.

    What the image is, its content tells, whatever its file is called: grey, palette, CMYK, transparent and 16-bit
    images become 8-bit RGB.

    Args:
        image: bytes of an encoded image, or the path of one, or uint8 (rows, columns) or (rows, columns, 3).
        image_px: shorter side of the result, in pixels.
        keep_aspect: whether the longer side is kept, up to four times the shorter, and not cut to a square.

    Returns: uint8 (rows, columns, 3).

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
    # What will be cut off is cut off before the resizing: 5000 x 1 pixels never become 1,280,000 x 256. A square that
    # can't be quite central lies half a pixel up or left, as in the served model.
    side = min(opened.size)
    width, height = (min(length, (_MOST_ASPECT if keep_aspect else 1) * side) for length in opened.size)
    left, top = (opened.width - width) // 2, (opened.height - height) // 2
    kept = opened.convert("RGB").crop((left, top, left + width, top + height))
    size = tuple(round(length * image_px / side) for length in kept.size)
    return np.asarray(kept.resize(size, Image.Resampling.BILINEAR))


def central_square(image):
    """The square in the middle of an image, uint8 (rows, columns, 3), as long as its shorter side."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def encode_image(image, encoding, quality):
    """Encodes uint8 (rows, columns, 3) as "jpeg" of a quality, as "png", or as "raw", the pixels; returns bytes."""
    if encoding == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality} if encoding == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=encoding, **options)
    return buffer.getvalue()


def decode_image(encoded, encoding, size):
    """Decodes an image of a data set, eagerly or in a graph.

    Args:
        encoded: string scalar.
        encoding: one of `schema.ENCODINGS`.
        size: int32 (2,), its rows and columns.

    Returns: uint8 (rows, columns, 3).

    Raises:
        tf.errors.InvalidArgumentError: where it can't be decoded, or is of another size.
    """
    if encoding == "raw":
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), tf.concat([size, [3]], axis=0))
    if encoding == "jpeg":
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT)
    else:
        image = tf.io.decode_png(encoded, channels=3)
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image)[:2], size)]):
        return tf.identity(image)


def decode_crop(encoded, encoding, size, top, left, crop_px):
    """Decodes a square of an image of a data set.

    Args:
        encoded, encoding, size: as `decode_image` takes them.
        top, left: int32 scalars, the square's first row and column.
        crop_px: its side, in pixels, a Python integer.

    Returns: uint8 (crop_px, crop_px, 3).
    """
    if encoding == "jpeg":  # only what is needed of it
        image = tf.io.decode_and_crop_jpeg(encoded, [top, left, crop_px, crop_px], channels=3, dct_method=_DCT)
    else:
        image = decode_image(encoded, encoding, size)[top : top + crop_px, left : left + crop_px]
    return tf.ensure_shape(image, (crop_px, crop_px, 3))
