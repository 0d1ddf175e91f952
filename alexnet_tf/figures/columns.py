"""The layout of figure 2: layers from left to right, the boxes of the columns below each other, arrows between them."""

from collections.abc import Sequence

from matplotlib.axes import Axes

WITHIN, BETWEEN = "#404040", "#b2182b"  # colors of arrows within a column, and between columns

Point = tuple[float, float]


def box_centers(boxes: Sequence[int], step: float, distance: float) -> list[list[Point]]:
    """The centers of the boxes of an image and of layers.

    Args:
        boxes: number of boxes of the image, 1, and of each layer: the number of columns, or 1 for all of them.
        step: distance between two layers, along x.
        distance: distance between two columns, along y.

    Returns: lists of (x, y), one list for the image and for each layer; the last column is at y = 0.
    """
    heights = [distance * position for position in reversed(range(max(boxes)))]
    middle = sum(heights) / len(heights)
    return [
        [(step * position, y) for y in (heights if number > 1 else [middle])] for position, number in enumerate(boxes)
    ]


def draw_arrows(
    axes: Axes, starts: Sequence[Point], ends: Sequence[Point], connections: Sequence[tuple[int, int]], linewidth: float
) -> None:
    """Draws an arrow for each connection between the boxes of two layers.

    Args:
        axes: the axes of the picture.
        starts, ends: where arrows leave the boxes of the lower layer, and where they reach those of the upper layer.
        connections: pairs (index of a lower box, index of an upper box).
        linewidth: in points.
    """
    for lower, upper in connections:
        color = BETWEEN if len(starts) > 1 and lower != upper else WITHIN
        style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0, "lw": linewidth}
        axes.annotate("", xy=ends[upper], xytext=starts[lower], arrowprops=style)
