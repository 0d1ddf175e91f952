"""A picture of classified images, from their encoded files."""

import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from alexnet_tf.figures import image_grids, plots
from alexnet_tf.tfrecords import images

_SIDE_PX = 256


class ClassifiedImage(NamedTuple):
    """One image of a panel: its title, its encoded file, and its most probable classes."""

    title: str
    encoded: bytes
    class_names: Sequence[str]
    probabilities: Sequence[float]


def write_panel(path: str | pathlib.Path, classified: Sequence[ClassifiedImage]) -> bool:
    """Writes a PNG of images with the bars of their most probable classes.

    The squares are Pillow's, so that TensorFlow need not be imported: a pixel may differ by 1 of 255 from what the
    network got. An image that Pillow can't read, though TensorFlow can, is skipped, and named on stderr.

    Returns: whether it was written: not if every image was skipped.

    Source: figure 4, left.
    """
    squares, predictions, titles = [], [], []
    for image in classified:
        try:
            squares.append(images.prepare_image(image.encoded, _SIDE_PX))
        except Exception as error:  # Pillow raises many kinds
            print(f"{image.title}: not in the panel: {error}", file=sys.stderr)
            continue
        predictions.append((image.class_names, image.probabilities))
        titles.append(image.title)
    if not squares:
        return False
    plots.save_png(path, image_grids.prediction_panel(squares, predictions, titles))
    return True
