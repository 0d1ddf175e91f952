"""Decodes images to the squares that a network is trained on, in TensorFlow operations."""

from collections.abc import Callable

import tensorflow as tf

from alexnet_tf.serving import orientation
from alexnet_tf.serving.formats import MAX_PIXELS
from alexnet_tf.tfrecords import images

_STRIP_PIXELS = 1 << 20  # converted at once, to bound the memory for transparent and 16-bit images


def decode_square(
    encoded_image: tf.Tensor,
    image_px: int,
    exif_orientation: bool = True,
    resize: str = "crop",
    max_pixels: int = MAX_PIXELS,
) -> tf.Tensor:
    """Decodes an image to a square, as `tfrecords.images.prepare_image` does with Pillow.

    Both crop the central square and resize it with the antialiased triangle filter. They round differently: a pixel
    may differ by 1 of 255.

    Args:
        encoded_image: string scalar, the content of a JPEG, PNG or BMP file: gray, RGB, RGBA, CMYK, with a palette
            (PNG only) or with 16 bits.
        image_px: side of the square, in pixels.
        exif_orientation: whether to turn images upright by their EXIF tag Orientation.
        resize: "crop" or "warp" (the whole image, regardless of its aspect ratio).
        max_pixels: maximum number of pixels. It is read from the header before the image is decoded.

    Returns: uint8 tensor (image_px, image_px, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: if the file can't be decoded or has too many pixels.

    Source: section 2.
    Deviation: crops the central square before resizing, not after: the pixels are equal, and thin images take no
    memory. GIF is not decoded, because its header does not bound the memory for its frames.
    """
    image, orientation_tag = _decode(encoded_image, max_pixels, exif_orientation)
    square = tf.ensure_shape(image, (None, None, 3))
    if resize == "crop":
        square = orientation.center_square(square, orientation_tag)
    square = tf.image.resize(square, (image_px, image_px), antialias=True)
    square = tf.cast(tf.clip_by_value(tf.round(square), 0, 255), tf.uint8)
    return orientation.turn_upright(square, orientation_tag)


def _decode(encoded_image, max_pixels, exif_orientation):
    """The pixels of a file, uint8 (height, width, 3), and the value of its EXIF tag Orientation (1 if it has none)."""

    def starts_with(magic):
        return tf.equal(tf.strings.substr(encoded_image, 0, len(magic)), magic)

    def number(place, dtype=tf.int32, little_endian=True):
        content = tf.strings.substr(encoded_image, place, dtype.size)
        return tf.abs(tf.cast(tf.io.decode_raw(content, dtype, little_endian)[0], tf.int64))

    def check_size(rows, columns):
        too_large = f"An image must have at most {max_pixels} pixels"
        pixels = tf.cast(rows, tf.int64) * tf.cast(columns, tf.int64)
        return tf.debugging.assert_less_equal(pixels, tf.constant(max_pixels, tf.int64), too_large)

    def decode_jpeg():
        rows, columns, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded_image))
        with tf.control_dependencies([check_size(rows, columns)]):
            # Pillow's method. TensorFlow's default, INTEGER_FAST, is off by up to 12 of 255.
            image = tf.io.decode_jpeg(encoded_image, channels=3, dct_method="INTEGER_ACCURATE")
        return image, orientation.read_jpeg(encoded_image) if exif_orientation else 1

    def decode_png():
        rows, columns = (number(place, little_endian=False) for place in (20, 16))
        with tf.control_dependencies([check_size(rows, columns)]):
            value, transparent = orientation.read_png(encoded_image)
            bits, color_type = (number(place, tf.uint8) for place in (24, 25))
            image = tf.case(
                [
                    (bits == 16, lambda: _lay_on_background(tf.io.decode_png(encoded_image, 4, tf.uint16))),
                    (transparent | (color_type >= 4), lambda: _lay_on_background(tf.io.decode_png(encoded_image, 4))),
                ],
                default=lambda: tf.io.decode_png(encoded_image, channels=3),
            )
        return image, value if exif_orientation else 1

    def decode_bmp():
        # TensorFlow reads the indices of a palette as shades of gray.
        bits, least = number(28, tf.int16), tf.constant(24, tf.int64)
        no_palette = tf.debugging.assert_greater_equal(bits, least, "A BMP with a palette can't be decoded")
        # The height is negative if the rows run from top to bottom.
        with tf.control_dependencies([check_size(number(22), number(18)), no_palette]):
            return tf.io.decode_image(encoded_image, channels=3, expand_animations=False), 1

    def refuse():
        failure = tf.debugging.assert_less(
            tf.strings.length(encoded_image), 0, "The file is not a JPEG, PNG or BMP image"
        )
        with tf.control_dependencies([failure]):
            return tf.zeros((0, 0, 3), tf.uint8), 1

    decoders = {"JPEG": (b"\xff\xd8\xff", decode_jpeg), "PNG": (b"\x89PNG", decode_png), "BMP": (b"BM", decode_bmp)}
    kinds = [(starts_with(magic), decode) for magic, decode in (decoders[name] for name in images.SERVED_FORMATS)]
    return tf.case(kinds, default=refuse)


