"""The first layer's kernels, and what training added to them, which random initial weights hide for a long time."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from alexnet_tf.figures import image_grids, plots
from alexnet_tf.networks import structure


def first_kernels(model: keras.Model) -> list[np.ndarray]:
    """The kernels of a network's first convolution: an array (side, side, 3, filters) for each column."""
    first = structure.stages(model)[0].layer
    return [keras.ops.convert_to_numpy(kernel) for kernel in structure.column_variables(first)["kernel"]]


def learned_part(kernels: Sequence[Any], initial: Sequence[Any]) -> list[np.ndarray]:
    """What training added to kernels: each kernel without its projection on its initial values.

    The initial kernel itself can't be subtracted, because weight decay shrinks it during training.

    Args:
        kernels, initial: an array or variable (side, side, 3, filters) for each column.

    Returns: float32 arrays of the same shapes.
    """
    parts = []
    for after, before in zip(kernels, initial, strict=True):
        after, before = np.asarray(after, "float32"), np.asarray(before, "float32")
        products = (after * before).sum(axis=(0, 1, 2)), (before * before).sum(axis=(0, 1, 2))
        parts.append(after - before * products[0] / np.where(products[1] > 0, products[1], 1))
    return parts


def draw_kernels(kernels: Sequence[Any], initial: Sequence[Any] | None = None) -> np.ndarray:
    """Draws kernels as in figure 3 and, if their initial values are known, what training added to them.

    Args:
        kernels, initial: an array or variable (side, side, 3, filters) for each column; `initial` may be None.

    Returns: uint8 (height, width, 3).

    Source: figure 3.

    Deviation: the paper does not show the learned part. Its kernels were trained for 90 epochs on 1.2 million images,
    and show no trace of their initial values.
    """
    if initial is None:
        return image_grids.kernel_sheet(kernels, magnification=8)
    sheets = [image_grids.kernel_sheet(each) for each in (kernels, learned_part(kernels, initial))]
    rows, columns, _ = sheets[0].shape
    figure = Figure(figsize=((2 * columns + 60) / 100, (rows + 50) / 100), layout="constrained")
    for panel, sheet, title in zip(figure.subplots(1, 2), sheets, ("kernels", "what training added"), strict=True):
        panel.imshow(sheet, interpolation="nearest")
        panel.set_axis_off()
        panel.set_title(title, fontsize=10)
    return plots.pixels_of(figure)
