"""A picture of a network in the manner of the paper's figure 2, drawn from the table of variants."""

import pathlib

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from alexnet_tf.figures import columns, plots
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS

_COLORS = ("#9ecae1", "#fdd0a2")  # of the columns
_BOX = (1.7, 1.5)
_STEP = 2.6  # distance between the boxes of two layers
_DISTANCE = 2.4  # distance between two columns


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
        return
    temporary = path.with_name(f".tmp-{path.name}")
    # Without a date and with constant names, so that the same network gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "alexnet", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})
    temporary.replace(path)


def _draw(variant: str, num_classes: int) -> Figure:
    row = VARIANTS[variant]
    num_columns = 1 if row.columns_merged else row.columns
    *shapes, _ = rows.trace(row, num_classes)
    layers = [shape for shape in shapes if isinstance(shape.row, rows.Conv | rows.Dense)]
    boxes = [1, *[num_columns] * (len(layers) - 1), 1]  # the classifier is one for all columns
    centers = columns.box_centers(boxes, _STEP, _DISTANCE)

    right, top = _STEP * len(layers) + 1.4, _DISTANCE * (num_columns - 1) + 1.4
    width_inches = 1.35 * (len(layers) + 1)
    figure = Figure(figsize=(width_inches, width_inches * (top + 2.2) / (right + 1.4) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set(xlim=(-1.4, right), ylim=(-2.2, top))
    axes.set_title(f"{variant}: {row.title}", fontsize=11)

    _draw_box(axes, *centers[0][0], f"image\n{row.image_px} x {row.image_px}\nx 3", "#eeeeee")
    for position, shape in enumerate(layers, 1):
        below, here = centers[position - 1], centers[position]
        *side, maps = shape.output_shape
        size = f"{side[0]} x {side[1]}\nx {maps // len(here)}" if side else f"{maps // len(here)}"
        for color, center in zip(_COLORS if len(here) > 1 else ["#eeeeee"], here, strict=True):
            _draw_box(axes, *center, f"{shape.name}\n{size}", color)
        connections = rows.connections(len(below), len(here), shape.row.input_columns)
        columns.draw_arrows(axes, below, here, connections, _BOX[0])
        next_layer = shapes.index(layers[position]) if position < len(layers) else None
        following = shapes[shapes.index(shape) + 1 : next_layer]
        names = "\n".join([*_kernels(shape.row), *(each.name for each in following)])
        axes.text(_STEP * position, -1.1, names, ha="center", va="top", fontsize=7, color="#606060")
    if num_columns > 1:
        for index, (_, y) in enumerate(centers[1]):
            axes.text(-1.2, y + 1.0 * (1 if index == 0 else -1), f"column {index + 1}", fontsize=8, va="center")
        labels = {
            columns.WITHIN: "within a column, or from the image",
            columns.BETWEEN: "from a column to another, or to fc8",
        }
        handles = [Line2D([], [], color=color, label=label) for color, label in labels.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _draw_box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    width, height = _BOX
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor="#404040"))
    axes.text(x, y, text, ha="center", va="center", fontsize=8)


def _kernels(row: rows.Layer | None) -> list[str]:
    """The size of a convolution's kernels, and their stride unless it is 1."""
    if not isinstance(row, rows.Conv):
        return []
    return [f"{row.kernel_size} x {row.kernel_size} kernels", *([f"stride {row.strides}"] if row.strides > 1 else [])]
