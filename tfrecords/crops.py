"""The crops on which a network is evaluated: the center crop, and the paper's ten views."""

import pathlib

import numpy as np


def check_crop_px(crop_px: int | None, image_px: int) -> None:
    """Raises ValueError if a crop of `crop_px` pixels doesn't fit into an image of `image_px` pixels.

    It is None for a network that takes images of any size.
    """
    if crop_px is None or not 1 <= crop_px <= image_px:
        raise ValueError(f"`crop_px` must be from 1 to the image side, {image_px}. Received: crop_px={crop_px}")


def check_image_px(data_dir: str | pathlib.Path, image_px: int, input_px: int) -> None:
    """Raises ValueError if the images of a data set, with a side of `image_px`, are smaller than a network's input."""
    if image_px < input_px:
        raise ValueError(
            f"`data_dir` must have images of at least {input_px} pixels, the network's input. Received: {data_dir}, "
            f"with {image_px} pixels. alexnet-tfrecords --image_px={-(-input_px * 8 // 7)} builds larger images."
        )


def center_offset(length, crop_px):
    """The first row or column of a center crop, half a pixel above or left of the center if the margin is odd.

    Args:
        length: height or width of the image, in pixels; an integer, or an array or tensor of integers.
        crop_px: side of the crop, in pixels.
    """
    return (length - crop_px) // 2


def center_crop(images, crop_px: int):
    """The center crops of images.

    Args:
        images: array or tensor (..., height, width, channels) whose height and width are static.
        crop_px: side of the crops, in pixels.

    Returns: array or tensor (..., crop_px, crop_px, channels).

    Raises:
        ValueError: if `crop_px` is larger than an image.
    """
    height, width = images.shape[-3:-1]
    check_crop_px(crop_px, min(height, width))
    top, left = center_offset(height, crop_px), center_offset(width, crop_px)
    return images[..., top : top + crop_px, left : left + crop_px, :]


CENTER_OF_TEN = 4  # index of the center crop in `ten_views`


def ten_views(images, crop_px: int):
    """The paper's ten views: the four corners (top left, top right, bottom left, bottom right) and the center, then
    their mirror images in the same order.

    Args:
        images: array or tensor (..., height, width, channels) whose height and width are static.
        crop_px: side of the views, in pixels.

    Returns: array or tensor (..., 10, crop_px, crop_px, channels).

    Raises:
        ValueError: if `crop_px` is larger than an image.

    Source: section 4.1.
    """
    height, width = images.shape[-3:-1]
    check_crop_px(crop_px, min(height, width))
    bottom, right = height - crop_px, width - crop_px
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    corners.append((center_offset(height, crop_px), center_offset(width, crop_px)))
    crops = [images[..., top : top + crop_px, left : left + crop_px, :] for top, left in corners]
    if isinstance(images, np.ndarray):
        views = np.stack(crops, axis=-4)
        return np.concatenate([views, views[..., ::-1, :]], axis=-4)
    import tensorflow as tf  # only here: arrays don't need TensorFlow

    views = tf.stack(crops, axis=-4)
    return tf.concat([views, tf.reverse(views, [-2])], axis=-4)
