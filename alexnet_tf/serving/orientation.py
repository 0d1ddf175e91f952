"""Reads and applies the EXIF tag Orientation in TensorFlow operations, as `tfrecords.images` does with Pillow."""

import tensorflow as tf

from alexnet_tf.tfrecords import images

_MAX_SEGMENTS = 1000  # searched for EXIF data, which is at the beginning of a file


def read_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """The orientation of a JPEG, an int32 scalar from 1 to 8; 1 if there is none or it is damaged."""
    length = tf.strings.length(encoded)

    def at(place, count):
        return tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, place, count), tf.uint8), tf.int32)

    def is_exif(place):
        marker = tf.equal(tf.strings.substr(encoded, place, 2), b"\xff\xe1")
        return marker & tf.equal(tf.strings.substr(encoded, place + 4, 6), b"Exif\0\0")

    def is_another(place):
        def check():
            marker = at(place, 2)
            is_before_pixels = (marker[0] == 0xFF) & (marker[1] != 0xDA)
            return is_before_pixels & tf.logical_not(is_exif(place))

        return tf.cond(place + 10 <= length, check, lambda: False)

    def next_place(place):
        _, marker, high, low = tf.unstack(at(place, 4), 4)
        without_length = (marker == 1) | ((marker >= 0xD0) & (marker <= 0xD9))
        return place + tf.where(marker == 0xFF, 1, tf.where(without_length, 2, 2 + 256 * high + low))

    place = tf.while_loop(is_another, lambda place: [next_place(place)], [2], maximum_iterations=_MAX_SEGMENTS)[0]

    def read_segment():
        high, low = tf.unstack(at(place + 2, 2), 2)
        return _read_tiff(tf.strings.substr(encoded, place + 10, tf.maximum(256 * high + low - 8, 0)))

    found = tf.cond(place + 10 <= length, lambda: is_exif(place), lambda: False)
    return tf.cond(found, read_segment, lambda: 1)


def read_png(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The orientation of a PNG (see `read_jpeg`), and whether it has a transparency chunk (tRNS).

    Chunks after the pixels are ignored, as in training.
    """
    length = tf.cast(tf.strings.length(encoded), tf.int64)

    def kind(place):
        return tf.strings.substr(encoded, place + 4, 4)

    def before_pixels(place, *_):
        return tf.cond(place + 12 <= length, lambda: tf.not_equal(kind(place), b"IDAT"), lambda: False)

    def next_chunk(place, orientation, transparent):
        size = tf.io.decode_raw(tf.strings.substr(encoded, place, 4), tf.uint8)
        size = tf.reduce_sum(tf.cast(size, tf.int64) * [1 << 24, 1 << 16, 1 << 8, 1])

        def read_chunk():
            return _read_tiff(tf.strings.substr(encoded, place + 8, size))

        orientation = tf.cond(tf.equal(kind(place), b"eXIf"), read_chunk, lambda: orientation)
        return place + 12 + size, orientation, transparent | tf.equal(kind(place), b"tRNS")

    start = (tf.constant(8, tf.int64), tf.constant(1), tf.constant(False))
    return tf.while_loop(before_pixels, next_chunk, start, maximum_iterations=_MAX_SEGMENTS)[1:]


def _read_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """The same as `images.read_orientation` for EXIF data without JPEG's six-byte prefix."""
    size = tf.cast(tf.strings.length(tiff), tf.int64)
    order = tf.strings.substr(tiff, 0, 4)
    little = tf.equal(order, b"II*\0")
    content = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int64)

    def number(values):
        """Converts the bytes in the last dimension to a number."""
        values = tf.where(little, tf.reverse(values, [-1]), values)
        total = tf.constant(0, tf.int64)
        for byte in tf.unstack(values, axis=-1):
            total = 256 * total + byte
        return total

    def search():
        start = number(tf.ensure_shape(content[4:8], (4,)))

        def search_table():
            count = tf.minimum(number(tf.ensure_shape(content[start : start + 2], (2,))), (size - start - 2) // 12)
            table = tf.reshape(content[start + 2 : start + 2 + 12 * count], (-1, 12))
            first = tf.boolean_mask(table, number(table[:, :2]) == images.ORIENTATION_TAG)[:1]
            value = number(first[:, 8:10])
            valid = (number(first[:, 2:4]) == 3) & (number(first[:, 4:8]) == 1) & (value >= 1) & (value <= 8)
            return tf.reduce_max(tf.concat([tf.where(valid, value, 1), [1]], axis=0))

        return tf.cond(start + 2 <= size, search_table, lambda: tf.constant(1, tf.int64))

    found = (little | tf.equal(order, b"MM\0*")) & (size >= 8)
    return tf.cast(tf.cond(found, search, lambda: tf.constant(1, tf.int64)), tf.int32)


def center_square(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Crops the central square of an image that is not upright yet: it is central to half a pixel once upright."""
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(rows, columns)
    top = (rows - side + tf.cast(_is_one_of(orientation, images.ROWS_REVERSED), tf.int32)) // 2
    left = (columns - side + tf.cast(_is_one_of(orientation, images.COLUMNS_REVERSED), tf.int32)) // 2
    return tf.image.crop_to_bounding_box(image, top, left, side, side)


def turn_upright(square: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a square (side, side, 3) upright."""
    for axis, values in enumerate((images.ROWS_REVERSED, images.COLUMNS_REVERSED)):
        square = tf.where(_is_one_of(orientation, values), tf.reverse(square, [axis]), square)

    def transposed():  # by index: on some processors TensorFlow logs an error about an operation that transposes bytes
        numbers = tf.range(tf.shape(square)[0])
        return tf.gather(tf.reshape(square, (-1, 3)), tf.size(numbers) * numbers[None] + numbers[:, None])

    return tf.cond(orientation > 4, transposed, lambda: square)


def _is_one_of(orientation, values):
    return tf.reduce_any(orientation == tf.constant(values))
