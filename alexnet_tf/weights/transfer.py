"""Copies weights between networks, and from other programs' files into networks."""

from __future__ import annotations

import collections.abc

import keras
import numpy as np
from absl import logging

from alexnet_tf import layers
from alexnet_tf.networks import structure
from alexnet_tf.networks.structure import column_variables, merged_weights
from alexnet_tf.weights.pretrained_files import PretrainedWeights


def copy_weights(
    source: keras.Model,
    target: keras.Model,
    new_head: bool = False,
    names: collections.abc.Sequence[str] = (),
) -> None:
    """Copies the weights of a model into another, so that both compute the same function.

    The columns may be merged in one and split in the other. Differences outside of the weights are folded into them:
    another input scale into conv1, dropout's factor (at test time or in training) into the layer above it.

    Args:
        source, target: from `model.build_alexnet`.
        new_head: whether the classifier keeps its own initial weights, and with a source without its top all
            fully-connected layers.
        names: the layers to copy, if not all.

    Raises:
        ValueError: if a layer of the target is missing in the source, has other shapes, or weights that are not finite.
    """
    weights = {layer.name: merged_weights(layer) for layer in source.layers if layer.weights}
    for name, values in weights.items():
        if "kernel" in values and name in {layer.name for layer in target.layers}:
            values["kernel"] = values["kernel"] * (_dropout_factor(source, name) / _dropout_factor(target, name))
    _set_weights(target, weights, structure.mean_image(source).scale, new_head, names)


def has_other_classes(units: int | None, target: keras.Model) -> bool:
    """Tells whether weights are for another number of classes than a network, and warns if so: it keeps its own head.

    Args:
        units: number of classes of the weights; None if they have no classifier.
        target: from `model.build_alexnet`.
    """
    head = structure.classifier(target)
    if units is None or head is None or units == head.units:
        return False
    logging.warning(
        "The weights have %d classes, the network has %d: %s keeps its initial weights, all other layers are loaded.",
        *(units, head.units, head.name),
    )
    return True


def load_pretrained(network: PretrainedWeights, target: keras.Model, new_head: bool = False) -> None:
    """Copies weights that were read from another program's file into a model.

    Args:
        network: from `pretrained_files.read_pretrained`.
        target: from `model.build_alexnet`, with merged or split columns.
        new_head: whether the classifier keeps its own initial weights.

    Raises:
        ValueError: if a layer is missing, its shapes are not the target's, or its weights are not finite.
    """
    weights = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in network.weights.items()}
    weights["mean_image"] = {"mean": np.asarray(network.mean_color, "float32").reshape(1, 1, 3)}
    first_dense = next((layer for layer in target.layers if isinstance(layer, layers.ColumnDense)), None)
    values = weights.get(first_dense.name) if first_dense else None
    if network.maps_first and values:
        _check_shape(first_dense, "kernel", values["kernel"].shape)
        below = target.layers[target.layers.index(first_dense) - 1]
        height, width, maps = structure.output_shape(below)
        kernel = values["kernel"].reshape(maps, height, width, -1).transpose(1, 2, 0, 3)
        values["kernel"] = kernel.reshape(height * width * maps, -1)
    _set_weights(target, weights, network.input_scale, new_head)


def _set_weights(target: keras.Model, weights: dict, input_scale, new_head: bool, names=()) -> None:
    """Sets weights by the names of their layers, each as `merged_weights` returns it."""
    *below, head = [layer for layer in target.layers if layer.weights]
    if new_head and not any("kernel" in values and values["kernel"].ndim == 2 for values in weights.values()):
        below = [layer for layer in below if not isinstance(layer, layers.ColumnDense)]
    copied = below if new_head else [*below, head]
    if names:
        structure.check_layers(target, names)
        copied = [layer for layer in copied if layer.name in names]
    ratio = np.ones(3) * input_scale / structure.mean_image(target).scale
    first = next(layer for layer in target.layers if structure.has_kernel(layer))
    for layer in copied:
        if layer.name not in weights:
            hint = " Convolutions alone need `include_top=False`." if isinstance(layer, layers.ColumnDense) else ""
            raise ValueError(f"{layer.name} is missing. There are {', '.join(sorted(weights))}.{hint}")
        values, expected = dict(weights[layer.name]), merged_weights(layer)
        if values.keys() != expected.keys():
            raise ValueError(f"{layer.name} must have {sorted(expected)}. Received: {sorted(values)}")
        is_mean_image = isinstance(layer, layers.MeanImage)
        for name, value in values.items():
            if not is_mean_image:
                _check_shape(layer, name, value.shape)
            if not np.all(np.isfinite(value)):
                raise ValueError(f"{layer.name}'s {name} must be finite. Received: NaN or infinity")
        if is_mean_image:
            layer.set_mean_image(values["mean"])  # which may have another size
            continue
        if layer is first:
            values["kernel"] = values["kernel"] * ratio.astype("float32")[:, None]
        for name, variables in column_variables(layer).items():
            for variable, part in zip(variables, np.split(values[name], len(variables), axis=-1), strict=True):
                variable.assign(part)


def _check_shape(layer, name, shape):
    expected = merged_weights(layer)[name].shape
    if tuple(shape) != expected:
        raise ValueError(f"{layer.name}'s {name} must be of shape {expected}. Received: {tuple(shape)}")


def _dropout_factor(network, name):
    """The factor of a layer's inputs at test time."""
    before = None
    for layer in network.layers:
        if layer.name == name:
            break
        if layer.weights:
            before = None
        elif isinstance(layer, layers.PaperDropout):
            before = layer
    return 1.0 if before is None else 1.0 - before.rate