def _lay_on_background(image: tf.Tensor) -> tf.Tensor:
    """Converts uint8 or uint16 (height, width, 4) to uint8 (height, width, 3), as `images.prepare_image` does.

    Scales 16 bits by the range of the colors (see `images.scale_to_8_bits`), and composites transparent pixels on
    white. Works in strips of rows: the whole image at once takes several times its memory.
    """
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]
    wide, byte = image.dtype == tf.uint16, tf.constant(8, tf.uint16)
    if wide:
        largest = tf.cast(tf.reduce_max(tf.reduce_max(image, axis=(0, 1))[:3]), tf.int32)
        shift = tf.cast(2 * tf.math.count_nonzero(largest >= [1 << 8, 1 << 10, 1 << 12, 1 << 14]), tf.uint16)
    strip_rows = tf.maximum(1, _STRIP_PIXELS // tf.maximum(columns, 1))

    def convert(number, strips):
        strip = tf.cast(image[number * strip_rows : (number + 1) * strip_rows], tf.uint16)
        colors, alpha = tf.split(strip, [3, 1], axis=-1)
        if wide:
            colors, alpha = tf.bitwise.right_shift(colors, shift), tf.bitwise.right_shift(alpha, byte)
        sums = colors * alpha + images.BACKGROUND * (255 - alpha) + 128
        laid = tf.bitwise.right_shift(sums + tf.bitwise.right_shift(sums, byte), byte)  # Pillow's division by 255
        return number + 1, strips.write(number, tf.cast(laid, tf.uint8))

    count = (rows + strip_rows - 1) // strip_rows
    strips = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, None, 3))
    loop = tf.while_loop(lambda number, _: number < count, convert, (0, strips), parallel_iterations=1)
    return tf.ensure_shape(loop[1].concat(), (None, None, 3))


def decode_readable(
    encoded_images: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor], image_px: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch and skips the images that can't be decoded, so that no image makes the whole request fail.

    Args:
        encoded_images: string tensor (batch,).
        decode: a function from one of them to uint8 (image_px, image_px, 3). Images for which it fails are skipped.
        image_px: side of the squares, in pixels.

    Returns:
        (squares, rows): uint8 (readable, image_px, image_px, 3), and int32 (readable,), their positions in the batch,
        ascending.
    """
    count = tf.size(encoded_images)
    numbered = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded_images))
    # One at a time: a request with many large images takes the memory of one.
    readable = numbered.map(lambda row, encoded: (row, decode(encoded))).ignore_errors()
    # `batch` of an empty data set has no element. An extra image, removed below, ensures that there is one.
    one_more = tf.data.Dataset.from_tensors((count, tf.zeros((image_px, image_px, 3), tf.uint8)))
    batches = readable.concatenate(one_more).batch(tf.cast(count + 1, tf.int64))
    rows, squares = batches.get_single_element()
    return squares[:-1], rows[:-1]
