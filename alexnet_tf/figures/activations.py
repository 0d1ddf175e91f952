"""The outputs of every layer for an image: as arrays, and as a picture laid out as figure 2."""

from collections.abc import Sequence

import keras
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from alexnet_tf.figures import columns, image_grids, plots
from alexnet_tf.networks import structure

_BOX = 3.0  # width of a mosaic, in inches; its height if there are two columns
_STEP = 3.8  # distance between the mosaics of two layers
_DISTANCE = _BOX + 1.0  # distance between two columns
_COLORS = matplotlib.colormaps["inferno"].with_extremes(bad="#505050", over="white")  # gaps; no map


def activations(
    model: keras.Model, images: np.ndarray, layers: Sequence[str] | None = None
) -> dict[str, list[np.ndarray]]:
    """Computes the outputs of layers for images, in one pass and without dropout.

    Args:
        model: a network from `build_alexnet`, or a model that contains one.
        images: uint8 or float32 (n, side, side, 3), RGB from 0 to 255, from `preprocess`. Only a few: the outputs of
            all layers take 10 MB per image. For whole data sets, use `evaluation.features.extract`.
        layers: names of layers of the model, such as ["relu1", "pool5"]; None for all.

    Returns:
        A dict from the layers' names, in the order of computation, to lists with an array for each column: float32 (n,
        height, width, feature maps) or, for a fully-connected layer, (n, units). Layers that belong to no column are
        lists of one array: the subtraction of the mean image, the classifier, its softmax, and a user's own layers.

    Raises:
        ValueError: if the model has no such layer.

    Source: figure 2.

    Example:

    >>> model = alexnet_tf.build_alexnet("testing", 10)
    >>> found = alexnet_tf.activations(model, np.zeros((2, 56, 56, 3), "uint8"), ["conv1"])
    >>> [column.shape for column in found["conv1"]]
    [(2, 27, 27, 4), (2, 27, 27, 4)]
    """
    known = [layer.name for layer in structure.network_layers(model)]
    structure.check_layers(model, layers or ())
    chosen = [name for name in known if layers is None or name in layers]
    outputs = structure.features(model, chosen)(images, training=False)
    num_columns = structure.output_columns(model)
    result = {}
    for name in chosen:
        output = np.float32(keras.ops.convert_to_numpy(outputs[name]))
        result[name] = np.split(output, num_columns[name], axis=-1)
    return result


