"""A picture of a network in the manner of the paper's figure 2, made from its row of the table of variants."""

import pathlib

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from alexnet_tf import model, variants
from alexnet_tf.visualization import plots

_COLORS = ("#9ecae1", "#fdd0a2")  # of the columns
_BOX = (1.7, 1.5)


def save_architecture(path, variant, num_classes=1000):
    """Writes the picture: a box for each layer and column, an arrow wherever a layer sees a column below.

    Args:
        path: where to write, a name that ends in .svg or .png.
        variant: a key of `variants.VARIANTS`.
        num_classes: number of classes.

    Raises:
        ValueError: where `path` ends in something else.

    Source: figure 2.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"`path` must end in .svg or .png. Received: {path}")
    row = variants.VARIANTS[variant]
    network = model.build_alexnet(variant, num_classes, initializer="zeros")
    columns = 1 if row.columns_merged else row.columns
    heights = [2.4 * (columns - 1 - column) for column in range(columns)]
    middle = sum(heights) / columns
    layers = [(name, row.conv_sees[i], row.conv_then[i]) for i, name in enumerate(row.conv_names)]
    layers += [(name, row.fc_sees[i], row.fc_then[i]) for i, name in enumerate(row.fc_names)]

    right, top = 2.6 * len(layers) + 1.4, heights[0] + 1.4
    width_inches = 1.35 * (len(layers) + 1)
    figure = Figure(figsize=(width_inches, width_inches * (top + 2.2) / (right + 1.4) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set(xlim=(-1.4, right), ylim=(-2.2, top))
    axes.set_title(f"{variant}: {row.title}", fontsize=11)

    def box(x, y, text, color):
        width, height = _BOX
        style = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": color, "edgecolor": "#404040"}
        axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, **style))
        axes.text(x, y, text, ha="center", va="center", fontsize=8)

    def arrow(x, y, to_y):
        crosses = abs(to_y - y) > 0.1
        style = {"arrowstyle": "-|>", "color": "#b2182b" if crosses and columns > 1 else "#404040", "shrinkA": 0}
        start, end = (x + _BOX[0] / 2, y), (x + 2.6 - _BOX[0] / 2, to_y)
        axes.annotate("", xy=end, xytext=start, arrowprops=style | {"shrinkB": 0, "lw": 1.2})

    rows, image_columns, channels = network.input_shape[1:]
    box(0, middle, f"image\n{rows} x {image_columns}\nx {channels}", "#eeeeee")
    below = [middle]
    for position, (name, sees, then) in enumerate(layers):
        x = 2.6 * (position + 1)
        *places, maps = network.get_layer(name).output.shape[1:]
        here = [middle] if name == row.fc_names[-1] else heights
        size = f"{places[0]} x {places[1]}\nx {maps // len(here)}" if places else f"{maps // len(here)}"
        for index, y in enumerate(here):
            box(x, y, f"{name}\n{size}", _COLORS[index] if len(here) > 1 else "#eeeeee")
            for other, from_y in enumerate(below):
                if sees == "all" or len(below) == 1 or len(here) == 1 or other == index:
                    arrow(x - 2.6, from_y, y)
        axes.text(x, heights[-1] - 1.1, "\n".join(then), ha="center", va="top", fontsize=7, color="#606060")
        below = here
    if columns > 1:
        for index, y in enumerate(heights):
            axes.text(-1.2, y + 1.0 * (1 if index == 0 else -1), f"column {index + 1}", fontsize=8, va="center")
    if path.suffix == ".png":
        plots.save_png(path, plots.pixels_of(figure))
        return
    temporary = path.with_name(f".tmp-{path.name}")
    # Without a date and with names that do not change, so that the same network gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "alexnet", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})
    temporary.replace(path)
