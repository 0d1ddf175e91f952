"""Decoding of images to the squares that a network is trained on, in TensorFlow operations."""

from collections.abc import Callable

import tensorflow as tf

from alexnet_tf.serving.formats import MAX_PIXELS


def decode_square(encoded_image: tf.Tensor, image_px: int, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes an image to the square of a data set, as the builder of TFRecords does with Pillow.

    Both decode to the same pixels, cut out the central square and resize it with the antialiased triangle filter. They
    round differently: a pixel of the square may differ by 1 of 255.

    Args:
        encoded_image: string scalar, a JPEG, PNG or BMP file, recognized by its content: gray, RGB, RGBA, CMYK, with
            a palette (PNG only) or of 16 bits. Orientation tags are ignored, as in training.
        image_px: side of the square, in pixels (256 in the paper).
        max_pixels: pixels that an image may have, read from its header before anything is decoded.

    Returns: uint8 tensor (image_px, image_px, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: if the file can't be decoded, or has too many pixels.

    Source: section 2.
    Deviation: the central square is cut out before resizing, not after. The pixels are the same, and an image of 5000 x
    1 pixels takes no more memory than any other. GIF is not decoded: the sizes of its frames are anywhere in the file,
    so that no header bounds the memory it would take.
    """

    def starts_with(magic):
        return tf.equal(tf.strings.substr(encoded_image, 0, len(magic)), magic)

    def number(place, dtype=tf.int32, little_endian=True):
        content = tf.strings.substr(encoded_image, place, dtype.size)
        return tf.abs(tf.cast(tf.io.decode_raw(content, dtype, little_endian)[0], tf.int64))

    def small_enough(rows, columns):
        too_large = f"An image may have {max_pixels} pixels, and this one has more"
        limit = tf.constant(max_pixels, tf.int64)
        return tf.debugging.assert_less_equal(tf.cast(rows, tf.int64) * tf.cast(columns, tf.int64), limit, too_large)

    def decode_jpeg():
        rows, columns, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded_image))
        with tf.control_dependencies([small_enough(rows, columns)]):
            # As Pillow decodes. TensorFlow's default, INTEGER_FAST, is off by up to 12 of 255.
            return tf.io.decode_jpeg(encoded_image, channels=3, dct_method="INTEGER_ACCURATE")

    def decode_png():
        rows, columns = (number(place, little_endian=False) for place in (20, 16))
        with tf.control_dependencies([small_enough(rows, columns)]):
            return tf.io.decode_png(encoded_image, channels=3)

    def decode_bmp():
        # TensorFlow reads the indices of a palette, or fewer bits, as shades of gray.
        bits, least = number(28, tf.int16), tf.constant(24, tf.int64)
        no_palette = tf.debugging.assert_greater_equal(bits, least, "A BMP with a palette can't be read")
        with tf.control_dependencies([small_enough(number(22), number(18)), no_palette]):
            return tf.io.decode_image(encoded_image, channels=3, expand_animations=False)

    def refuse():
        with tf.control_dependencies([tf.debugging.Assert(False, ["The file is no JPEG, PNG or BMP image"])]):
            return tf.zeros((0, 0, 3), tf.uint8)

    kinds = [(b"\xff\xd8\xff", decode_jpeg), (b"\x89PNG", decode_png), (b"BM", decode_bmp)]
    image = tf.case([(starts_with(magic), decode) for magic, decode in kinds], default=refuse)
    image.set_shape((None, None, 3))
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(rows, columns)
    image = tf.image.crop_to_bounding_box(image, (rows - side) // 2, (columns - side) // 2, side, side)
    image = tf.image.resize(image, (image_px, image_px), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


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
