"""The images of a data set that activate the feature maps of a layer most."""

import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from alexnet_tf.figures import image_grids
from alexnet_tf.layers import ColumnWise, GroupedConv2D
from alexnet_tf.model import layer_output
from alexnet_tf.tfrecords import crops, reader, schema, verify

_FLAT = 8  # gray levels that an area of one color varies by, for JPEG's sake


def receptive_field(model: keras.Model, layer: str) -> tuple[int, int, int]:
    """The pixels that a unit of a layer depends on.

    Args:
        model: from `model.build_alexnet`.
        layer: name of one of its layers.

    Returns:
        (size, step, start): the unit in row r and column c of a feature map depends on `size` x `size` pixels, the
        first of them in row `start` + r * `step` and column `start` + c * `step`; some may lie outside the image. A
        unit of a fully-connected layer depends on all.

    Raises:
        ValueError: if the model has no such layer.
    """
    names = [each.name for each in model.layers]
    if layer not in names:
        raise ValueError(f"`layer` must be one of {', '.join(names)}. Received: layer={layer!r}")
    size, step, start = 1, 1, 0
    for each in model.layers[1 : names.index(layer) + 1]:
        inputs, outputs = (x[0] if isinstance(x, list) else x for x in (each.input, each.output))  # of one column
        if len(outputs.shape) != 4:
            return model.input_shape[1], 1, 0
        each = each.layer if isinstance(each, ColumnWise) else each
        if isinstance(each, GroupedConv2D):
            window, stride = each.kernel_size, each.strides
        elif isinstance(each, keras.layers.MaxPooling2D):
            window, stride = each.pool_size[0], each.strides[0]
        else:
            continue
        if each.padding == "same":
            side = inputs.shape[1]
            zeros_before = max((-(-side // stride) - 1) * stride + window - side, 0) // 2
        else:
            zeros_before = 0 if each.padding == "valid" else int(each.padding[0][0])
        start -= zeros_before * step
        size += (window - 1) * step
        step *= stride
    return size, step, start


def find_top_activations(
    model: keras.Model,
    layer: str,
    feature_maps: Sequence[int] | np.ndarray,
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    count: int,
    batch_size: int = 128,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Finds the images of a split that activate feature maps most, and where in each of them.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layer: name of one of its layers.
        feature_maps: indices of its feature maps, or of its units if it is fully-connected.
        data_dir, description, split: of the images, as in `reader.make_evaluation_dataset`.
        count: number of images for each feature map.
        batch_size: images in a batch.

    Returns:
        (indices, values, rows, columns): arrays (feature maps, count), the largest activation first: an image's index
        in the split, the largest activation in its feature map, and the row and column of that unit (0, 0 in a
        fully-connected layer).

    Raises:
        ValueError: if the layer or a feature map does not exist, or the split has fewer images.
    """
    receptive_field(model, layer)  # raises if there is no such layer
    output = layer_output(model, layer)
    images = description.splits[split].count
    if not 1 <= count <= images:
        raise ValueError(f"`count` must be from 1 to the number of images, {images}. Received: count={count}")
    if not all(0 <= index < output.shape[-1] for index in feature_maps):
        raise ValueError(
            f"`feature_maps` must be from 0 to {output.shape[-1] - 1}. Received: feature_maps={list(feature_maps)}"
        )
    output_columns = output.shape[2] if len(output.shape) == 4 else 1
    chosen = keras.ops.take(output, np.array(feature_maps), axis=-1)
    flat = keras.ops.reshape(chosen, (-1, int(np.prod(output.shape[1:-1])), len(feature_maps)))
    peaks = keras.Model(model.input, [keras.ops.max(flat, axis=1), keras.ops.argmax(flat, axis=1)])
    dataset = reader.make_evaluation_dataset(
        data_dir, batch_size, model.input_shape[1], description=description, split=split
    )
    with verify.naming_damaged_shards(data_dir, description):
        values, positions = peaks.predict(dataset.map(lambda images, _: images))
    indices = np.argsort(-values, axis=0, kind="stable")[:count]
    values, positions = (np.take_along_axis(array, indices, axis=0).T for array in (values, positions))
    return indices.T, values, positions // output_columns, positions % output_columns


def crop_receptive_field(image: np.ndarray, field: tuple[int, int, int], row: int, column: int) -> np.ndarray:
    """Crops an image to the receptive field of a unit, with gray beyond the image's edges.

    Args:
        image: uint8 (side, side, 3), the network's input.
        field: what `receptive_field` returns.
        row, column: the unit's position in its feature map.

    Returns: uint8 (size, size, 3).
    """
    size, step, start = field
    padded = np.pad(image, ((size, size), (size, size), (0, 0)), constant_values=128)
    top, left = (size + start + position * step for position in (row, column))
    return padded[top : top + size, left : left + size]


def _is_flat(image: np.ndarray, field: tuple[int, int, int], row: int, column: int) -> bool:
    """Whether the part of a receptive field that is inside the image has one color."""
    size, step, start = field
    top, left = (start + position * step for position in (row, column))
    inside = image[max(top, 0) : top + size, max(left, 0) : left + size]
    return int(np.ptp(inside, axis=(0, 1)).max()) <= _FLAT


def draw_top_activations(
    model: keras.Model,
    layer: str,
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    num_feature_maps: int,
    count: int,
) -> np.ndarray:
    """Draws the receptive fields of the largest activations in feature maps spread evenly over a layer, a row each.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layer: name of one of its layers.
        data_dir, description, split: of the images.
        num_feature_maps: number of feature maps; all if the layer has fewer. Maps that are strongest on areas of one
            color, such as a black background, are skipped.
        count: number of images for each.

    Returns: uint8 (rows, columns, 3).

    Raises:
        ValueError: as `find_top_activations`.
    """
    field = receptive_field(model, layer)
    units = layer_output(model, layer).shape[-1]
    # Twice as many as are drawn: some may be strongest where there is nothing to see.
    candidates = np.unique(np.linspace(0, units - 1, 2 * num_feature_maps).round().astype(int))
    found = find_top_activations(model, layer, candidates, data_dir, description, split, count)
    indices, values, rows, columns = found
    side = model.input_shape[1]
    images = crops.center_crop(reader.read_images(data_dir, description, split, indices.ravel()), side)
    images = images.reshape(*indices.shape, side, side, 3)
    shown = [
        m
        for m in range(len(candidates))
        if sum(_is_flat(images[m, i], field, rows[m, i], columns[m, i]) for i in range(count)) <= count / 2
    ] or list(range(len(candidates)))
    shown = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, num_feature_maps).round().astype(int))]
    chosen, values = candidates[shown], values[shown]
    patches = [
        [crop_receptive_field(images[m, i], field, rows[m, i], columns[m, i]) for i in range(count)] for m in shown
    ]
    is_classifier = layer in (each.name for each in model.layers[-2:])  # fc8 and softmax: a unit for each class
    titles = [description.class_names[index] if is_classifier else f"feature map {index}" for index in chosen]
    names = [f"{layer}\n{title}\n{value:.3g}" for title, value in zip(titles, values[:, 0], strict=True)]
    return image_grids.patch_rows(patches, names)
