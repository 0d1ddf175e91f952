"""A picture of a network in the manner of the paper's figure 2, drawn from the table of variants."""

import pathlib

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from alexnet_tf.figures import plots
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS

_COLORS = ("#9ecae1", "#fdd0a2")  # of the columns
_ARROWS = {"#404040": "within a column, or from the image", "#b2182b": "from a column to another, or to fc8"}
_BOX = (1.7, 1.5)
_STEP = 2.6  # from one layer's box to the next


def save_architecture(path: str | pathlib.Path, variant: str, num_classes: int = 1000) -> None:
    """Draws a box for each layer and column, and an arrow wherever a layer is connected to a column below.

    Args:
        path: file to write, a name that ends in .svg or .png.
        variant: a key of `VARIANTS`.
        num_classes: number of classes.

    Raises:
        ValueError: if `path` ends in something else.

    Source: figure 2.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"`path` must end in .svg or .png. Received: {path}")
    row = VARIANTS[variant]
    columns = 1 if row.columns_merged else row.columns
    heights = [2.4 * (columns - 1 - column) for column in range(columns)]
    middle = sum(heights) / columns
    *shapes, _ = rows.trace(row, num_classes)
    layers = [shape for shape in shapes if isinstance(shape.row, rows.Conv | rows.Dense)]

    right, top = _STEP * len(layers) + 1.4, heights[0] + 1.4
    width_inches = 1.35 * (len(layers) + 1)
    figure = Figure(figsize=(width_inches, width_inches * (top + 2.2) / (right + 1.4) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set(xlim=(-1.4, right), ylim=(-2.2, top))
    axes.set_title(f"{variant}: {row.title}", fontsize=11)

    _draw_box(axes, 0, middle, f"image\n{row.image_px} x {row.image_px}\nx 3", "#eeeeee")
    below = [middle]
    for position, shape in enumerate(layers, 1):
        x = _STEP * position
        *places, maps = shape.output_shape
        here = [middle] if shape is layers[-1] else heights  # the classifier is one
        size = f"{places[0]} x {places[1]}\nx {maps // len(here)}" if places else f"{maps // len(here)}"
        connected = getattr(shape.row, "input_columns", "own") == "all"
        for index, y in enumerate(here):
            _draw_box(axes, x, y, f"{shape.name}\n{size}", _COLORS[index] if len(here) > 1 else "#eeeeee")
            for other, from_y in enumerate(below):
                if connected or len(below) == 1 or len(here) == 1 or other == index:
                    start, end = (x - _STEP + _BOX[0] / 2, from_y), (x - _BOX[0] / 2, y)
                    draw_arrow(axes, start, end, between_columns=len(below) > 1 and other != index)
        following = shapes[shapes.index(shape) + 1 : shapes.index(layers[position]) if position < len(layers) else None]
        names = "\n".join([*_kernels(shape.row), *(each.name for each in following)])
        axes.text(x, heights[-1] - 1.1, names, ha="center", va="top", fontsize=7, color="#606060")
        below = here
    if columns > 1:
        for index, y in enumerate(heights):
            axes.text(-1.2, y + 1.0 * (1 if index == 0 else -1), f"column {index + 1}", fontsize=8, va="center")
        handles = [Line2D([], [], color=color, label=label) for color, label in _ARROWS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    if path.suffix == ".png":
        plots.save_png(path, plots.pixels_of(figure))
        return
    temporary = path.with_name(f".tmp-{path.name}")
    # Without a date and with names that do not change, so that the same network gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "alexnet", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})
    temporary.replace(path)


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


def draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], between_columns: bool, lw: float = 1.2
) -> None:
    """Draws an arrow from one point (x, y) to another, in the color of a connection within or between columns."""
    color = list(_ARROWS)[between_columns]
    style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0, "lw": lw}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
