"""From encoded images to the network's pixels, in TensorFlow operations: for prediction and for the served model."""

import tensorflow as tf

# One of so many pixels took up to 440 MB while it was decoded: docs/serving.md has more.
MAX_PIXELS = 50_000_000


def decode_square(encoded_image, image_px, max_pixels=MAX_PIXELS):
    """Decodes an image and makes of it the square of a data set, as the builder of TFRecords does with Pillow.

    Both decode to the same pixels, cut out the central square and resize it by the antialiased triangle filter, in
    which they round differently: a pixel of the square may differ by 1 of 255.

    Args:
        encoded_image: string scalar: a JPEG, PNG or BMP file: grey, RGB, RGBA, palette (of PNG), CMYK or of 16
            bits. What it is, its content tells. Orientation tags are ignored, as in training.
        image_px: side of the square, in pixels (256 in the paper).
        max_pixels: how many pixels an image may have. Its header is asked, before anything is decoded.

    Returns: uint8 tensor (image_px, image_px, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: where the file is no image that can be read, or too large.

    Source: section 2.
    Deviation: the central square is cut out before the resizing, not after. It gives the same pixels, and an image of
    5000 x 1 pixels then takes no more memory than any other. GIF is not decoded: the sizes of its frames stand
    anywhere in the file, so that no header tells how much memory it would take.
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
            # Exactly what Pillow decodes. TensorFlow's own choice, INTEGER_FAST, is off by up to 12 of 255.
            return tf.io.decode_jpeg(encoded_image, channels=3, dct_method="INTEGER_ACCURATE")

    def decode_png():
        rows, columns = (number(place, little_endian=False) for place in (20, 16))
        with tf.control_dependencies([small_enough(rows, columns)]):
            return tf.io.decode_png(encoded_image, channels=3)

    def decode_bmp():
        # TensorFlow takes the indices of a palette, or fewer bits, for shades of grey.
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


def central_crop(squares, crop_px):
    """The squares of `crop_px` pixels in the middle of larger ones, as in `tfrecords.reader.make_evaluation_dataset`.

    Args:
        squares: tensor (..., image_px, image_px, 3).
        crop_px: side of the result, in pixels, a Python integer.

    Returns: tensor (..., crop_px, crop_px, 3).

    Raises:
        ValueError: where `crop_px` is larger than `image_px`.
    """
    image_px = squares.shape[-2]
    if crop_px > image_px:
        raise ValueError(f"`crop_px` must be at most the image side, {image_px}. Received: crop_px={crop_px}")
    margin = (image_px - crop_px) // 2
    return squares[..., margin : margin + crop_px, margin : margin + crop_px, :]


def ten_views(squares, crop_px):
    """The paper's ten views: four corners and the centre, then their mirror images.

    Args:
        squares: tensor (batch, image_px, image_px, 3).
        crop_px: side of each view, in pixels.

    Returns: tensor (batch, 10, crop_px, crop_px, 3), in the order of `tfrecords.reader.make_evaluation_dataset`.

    Source: section 4.1.
    """
    last = squares.shape[-2] - crop_px
    corners = [(0, 0), (0, last), (last, 0), (last, last), (last // 2, last // 2)]
    crops = [squares[:, top : top + crop_px, left : left + crop_px] for top, left in corners]
    crops = tf.stack(crops, axis=1)
    return tf.concat([crops, tf.reverse(crops, [3])], axis=1)


def decode_readable(encoded_images, decode, image_px):
    """Decodes those of a batch that can be decoded, in a graph that no image can make fail.

    Args:
        encoded_images: string tensor (batch,).
        decode: a function from one of them to uint8 (image_px, image_px, 3); the images where it fails are left out.
        image_px: side of the squares, in pixels.

    Returns:
        (squares, rows): uint8 (readable, image_px, image_px, 3), and int32 (readable,), ascending: which of the batch
        they are.
    """
    count = tf.size(encoded_images)
    numbered = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded_images))
    # One at a time: so a request takes the memory of one large image, however many it brings.
    readable = numbered.map(lambda row, encoded: (row, decode(encoded))).ignore_errors()
    # A batch of nothing at all would be no element: one more image, cut off again, sees to it that there is one.
    one_more = tf.data.Dataset.from_tensors((count, tf.zeros((image_px, image_px, 3), tf.uint8)))
    batches = readable.concatenate(one_more).batch(tf.cast(count + 1, tf.int64))
    rows, squares = batches.get_single_element()
    return squares[:-1], rows[:-1]
