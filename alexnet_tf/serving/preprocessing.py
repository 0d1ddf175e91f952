"""Decoding of images to the squares that a network is trained on, in TensorFlow operations."""

from collections.abc import Callable

import tensorflow as tf

from alexnet_tf.serving import orientation
from alexnet_tf.serving.formats import MAX_PIXELS
from alexnet_tf.tfrecords import images

_STRIP_PIXELS = 1 << 20  # of transparent and 16-bit images that are converted at once, for the memory it takes


def decode_square(
    encoded_image: tf.Tensor,
    image_px: int,
    max_pixels: int = MAX_PIXELS,
    exif_orientation: bool | None = True,
    resize: str = "crop",
) -> tf.Tensor:
    """Decodes an image to the square of a data set, as the builder of TFRecords does with Pillow.

    Both cut out the central square and resize it with the antialiased triangle filter. They round differently: a pixel
    may differ by 1 of 255.

    Args:
        encoded_image: string scalar, a JPEG, PNG or BMP file, recognized by its content: gray, RGB, RGBA, CMYK, with
            a palette (PNG only) or of 16 bits.
        image_px: side of the square, in pixels.
        max_pixels: pixels that an image may have, read from its header before anything is decoded.
        exif_orientation: whether images are turned upright, as their EXIF tag Orientation says. None for the networks
            of data sets that do not say whether their images were: these, built before 0.2, also ignored transparency
            and took the high byte of 16 bits.
        resize: "crop", or "warp" for the complete image whatever its aspect; see `images.prepare_image`.

    Returns: uint8 tensor (image_px, image_px, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: if the file can't be decoded, or has too many pixels.

    Source: section 2.
    Deviation: the central square is cut out before resizing, not after: the pixels are the same. GIF is not decoded: no
    header bounds the memory that its frames would take.
    """
    image, turn = _decode(encoded_image, max_pixels, exif_orientation)
    square = tf.ensure_shape(image, (None, None, 3))
    if resize == "crop":
        square = orientation.center_square(square, turn)
    square = tf.image.resize(square, (image_px, image_px), antialias=True)
    square = tf.cast(tf.clip_by_value(tf.round(square), 0, 255), tf.uint8)
    return orientation.turn_upright(square, turn)


def _decode(encoded_image, max_pixels, exif_orientation):
    """The pixels of a file, uint8 (rows, columns, 3), and the value of its EXIF tag Orientation, or 1."""

    def starts_with(magic):
        return tf.equal(tf.strings.substr(encoded_image, 0, len(magic)), magic)

    def number(place, dtype=tf.int32, little_endian=True):
        content = tf.strings.substr(encoded_image, place, dtype.size)
        return tf.abs(tf.cast(tf.io.decode_raw(content, dtype, little_endian)[0], tf.int64))

    def small_enough(rows, columns):
        too_large = f"An image may have {max_pixels} pixels, and this one has more"
        pixels = tf.cast(rows, tf.int64) * tf.cast(columns, tf.int64)
        return tf.debugging.assert_less_equal(pixels, tf.constant(max_pixels, tf.int64), too_large)

    def decode_jpeg():
        rows, columns, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded_image))
        with tf.control_dependencies([small_enough(rows, columns)]):
            # As Pillow decodes. TensorFlow's default, INTEGER_FAST, is off by up to 12 of 255.
            image = tf.io.decode_jpeg(encoded_image, channels=3, dct_method="INTEGER_ACCURATE")
        return image, orientation.read_jpeg(encoded_image) if exif_orientation else 1

    def decode_png():
        rows, columns = (number(place, little_endian=False) for place in (20, 16))
        with tf.control_dependencies([small_enough(rows, columns)]):
            if exif_orientation is None:
                return tf.io.decode_png(encoded_image, channels=3), 1
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
        # TensorFlow reads the indices of a palette, or fewer bits, as shades of gray.
        bits, least = number(28, tf.int16), tf.constant(24, tf.int64)
        no_palette = tf.debugging.assert_greater_equal(bits, least, "A BMP with a palette can't be read")
        with tf.control_dependencies([small_enough(number(22), number(18)), no_palette]):
            return tf.io.decode_image(encoded_image, channels=3, expand_animations=False), 1

    def refuse():
        with tf.control_dependencies([tf.debugging.Assert(False, ["The file is no JPEG, PNG or BMP image"])]):
            return tf.zeros((0, 0, 3), tf.uint8), 1

    decoders = {"JPEG": (b"\xff\xd8\xff", decode_jpeg), "PNG": (b"\x89PNG", decode_png), "BMP": (b"BM", decode_bmp)}
    kinds = [(starts_with(magic), decode) for magic, decode in (decoders[name] for name in images.SERVED_FORMATS)]
    return tf.case(kinds, default=refuse)


def _lay_on_background(image: tf.Tensor) -> tf.Tensor:
    """Converts uint8 or uint16 (rows, columns, 4) to uint8 (rows, columns, 3), as `images.prepare_image` does.

    16 bits are scaled by the range that the colors fill (see `images.scale_to_8_bits`), transparent pixels laid on
    white. In strips of rows: in one piece it takes several times the memory of the image.
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
        laid = tf.bitwise.right_shift(sums + tf.bitwise.right_shift(sums, byte), byte)  # divides by 255, as Pillow does
        return number + 1, strips.write(number, tf.cast(laid, tf.uint8))

    count = (rows + strip_rows - 1) // strip_rows
    strips = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, None, 3))
    loop = tf.while_loop(lambda number, _: number < count, convert, (0, strips), parallel_iterations=1)
    return tf.ensure_shape(loop[1].concat(), (None, None, 3))


def decode_readable(
    encoded_images: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor], image_px: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes the images of a batch that can be decoded, in a graph that no image can make fail.

    Args:
        encoded_images: string tensor (batch,).
        decode: a function from one of them to uint8 (image_px, image_px, 3); images for which it fails are skipped.
        image_px: side of the squares, in pixels.

    Returns:
        (squares, rows): uint8 (readable, image_px, image_px, 3), and int32 (readable,), their places in the batch,
        ascending.
    """
    count = tf.size(encoded_images)
    numbered = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded_images))
    # One at a time, so that a request takes the memory of one large image, however many it has.
    readable = numbered.map(lambda row, encoded: (row, decode(encoded))).ignore_errors()
    # `batch` makes no element of an empty data set: one more image, cut off again, ensures that there is one.
    one_more = tf.data.Dataset.from_tensors((count, tf.zeros((image_px, image_px, 3), tf.uint8)))
    batches = readable.concatenate(one_more).batch(tf.cast(count + 1, tf.int64))
    rows, squares = batches.get_single_element()
    return squares[:-1], rows[:-1]
