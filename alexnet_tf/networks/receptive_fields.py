"""The pixels that a unit of a network depends on."""

from __future__ import annotations

from typing import NamedTuple

import keras

from alexnet_tf import layers
from alexnet_tf.networks import structure


class Window(NamedTuple):
    """The positions, along either side of a layer's input or of the image, that a unit of a feature map depends on.

    The unit at position p depends on `size` positions from `start` + p * `step` on; some of them may lie outside.
    """

    size: int
    step: int
    start: int


def receptive_field(model: keras.Model, name: str) -> Window:
    """The pixels that a unit of a layer depends on: the whole image for a fully-connected layer.

    Raises:
        ValueError: if there is no such layer.
    """
    structure.check_layers(model, [name])
    size, step, start = 1, 1, 0
    for layer in structure.network_layers(model):
        if len(_first(layer.output).shape) != 4:
            return Window(model.input_shape[1], 1, 0)
        window = input_window(layer)
        start += window.start * step
        size += (window.size - 1) * step
        step *= window.step
        if layer.name == name:
            break
    return Window(size, step, start)


def input_window(layer: keras.layers.Layer) -> Window:
    """The inputs of a layer's unit; one position for layers that are neither convolutions nor poolings."""
    inner = structure.column_layer(layer)
    if isinstance(inner, layers.GroupedConv2D | layers.LocallyConnected2D):
        size, stride = inner.kernel_size, inner.strides
    elif isinstance(inner, keras.layers.MaxPooling2D | keras.layers.Conv2D):
        size = (inner.pool_size if isinstance(inner, keras.layers.MaxPooling2D) else inner.kernel_size)[0]
        stride = inner.strides[0]
    else:
        return Window(1, 1, 0)
    if inner.padding == "same":
        side = _first(layer.input).shape[1] or stride  # unknown: as for multiples of the stride
        return Window(size, stride, -(max((-(-side // stride) - 1) * stride + size - side, 0) // 2))
    return Window(size, stride, 0 if inner.padding == "valid" else -int(inner.padding[0][0]))


def _first(tensors):
    """The tensor, or that of the first column."""
    return tensors[0] if isinstance(tensors, list) else tensors
