"""What every layer makes of an image: as arrays, and as a picture laid out as figure 2."""

from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from alexnet_tf.figures import architecture, image_grids, plots
from alexnet_tf.layers import ColumnDense, ColumnWise, GroupedConv2D

_BOX = 3.0  # side of a mosaic, in inches
_STEP = 3.8  # from one layer's mosaics to the next


def activations(
    model: keras.Model, images: np.ndarray, layers: Sequence[str] | None = None
) -> dict[str, list[np.ndarray]]:
    """Computes the outputs of layers for images, all in one pass, as they are when the network is tested.

    Args:
        model: from `model.build_alexnet`.
        images: uint8 or float32 (n, side, side, 3), RGB from 0 to 255, as `preprocess` returns. A few: the outputs of
            all layers for one take 10 MB. `evaluation.features.extract` is for data sets.
        layers: names of layers of the model, such as ["relu1", "pool5"]; None for all.

    Returns:
        A dict from the layers' names, in the network's order, to lists: an array for each column, float32 (n, rows,
        columns, feature maps) or, of a fully-connected layer, (n, units). What belongs to no column, the subtraction
        of the mean image, the classifier and its softmax, is a list of one array.

    Raises:
        ValueError: if the model has no such layer.

    Source: figure 2.
    """
    names = [layer.name for layer in model.layers[1:]]
    for name in names if layers is None else layers:
        if name not in names:
            raise ValueError(f"`layers` must be among {', '.join(names)}. Received: {name!r}")
    chosen = [name for name in names if layers is None or name in layers]
    outputs = keras.Model(model.input, {name: model.get_layer(name).output for name in chosen})(images, training=False)
    columns = num_columns(model)
    classifier = _classifier(model)
    shared = {names[0], *(names[names.index(classifier) :] if classifier else ())}
    result = {}
    for name in chosen:
        output = outputs[name]
        if not isinstance(output, list):
            output = keras.ops.split(output, 1 if name in shared else columns, axis=-1)
        result[name] = [np.float32(keras.ops.convert_to_numpy(column)) for column in output]
    return result


def num_columns(model: keras.Model) -> int:
    """The number of the network's columns: the paper's GPUs."""
    return max((layer.groups for layer in model.layers if isinstance(layer, GroupedConv2D)), default=1)


def _classifier(model: keras.Model) -> str | None:
    """The name of the last fully-connected layer."""
    return next((layer.name for layer in reversed(model.layers) if isinstance(layer, ColumnDense)), None)


def weighted_layers(model: keras.Model) -> list[tuple[GroupedConv2D | ColumnDense, str]]:
    """The convolutional and fully-connected layers, each with the name of the layer that has its activations: the
    nonlinearity after it or, after the classifier, the softmax."""
    found = []
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, ColumnWise) else layer
        if isinstance(layer, GroupedConv2D | ColumnDense):
            found.append((layer, layer.name))
        elif isinstance(inner, keras.layers.ReLU | keras.layers.Activation | keras.layers.Softmax):
            found[-1] = (found[-1][0], layer.name)
    return found


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Lays feature maps side by side in a near-square, with gaps that are NaN.

    Args:
        maps: float (rows, columns, feature maps), or (units,), whose units are squares without gaps.

    Returns: float (rows, columns).
    """
    maps = np.atleast_3d(maps.astype("float32")).transpose(2, 0, 1) if maps.ndim == 3 else maps.reshape(-1, 1, 1)
    across = int(np.ceil(len(maps) ** 0.5))
    down = -(-len(maps) // across)
    gap = int(maps.shape[1] > 1)
    maps = np.pad(maps, ((0, across * down - len(maps)), (0, gap), (0, gap)), constant_values=np.nan)
    _, rows, columns = maps.shape
    tiled = maps.reshape(down, across, rows, columns).transpose(0, 2, 1, 3).reshape(down * rows, across * columns)
    return tiled[: down * rows - gap, : across * columns - gap]


def draw_activations(model: keras.Model, image: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draws an image's way through a network: its feature maps, column by column, and the most probable classes.

    Args:
        model: from `model.build_alexnet`, with a softmax.
        image: uint8 (side, side, 3), as `preprocess` returns.
        class_names: names in the order of the labels.

    Returns: uint8 (rows, columns, 3). Feature maps are those after the nonlinearity, a layer's on one scale: black is 0
    or less, white the largest 0.1 %, and the color goes with the root, for weak activations to be seen.

    Source: figure 2.
    """
    layers = weighted_layers(model)
    outputs = activations(model, image[None], [name for _, name in layers])
    columns = num_columns(model)
    heights = [(_BOX + 1.0) * (columns - 1 - column) for column in range(columns)]
    middle = sum(heights) / columns
    width, height = _STEP * len(layers) + _BOX + 0.2, heights[0] + _BOX + 1.2
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(-_BOX / 2 - 0.1, width - _BOX / 2 - 0.1), ylim=(-_BOX / 2 - 0.2, heights[0] + _BOX / 2 + 1.0))
    _draw_box(axes, image, 0, middle, f"image: {image.shape[0]} x {image.shape[1]}")
    below = [middle]
    for position, (layer, name) in enumerate(layers, 1):
        x, arrays = _STEP * position, [array[0] for array in outputs[name]]
        here = heights if len(arrays) > 1 else [middle]
        connected = getattr(layer, "input_columns", "own") == "all"
        for index, y in enumerate(here):
            for other, from_y in enumerate(below):
                if connected or len(below) == 1 or len(here) == 1 or other == index:
                    start, end = (x - _STEP + _BOX / 2, from_y), (x - _BOX / 2, y)
                    architecture.draw_arrow(axes, start, end, between_columns=len(below) > 1 and other != index, lw=2)
        if position < len(layers):
            largest = max(np.percentile(array, 99.9) for array in arrays)
            for array, y in zip(arrays, here, strict=True):
                size = " x ".join(map(str, array.shape)) if array.ndim > 1 else f"{len(array)} units"
                _draw_box(axes, mosaic(array), x, y, f"{layer.name}: {size}", float(largest))
        else:
            best = np.argsort(-arrays[0], kind="stable")[:5]
            axes.text(x, middle + _BOX / 4 + 0.1, layer.name, ha="center", va="bottom", fontsize=17)
            bars = axes.inset_axes((x - _BOX / 2, middle - _BOX / 4, _BOX, _BOX / 2), transform=axes.transData)
            image_grids.draw_bars(bars, [class_names[int(index)] for index in best], arrays[0][best], fontsize=15)
        below = here
    for index, y in enumerate(heights if columns > 1 else ()):
        axes.text(_STEP - _BOX / 2, y + _BOX / 2 + 0.5, f"column {index + 1}", fontsize=20, weight="bold")
    return plots.pixels_of(figure)


def _draw_box(axes: Axes, pixels: np.ndarray, x: float, y: float, title: str, largest: float | None = None) -> None:
    """Draws a picture, or a mosaic of activations from 0 to `largest`, in a square box with a title above it."""
    rows, columns = pixels.shape[:2]
    half_height, half_width = (_BOX / 2 * side / max(rows, columns) for side in (rows, columns))
    axes.imshow(
        pixels,
        extent=(x - half_width, x + half_width, y - half_height, y + half_height),
        cmap="inferno",
        norm=PowerNorm(0.5, vmin=0, vmax=largest or 1.0, clip=True),
        interpolation="nearest" if max(rows, columns) < 100 * _BOX else "antialiased",
        aspect="auto",
    )
    axes.text(x, y + half_height + 0.08, title, ha="center", va="bottom", fontsize=17)
