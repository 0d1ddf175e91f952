"""Makes the Keras layer of each row of a variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from alexnet_tf.layers import (
    ColumnDense,
    ColumnWise,
    GroupedConv2D,
    LocallyConnected2D,
    LocalResponseNormalization,
    PaperDropout,
    ReplicaDropout,
    WithinMapNormalization,
)
from alexnet_tf.networks import rows


def make_layer(
    shape: rows.LayerShape,
    num_columns: int,
    merged: bool,
    devices: Sequence[str] | None,
    initializer: str | keras.initializers.Initializer | None,
    initial_biases: float | None = None,
) -> keras.layers.Layer:
    """Makes the Keras layer of a row.

    Args:
        shape: the row and its shapes.
        num_columns: number of columns of the network.
        merged: whether a layer that is connected to every column is one layer for all columns.
        devices: None, or a device for each column; then each column is a separate tensor from conv1 to the classifier.
        initializer, initial_biases: see `model.build_alexnet`.
    """
    row = shape.row
    match row:
        case None:
            return keras.layers.Softmax(dtype=_output_dtype(), name=shape.name)
        case rows.Conv() | rows.Local() | rows.Dense():
            weights = _initial_weights(shape, initializer, initial_biases)
            return _make_layer_with_kernel(shape, num_columns, merged, devices, weights)
        case rows.Dropout(rescaled=True):
            return ReplicaDropout(row.rate, name=row.name)
        case rows.Dropout():
            return PaperDropout(row.rate, groups=num_columns, devices=devices, name=row.name)
        case rows.BatchNorm():
            return keras.layers.BatchNormalization(
                momentum=row.momentum, epsilon=row.epsilon, center=row.scaled, scale=row.scaled, name=row.name
            )
        case rows.LRN():
            groups = num_columns if row.input_columns == "own" and devices is None else 1
            constants = (row.k, row.n, row.alpha, row.beta, row.alpha_divided_by_n)
            layer = LocalResponseNormalization(*constants, groups=groups, name=row.name)
            if row.input_columns == "all":
                return layer
        case rows.WithinMapNorm():
            layer = WithinMapNormalization(row.k, row.n, row.alpha, row.beta, name=row.name)
        case rows.MaxPool():
            layer = keras.layers.MaxPooling2D(row.pool_size, row.strides, padding=row.padding, name=row.name)
        case rows.Activation(function="relu"):
            layer = keras.layers.ReLU(name=row.name)
        case rows.Activation():
            layer = keras.layers.Activation(row.function, name=row.name)
    return layer if devices is None else ColumnWise(layer, devices, name=row.name)


def _make_layer_with_kernel(shape, num_columns, merged, devices, weights) -> keras.layers.Layer:
    row = shape.row
    common = weights | {"input_columns": row.input_columns, "use_bias": row.bias is not None, "name": row.name}
    columns = {
        "groups": 1 if merged and row.input_columns == "all" else num_columns,
        "devices": devices,
        "output_per_group": devices is not None,
    }
    match row:
        case rows.Conv():
            return GroupedConv2D(row.filters, row.kernel_size, row.strides, row.padding, **columns, **common)
        case rows.Local():
            return LocallyConnected2D(row.filters, row.kernel_size, **common)
        case rows.Dense(units=None):  # the classifier has no columns; as in the original program, gpu=0 computes it
            classes, device = shape.output_shape[-1], devices and devices[:1]
            return ColumnDense(classes, groups=1, devices=device, dtype=_output_dtype(), **common)
        case _:
            return ColumnDense(row.units, **columns, **common)


def _output_dtype() -> str:
    """At least float32: the 8 bits of bfloat16 are too few for 1000 probabilities."""
    return keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")


def _initial_weights(shape, initializer, initial_biases) -> dict[str, Any]:
    """Returns the initializers of a layer with weights, as keyword arguments."""
    if initializer is not None:
        kernels, biases = initializer, "zeros"
    elif shape.row.std is None:
        limit = 1 / shape.fan_in**0.5
        kernels = biases = keras.initializers.RandomUniform(-limit, limit)
    else:
        kernels = keras.initializers.RandomNormal(stddev=shape.row.std)
        biases = keras.initializers.Constant(shape.row.bias or 0.0)
    if initial_biases is not None:
        biases = keras.initializers.Constant(initial_biases)
    return {"kernel_initializer": kernels, "bias_initializer": biases}
