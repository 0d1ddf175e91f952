"""Preprocessing and decoding of predictions for notebooks and scripts."""

import os
from collections.abc import Sequence

import numpy as np

from alexnet_tf.evaluation import metrics
from alexnet_tf.tfrecords import crops
from alexnet_tf.tfrecords import images as image_files

Image = str | os.PathLike | bytes | np.ndarray


def preprocess(
    images: Image | Sequence[Image], crop_px: int = 224, image_px: int = 256, exif_orientation: bool = True
) -> np.ndarray:
    """Resizes images as those of a data set are, and takes the center crop.

    The mean is not subtracted here: the network's first layer does that.

    Args:
        images: one image or a list of them, of any sizes: paths, bytes of encoded files, or uint8 arrays (rows,
            columns) or (rows, columns, 3).
        crop_px: side of the network's input, in pixels.
        image_px: what the shorter side is resized to first, in pixels.
        exif_orientation: whether files are turned upright, as their EXIF tag Orientation says. False for a network
            whose data set was built without: `load_model(...)[1].exif_orientation` says it.

    Returns: uint8 (n, crop_px, crop_px, 3), RGB.

    Raises:
        ValueError: if `crop_px` is larger than `image_px`, or an image can't be read.

    Source: section 2.
    """
    crops.check_crop_px(crop_px, image_px)
    if isinstance(images, str | os.PathLike | bytes) or (isinstance(images, np.ndarray) and images.ndim != 4):
        images = [images]
    squares = []
    for number, image in enumerate(images):
        try:
            squares.append(image_files.prepare_image(image, image_px, exif_orientation=exif_orientation))
        except Exception as error:  # Pillow raises many kinds
            received = image if isinstance(image, str) else type(image).__name__
            raise ValueError(
                f"`images` must be images that Pillow can read. Received at {number}: {received}: {error}"
            ) from error
    return crops.center_crop(np.stack(squares), crop_px)


def decode_predictions(
    probabilities: np.ndarray, class_names: Sequence[str], top: int = 5
) -> list[list[tuple[str, float]]]:
    """Names the most probable classes.

    Args:
        probabilities: float (n, classes), the output of `model.predict`.
        class_names: names in the order of the labels: `load_model(...)[1].class_names`.
        top: how many classes; all if there are fewer.

    Returns: for each image a list of (name, probability), the most probable first.

    Raises:
        ValueError: if there are not as many names as classes.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"`probabilities` must be (n, {len(class_names)}), as many as names. Received: {probabilities.shape}"
        )
    order = metrics.top_k(probabilities, top)
    return [
        [(class_names[int(c)], float(row[c])) for c in best] for row, best in zip(probabilities, order, strict=True)
    ]
