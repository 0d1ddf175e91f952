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
    axes: Axes,
    below: Sequence[Point],
    here: Sequence[Point],
    connections: Sequence[tuple[int, int]],
    box_width: float,
    linewidth: float = 1.2,
) -> None:
    """Draws an arrow for each connection between the boxes of two layers.

    Args:
        axes: the axes of the picture.
        below, here: centers of the boxes of both layers.
        connections: pairs (index in `below`, index in `here`).
        box_width: width of the boxes.
        linewidth: in points.
    """
    for lower, upper in connections:
        color = BETWEEN if len(below) > 1 and lower != upper else WITHIN
        (x, y), (from_x, from_y) = here[upper], below[lower]
        style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0, "lw": linewidth}
        axes.annotate("", xy=(x - box_width / 2, y), xytext=(from_x + box_width / 2, from_y), arrowprops=style)
