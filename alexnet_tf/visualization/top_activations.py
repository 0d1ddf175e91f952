"""What the maps of a layer answer to: the images of a data set that excite each of them most."""

import keras
import numpy as np

from alexnet_tf.layers import ColumnWise, GroupedConv2D
from alexnet_tf.model import layer_output
from alexnet_tf.tfrecords import reader, verify


def receptive_field(model, layer):
    """Which pixels a unit of a layer sees.

    Args:
        model: from `model.build_alexnet`.
        layer: name of one of its layers.

    Returns:
        (size, step, start): the unit in row r and column c of a map sees `size` x `size` pixels, the first of them in
        row `start` + r * `step` and column `start` + c * `step`; some may lie outside of the image. A unit of a
        fully-connected layer sees all.

    Raises:
        ValueError: where the model has no such layer.
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
            zeros_before = 0 if each.padding == "valid" else each.padding[0][0]
        start -= zeros_before * step
        size += (window - 1) * step
        step *= stride
    return size, step, start


def strongest(model, layer, maps, data_dir, description, split, count, batch_size=128):
    """Where in a split some maps of a layer are excited most: for each the images, and the place in each of them.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layer: name of one of its layers.
        maps: numbers of its maps, or of its units where it is fully-connected.
        data_dir, description, split: of the images, as `reader.make_evaluation_dataset` takes them.
        count: how many images for each map.
        batch_size: images in a batch.

    Returns:
        (numbers, values, rows, columns): arrays (maps, count), the strongest first: an image's number in the split,
        what the map's strongest unit gives there, and the unit's place in the map (0, 0 in a fully-connected layer).

    Raises:
        ValueError: where the layer or a map does not exist, or the split has fewer images.
    """
    receptive_field(model, layer)  # says what is wrong with the layer's name
    output = layer_output(model, layer)
    images = description.splits[split].count
    if not 1 <= count <= images:
        raise ValueError(f"`count` must be from 1 to the number of images, {images}. Received: count={count}")
    if not all(0 <= number < output.shape[-1] for number in maps):
        raise ValueError(f"`maps` must be from 0 to {output.shape[-1] - 1}. Received: maps={list(maps)}")
    map_columns = output.shape[2] if len(output.shape) == 4 else 1
    chosen = keras.ops.take(output, np.array(maps), axis=-1)
    flat = keras.ops.reshape(chosen, (-1, int(np.prod(output.shape[1:-1])), len(maps)))
    peaks = keras.Model(model.input, [keras.ops.max(flat, axis=1), keras.ops.argmax(flat, axis=1)])
    dataset = reader.make_evaluation_dataset(
        data_dir, batch_size, model.input_shape[1], description=description, split=split
    )
    with verify.naming_damaged_shards(data_dir, description):
        values, places = peaks.predict(dataset.map(lambda images, _: images))
    numbers = np.argsort(-values, axis=0, kind="stable")[:count]
    values, places = (np.take_along_axis(array, numbers, axis=0).T for array in (values, places))
    return numbers.T, values, places // map_columns, places % map_columns


def seen_pixels(image, field, row, column):
    """The pixels that a unit sees of an image, and grey where it looks past the edge.

    Args:
        image: uint8 (side, side, 3), the network's input.
        field: what `receptive_field` returns.
        row, column: the unit's place in its map.

    Returns: uint8 (size, size, 3).
    """
    size, step, start = field
    padded = np.pad(image, ((size, size), (size, size), (0, 0)), constant_values=128)
    top, left = (size + start + place * step for place in (row, column))
    return padded[top : top + size, left : left + size]
