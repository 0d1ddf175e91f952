"""A picture of a network in the manner of the paper's figure 2, drawn from the table of variants."""

import pathlib
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from alexnet_tf.figures import columns, plots
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS

_COLORS = ("#9ecae1", "#fdd0a2")  # of the columns
_NO_COLUMN = "#e0e0e0"
_STEP = 2.6  # distance between the boxes of two layers
_DISTANCE = 2.6  # distance between two columns


class _Volume(NamedTuple):
    """A box that stands for feature maps: their number is its width, their side its height and its depth.

    `depth` is the horizontal and the vertical offset of the back from the front.
    """

    width: float
    height: float
    depth: float


def save_architecture(path: str | pathlib.Path, variant: str, num_classes: int = 1000) -> None:
    """Draws a box for each layer and column, and an arrow for each connection between boxes.

    Args:
        path: file to write, a name that ends in .svg or .png.
        variant: a key of `VARIANTS`.
        num_classes: number of classes.

    Raises:
        ValueError: if `path` has another ending.

    Source: figure 2.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"`path` must end in .svg or .png. Received: {path}")
    figure = _draw(variant, num_classes)
    if path.suffix == ".png":
        plots.save_png(path, plots.pixels_of(figure))
    else:
        plots.save_svg(path, figure)


def _draw(variant: str, num_classes: int) -> Figure:
    spec = VARIANTS[variant]
    num_columns = 1 if spec.columns_merged else spec.columns
    *shapes, _ = rows.trace(spec, num_classes)
    layers = [shape for shape in shapes if isinstance(shape.row, rows.Conv | rows.Local | rows.Dense)]
    boxes = [1, *[num_columns] * (len(layers) - 1), 1]  # the classifier is one for all columns
    centers = columns.box_centers(boxes, _STEP, _DISTANCE)

    right, top = _STEP * len(layers) + 1.4, _DISTANCE * (num_columns - 1) + 2.0
    width_inches = 1.35 * (len(layers) + 1)
    figure = Figure(figsize=(width_inches, width_inches * (top + 3.2) / (right + 1.4) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set(xlim=(-1.4, right), ylim=(-3.2, top))
    axes.set_title(f"{variant}: {spec.title}", fontsize=12)

    below = _volume((spec.image_px, spec.image_px, 3), spec.image_px)
    _draw_volume(axes, *centers[0][0], below, f"image\n{spec.image_px} x {spec.image_px} x 3", _NO_COLUMN)
    for position, shape in enumerate(layers, 1):
        here = centers[position]
        *side, maps = shape.output_shape
        size = (*side, maps // len(here))
        volume = _volume(size, spec.image_px)
        starts = [(x + (below.width + below.depth) / 2, y) for x, y in centers[position - 1]]
        ends = [(x - (volume.width + volume.depth) / 2, y) for x, y in here]
        connections = rows.connections(len(starts), len(ends), shape.row.input_columns)  # pyright: ignore[reportAttributeAccessIssue] # no other layers
        columns.draw_arrows(axes, starts, ends, connections, linewidth=1.2)
        for color, center in zip(_COLORS if len(here) > 1 else [_NO_COLUMN], here, strict=True):
            text = f"{shape.name}\n{' x '.join(map(str, size))}"
            _draw_volume(axes, *center, volume, text, color, above=center[1] > centers[0][0][1])
        next_layer = shapes.index(layers[position]) if position < len(layers) else None
        following = shapes[shapes.index(shape) + 1 : next_layer]
        names = "\n".join([*_kernels(shape.row), *(each.name for each in following)])
        axes.text(_STEP * position, -1.9, names, ha="center", va="top", fontsize=9, color="#303030")
        below = volume
    if num_columns > 1:
        for index, (_, y) in enumerate(centers[1]):
            axes.text(-1.2, y + (0.8 if index == 0 else -0.8), f"column {index + 1}", fontsize=11, va="center")
        labels = {
            columns.WITHIN: "within a column, or from the image",
            columns.BETWEEN: "from a column to another, or to fc8",
        }
        handles = [Line2D([], [], color=color, label=label) for color, label in labels.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=10)
    return figure


def _volume(size: tuple[int, ...], image_px: int) -> _Volume:
    """The box of feature maps (side, side, number) or of units (number,)."""
    if len(size) == 1:
        return _Volume(0.25, 1.7, 0.12)
    height = 1.7 * (size[0] / image_px) ** 0.4  # roots, because the sizes differ by a factor of 20 and more
    return _Volume(0.055 * size[-1] ** 0.5, height, 0.3 * height)


def _draw_volume(axes: Axes, x: float, y: float, volume: _Volume, text: str, color: str, above: bool = False) -> None:
    """Draws a box whose middle is at (x, y), with a text below or above it, where no arrow crosses it."""
    width, height, depth = volume
    left, bottom = x - (width + depth) / 2, y - (height + depth) / 2
    right, top = left + width, bottom + height
    back = [(left + depth, top + depth), (right + depth, top + depth), (right + depth, bottom + depth)]
    front = [(left, bottom), (left, top), (right, top), (right, bottom)]
    for corners, brightness in (
        (front, 1.0),
        ([(left, top), *back[:2], (right, top)], 1.08),
        ([(right, top), *back[1:], (right, bottom)], 0.85),
    ):
        face = [min(brightness * channel, 1.0) for channel in to_rgb(color)]
        axes.add_patch(Polygon(corners, facecolor=face, edgecolor="#505050", linewidth=0.8))
    text_y, alignment = (top + depth + 0.1, "bottom") if above else (bottom - 0.1, "top")
    axes.text(x, text_y, text, ha="center", va=alignment, fontsize=9)


def _kernels(row: rows.Layer | None) -> list[str]:
    """The size of a convolution's kernels, and their stride unless it is 1."""
    if isinstance(row, rows.Local):
        return [f"{row.kernel_size} x {row.kernel_size} kernels", "own at each position"]
    if not isinstance(row, rows.Conv):
        return []
    return [f"{row.kernel_size} x {row.kernel_size} kernels", *([f"stride {row.strides}"] if row.strides > 1 else [])]
