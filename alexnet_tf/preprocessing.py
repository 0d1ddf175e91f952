"""From encoded images to the network's pixels, in TensorFlow operations: for prediction and for the served model."""

import tensorflow as tf


def decode_images(encoded_images, image_px, crop_px):
    """Decodes images and cuts out what the network sees of them, as the builder of TFRecords does.

    Args:
        encoded_images: string tensor (batch,): JPEG, PNG, GIF (its first frame) or BMP files.
        image_px: side to which the shorter side of each image is brought, in pixels (256 in the paper).
        crop_px: side of the square in its middle that is returned, in pixels.

    Returns: uint8 tensor (batch, crop_px, crop_px, 3), RGB.

    Raises:
        ValueError: where `crop_px` is larger than `image_px`.
        tf.errors.InvalidArgumentError: where a file is no image that can be read.

    Source: section 2.
    Deviation: the central square is cut out before the resizing, not after. It gives the same pixels, and an image of
    5000 x 1 pixels then takes no more memory than any other.
    """
    if crop_px > image_px:
        raise ValueError(f"`crop_px` must be at most the image side, {image_px}. Received: crop_px={crop_px}")

    def decode(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        rows, columns = tf.shape(image)[0], tf.shape(image)[1]
        side = tf.minimum(rows, columns)
        image = tf.image.crop_to_bounding_box(image, (rows - side) // 2, (columns - side) // 2, side, side)
        image = tf.image.resize(image, (image_px, image_px), antialias=True)
        margin = (image_px - crop_px) // 2
        image = image[margin : margin + crop_px, margin : margin + crop_px]
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    return tf.map_fn(decode, encoded_images, fn_output_signature=tf.TensorSpec((crop_px, crop_px, 3), tf.uint8))