def mosaic(maps: np.ndarray, height: float = 1.0) -> np.ndarray:
    """Arranges feature maps in a near-square, or in another rectangle.

    Args:
        maps: float (height, width, feature maps); or (units,), where each unit becomes a square.
        height: approximate height of the rectangle divided by its width.

    Returns: float (height, width). Gaps of one row or column between feature maps, and positions without a feature map
    or unit, are NaN.
    """
    maps = np.atleast_3d(maps.astype("float32")).transpose(2, 0, 1) if maps.ndim == 3 else maps.reshape(-1, 1, 1)
    across = int(np.ceil((len(maps) / height) ** 0.5))
    gap = int(maps.shape[1] > 1)
    maps = np.pad(maps, ((0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    tiled = image_grids.tile(maps, across, fill=np.nan)
    return tiled[: len(tiled) - gap, : tiled.shape[1] - gap]


def draw_activations(model: keras.Model, image: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draws the feature maps of each layer for an image, column by column, and the most probable classes, if any.

    Args:
        model: a network from `build_alexnet`, or a model that contains one, with a softmax or without its top.
        image: uint8 (side, side, 3), from `preprocess`.
        class_names: names in the order of the labels.

    Returns: uint8 (height, width, 3). It shows the feature maps after the nonlinearity, with one scale for each layer:
    black is 0 or less, and the brightest color is the 99.9th percentile of the column where it is largest. Colors
    follow the square root, which makes weak activations visible.

    Source: figure 2.
    """
    stages, classifier = structure.stages(model), structure.classifier(model)
    outputs = activations(model, image[None], [stage.activation for stage in stages])
    centers = columns.box_centers([1, *(stage.columns for stage in stages)], _STEP, _DISTANCE)
    middle = centers[0][0][1]
    tall = _BOX if middle else _BOX + _DISTANCE  # a single column is as tall as two
    below, above = _BOX / 2 + 0.2 + (tall - _BOX) / 2, 2 * middle + _BOX / 2 + 1.0 + (tall - _BOX) / 2
    width = _STEP * len(stages) + _BOX + 0.2
    figure = Figure(figsize=(width, below + above))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(-_BOX / 2 - 0.1, width - _BOX / 2 - 0.1), ylim=(-below, above))
    _draw_box(axes, image, *centers[0][0], f"image: {image.shape[0]} x {image.shape[1]}")
    for position, stage in enumerate(stages, 1):
        here, arrays = centers[position], [array[0] for array in outputs[stage.activation]]
        starts, ends = [(x + _BOX / 2, y) for x, y in centers[position - 1]], [(x - _BOX / 2, y) for x, y in here]
        columns.draw_arrows(axes, starts, ends, stage.connections, linewidth=2)
        if stage.layer is not classifier:
            largest = max(np.percentile(array, 99.9) for array in arrays)
            for array, center in zip(arrays, here, strict=True):
                size = " x ".join(map(str, array.shape)) if array.ndim > 1 else f"{len(array)} units"
                pixels = mosaic(array, tall / _BOX)
                _draw_box(axes, pixels, *center, f"{stage.layer.name}: {size}", float(largest), tall)
        else:
            _draw_classes(axes, arrays[0], *here[0], stage.layer.name, class_names)
    for index, (x, y) in enumerate(centers[1] if len(centers[1]) > 1 else ()):
        axes.text(x - _BOX / 2, y + _BOX / 2 + 0.5, f"column {index + 1}", fontsize=20, weight="bold")
    return plots.pixels_of(figure)


def _draw_box(
    axes: Axes, pixels: np.ndarray, x: float, y: float, title: str, largest: float = 1.0, height: float = _BOX
) -> None:
    """Draws a picture, or a mosaic of activations from 0 to `largest`, in a box with a title above it."""
    rows, columns = pixels.shape[:2]
    inches_per_pixel = min(height / rows, _BOX / columns)
    half_height, half_width = inches_per_pixel * rows / 2, inches_per_pixel * columns / 2
    if pixels.ndim == 2:
        pixels = np.clip(pixels, 0, largest)
        # The positions without a map, at the bottom right, have the color of the background.
        below, right = (int(np.isnan(line[::-1]).argmin()) for line in (pixels[:, -1], pixels[-1]))
        pixels[rows - below :, columns - right :] = 2 * (largest or 1.0)
    axes.imshow(
        pixels,
        extent=(x - half_width, x + half_width, y - half_height, y + half_height),
        cmap=_COLORS,
        norm=PowerNorm(0.5, vmin=0, vmax=largest or 1.0),
        interpolation="nearest" if inches_per_pixel > 0.01 else "antialiased",
        interpolation_stage="rgba",
        aspect="auto",
    )
    axes.text(x, y + half_height + 0.08, title, ha="center", va="bottom", fontsize=17)


def _draw_classes(axes: Axes, probabilities: np.ndarray, x: float, y: float, title: str, class_names) -> None:
    """Draws the five most probable classes as bars, in half a box."""
    best = np.argsort(-probabilities, kind="stable")[:5]
    axes.text(x, y + _BOX / 4 + 0.1, title, ha="center", va="bottom", fontsize=17)
    bars = axes.inset_axes((x - _BOX / 2, y - _BOX / 4, _BOX, _BOX / 2), transform=axes.transData)
    image_grids.draw_bars(bars, [class_names[int(index)] for index in best], probabilities[best], fontsize=15)
