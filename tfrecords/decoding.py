"""Decodes the images of a data set, resizing "original" ones as they are decoded."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

from typing import Any

import tensorflow as tf

from alexnet_tf.tfrecords import crops, images, schema

# As exact as Pillow and the served model. TensorFlow's default is not faster, and off by up to 12 gray levels.
_DCT = "INTEGER_ACCURATE"


def decode_image(encoded: tf.Tensor, encoding: str, size: tf.Tensor) -> tf.Tensor:
    """Decodes an image of a data set, eagerly or in a graph.

    Args:
        encoded: string scalar.
        encoding: one of `schema.ENCODINGS`, or "original".
        size: int32 (2,), its height and width; for an "original" image, those to which it is resized.

    Returns: uint8 (height, width, 3).

    Raises:
        tf.errors.InvalidArgumentError: if the image can't be decoded or has another size.
    """
    if encoding == schema.ORIGINAL:
        return _decode_original(encoded, size, 0, 0, *tf.unstack(size))
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
    """Decodes a square of an image.

    Args:
        encoded, encoding, size: see `decode_image`.
        top, left: int32 scalars, the first row and column of the square.
        crop_px: side of the square, in pixels.

    Returns: uint8 (crop_px, crop_px, 3).
    """
    return tf.ensure_shape(decode_window(encoded, encoding, size, top, left, crop_px, crop_px), (crop_px, crop_px, 3))


def decode_window(
    encoded: tf.Tensor, encoding: str, size: tf.Tensor, top: tf.Tensor, left: tf.Tensor, height: Any, width: Any
) -> tf.Tensor:
    """Decodes a rectangle of an image, uint8 (height, width, 3). Arguments as in `decode_crop`."""
    if encoding == schema.ORIGINAL:
        return _decode_original(encoded, size, top, left, height, width)
    if encoding == "jpeg":  # decodes only the rectangle
        return tf.io.decode_and_crop_jpeg(encoded, [top, left, height, width], channels=3, dct_method=_DCT)
    return decode_image(encoded, encoding, size)[top : top + height, left : left + width]


def read_size(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the height and width of a JPEG or PNG, int32 (2,), from its header.

    Raises:
        tf.errors.InvalidArgumentError: if it is neither, or has more than `images.MAX_PIXELS` pixels.
    """

    def read_png_size():
        return tf.reverse(tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False), [0])

    size = tf.cond(_is_jpeg(encoded), lambda: tf.io.extract_jpeg_shape(encoded)[:2], read_png_size)
    pixels = tf.reduce_prod(tf.cast(tf.ensure_shape(size, (2,)), tf.float64))
    message = f"An image must have 1 to {images.MAX_PIXELS} pixels"
    with tf.control_dependencies([tf.debugging.Assert((pixels >= 1) & (pixels <= images.MAX_PIXELS), [message, size])]):
        return tf.ensure_shape(size, (2,))


def scaled_size(encoded: tf.Tensor, image_px: int) -> tf.Tensor:
    """The height and width of a JPEG or PNG after its shorter side is resized to `image_px`, int32 (2,)."""
    size = read_size(encoded)
    return tf.cast(tf.round(size * image_px / tf.reduce_min(size)), tf.int32)


def resize(image: tf.Tensor, height: Any, width: Any) -> tf.Tensor:
    """Resizes an image, uint8 (height, width, 3), with antialiasing; within 1 of Pillow's bilinear filter."""
    resized = tf.image.resize(image, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _is_jpeg(encoded):
    return tf.strings.substr(encoded, 0, len(images.JPEG_MAGIC)) == images.JPEG_MAGIC


def _decode_original(encoded, size, top, left, height, width):
    """Decodes a rectangle of an image as if the central part of the file, a JPEG or PNG, had been resized to `size`.

    Deviation: the rectangle is rounded to whole pixels of the file and resized without its surroundings, so that
    only the rectangle of a JPEG must be decoded. (A PNG is decoded completely.)
    """
    whole = read_size(encoded)
    scale = tf.reduce_min(whole) / tf.reduce_min(size)

    def in_file(lengths):
        return tf.cast(tf.round(tf.cast(lengths, tf.float64) * scale), tf.int32)

    kept, sides = tf.minimum(in_file(size), whole), tf.maximum(in_file([height, width]), 1)
    corner = crops.center_offset(whole, kept) + tf.minimum(in_file([top, left]), kept - sides)

    def decode_jpeg():
        window = tf.concat([corner, sides], axis=0)
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method=_DCT)

    def decode_png():  # on the background of `images.prepare_image`
        pixels = tf.io.decode_png(encoded, channels=4)
        colors, alpha = pixels[..., :3], pixels[..., 3:]
        (top, left), (bottom, right) = tf.unstack(corner), tf.unstack(corner + sides)
        colors, alpha = (tf.cast(each[top:bottom, left:right], tf.int32) for each in (colors, alpha))
        sums = colors * alpha + images.BACKGROUND * (255 - alpha) + 128
        return tf.cast((sums + sums // 256) // 256, tf.uint8)  # divides by 255, as Pillow does

    pixels = tf.cond(_is_jpeg(encoded), decode_jpeg, decode_png)
    has_the_size = tf.reduce_all(sides == [height, width])
    return tf.cond(has_the_size, lambda: pixels, lambda: resize(pixels, height, width))
