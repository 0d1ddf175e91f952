"""A picture of classified images, from their encoded files."""

import pathlib
import sys
from collections.abc import Iterable, Sequence

from alexnet_tf.figures import image_grids, plots
from alexnet_tf.tfrecords import images

_SIDE_PX = 256


def write_panel(
    path: str | pathlib.Path, classified: Iterable[tuple[str, bytes, Sequence[str], Sequence[float]]]
) -> bool:
    """Writes a PNG of images with the bars of their most probable classes.

    The squares are Pillow's, so that TensorFlow need not be imported: a pixel may differ by 1 of 255 from what the
    network got. An image that Pillow can't read, though TensorFlow can, is skipped, and named on stderr.

    Args:
        path: the file to write.
        classified: (title, encoded image, names of its most probable classes, their probabilities) of each image.

    Returns: whether it was written: not if every image was skipped.

    Source: figure 4, left.
    """
    squares, predictions, titles = [], [], []
    for title, encoded, class_names, probabilities in classified:
        try:
            squares.append(images.prepare_image(encoded, _SIDE_PX))
        except Exception as error:  # Pillow raises many kinds
            print(f"{title}: not in the panel: {error}", file=sys.stderr)
            continue
        predictions.append((class_names, probabilities))
        titles.append(title)
    if not squares:
        return False
    plots.save_png(path, image_grids.prediction_panel(squares, predictions, titles))
    return True
