"""What a Keras network consists of: its layers, columns and classifier.

Every function accepts networks from `build_alexnet`, with all columns in one tensor or each on its own device, and
models that contain such a network: `keras.Sequential([base, keras.layers.Dense(10)])`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from alexnet_tf import layers
from alexnet_tf.networks import rows

_ACTIVATIONS = (keras.layers.ReLU, keras.layers.Activation, keras.layers.Softmax)
# Layers that compute each channel from the channels of its own column: what follows a column belongs to it.
_KEEP_COLUMNS = (
    *_ACTIVATIONS,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling2D,
    layers.ColumnWise,
    layers.LocalResponseNormalization,
    layers.PaperDropout,
    layers.ReplicaDropout,
    layers.WithinMapNormalization,
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A layer with a kernel, and how figure 2 draws it: once for each column.

    Attributes:
        layer: the convolutional or fully-connected layer.
        activation: name of the layer whose output is its activations: the last nonlinearity above it (the classifier's
            softmax), or the layer itself if there is none.
        columns: number of columns that the layer is split into; 1 for the classifier.
        connections: pairs (index of a column of the stage below, 0 for the image; index of a column of this stage).
    """

    layer: keras.layers.Layer
    activation: str
    columns: int
    connections: list[tuple[int, int]]

    @property
    def joins_columns(self) -> bool:
        """Whether the layer has inputs from several columns."""
        return len({below for below, _ in self.connections}) > 1 and any(a != b for a, b in self.connections)


def flatten(model: keras.Model) -> keras.Model:
    """Replaces nested models by their layers.

    Returns: a functional model with the same layers and weights; `model` itself if it has no nested models.
    """
    sequential = isinstance(model, keras.Sequential)
    if not sequential and not _nested_models(model):
        return model

    def call(layer, *args, **kwargs):
        return layer.call(*args, **kwargs) if isinstance(layer, keras.Model) else layer(*args, **kwargs)

    ends = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    flat: Any = keras.Model(*ends, name=model.name)
    while _nested_models(flat):
        flat = keras.models.clone_model(flat, clone_function=lambda layer: layer, call_function=call)
    return flat


def _nested_models(model):
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def network_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers in the order of computation, those of nested models included, without input layers."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += network_layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            found.append(layer)
    return found


def mean_image(model: keras.Model) -> layers.MeanImage:
    """The layer that subtracts the mean image.

    Raises:
        ValueError: if there is none: the model is not a network of this project.
    """
    for layer in network_layers(model):
        if isinstance(layer, layers.MeanImage):
            return layer
    raise ValueError(f"{model.name} is not a network of this project: it has no MeanImage layer.")


def has_kernel(layer: keras.layers.Layer) -> bool:
    """Whether a layer is convolutional or fully connected, this project's or Keras's."""
    return isinstance(layer, layers.ColumnLayer | keras.layers.Dense | keras.layers.Conv2D)


def merged_weights(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """The weights of a layer by name, such as "kernel" and "bias", with columns concatenated along the last axis."""
    return {
        name: np.concatenate([keras.ops.convert_to_numpy(variable) for variable in variables], axis=-1)
        for name, variables in column_variables(layer).items()
    }


def column_variables(layer: keras.layers.Layer) -> dict[str, list[keras.Variable]]:
    """The variables of a layer by name, a list with one variable for each column."""
    if isinstance(layer, layers.ColumnLayer):
        return {"kernel": layer.kernels} | ({"bias": layer.biases} if layer.biases else {})
    return {variable.name: [variable] for variable in layer.weights}


def output_shape(layer: keras.layers.Layer) -> tuple[int, ...]:
    """The shape of a layer's output for one image, all columns together."""
    outputs = layer.output if isinstance(layer.output, list) else [layer.output]
    return (*outputs[0].shape[1:-1], sum(output.shape[-1] for output in outputs))


def num_columns(model: keras.Model) -> int:
    """The number of columns: the paper's GPUs."""
    return max((layer.groups for layer in network_layers(model) if isinstance(layer, layers.ColumnLayer)), default=1)


def classifier(model: keras.Model) -> keras.layers.Layer | None:
    """The fully-connected layer with one unit for each class; None for a network without its top."""
    for layer in reversed(network_layers(model)):
        if has_kernel(layer):
            return layer if isinstance(layer, layers.ColumnDense | keras.layers.Dense) else None
        if not _is_softmax(layer):
            return None
    return None


def check_classifier(model: keras.Model) -> None:
    """Raises ValueError for a network without its top, such as published convolutions, which names no classes."""
    if classifier(model) is None:
        raise ValueError(
            f"The model must have a classifier. Received: {model.name}, whose output is {model.output_shape}"
        )


def class_layers(model: keras.Model) -> list[str]:
    """The names of the layers whose units are the classes: the classifier and the softmax above it, if any."""
    names, last = [layer.name for layer in network_layers(model)], classifier(model)
    return [] if last is None else names[names.index(last.name) :]


def last_hidden_layer(model: keras.Model) -> str:
    """The name of the layer below the classifier, without dropout: relu7 in the paper's network.

    Raises:
        ValueError: if the network has no classifier.
    """
    check_classifier(model)
    dropouts = (layers.PaperDropout, layers.ReplicaDropout, keras.layers.Dropout)
    names = class_layers(model)
    below = [each for each in network_layers(model) if each.name not in names and not isinstance(each, dropouts)]
    return below[-1].name


def last_features(model: keras.Model) -> str:
    """The name of the last hidden layer; of the last layer if the network has no classifier."""
    return network_layers(model)[-1].name if classifier(model) is None else last_hidden_layer(model)


def check_layers(model: keras.Model, names: Sequence[str]) -> None:
    """Raises ValueError unless all names are those of layers of the network."""
    known = [layer.name for layer in network_layers(model)]
    for name in names:
        if name not in known:
            raise ValueError(f"`layers` must be among {', '.join(known)}. Received: {name!r}")


def features(model: keras.Model, names: Sequence[str], output: str | None = None) -> keras.Model:
    """Makes a model that returns the outputs of layers, and shares the weights of `model`.

    Args:
        model: a network.
        names: names of its layers, also of those in nested models.
        output: None, or the name under which the model's own output is returned as well.

    Returns: a functional model from the network's input to a dict with the output of each layer as one tensor: the
        outputs of columns on devices of their own are concatenated.

    Raises:
        ValueError: if there is no such layer.

    Example:

    >>> model = alexnet_tf.build_alexnet("testing", 10)
    >>> extractor = alexnet_tf.features(model, ["conv1", "relu7"])
    >>> outputs = extractor.predict(np.zeros((2, 56, 56, 3), "uint8"), verbose=0)
    >>> outputs["relu7"].shape
    (2, 32)
    """
    check_layers(model, names)
    flat, outputs = flatten(model), {}

    def call(layer, *args, **kwargs):
        outputs[layer.name] = output = layer(*args, **kwargs)
        return output

    # Called again: `layer.output` is the layer's first output, which may be in another model that shares the layer.
    traced: Any = keras.models.clone_model(
        keras.Model(flat.input, flat.output), clone_function=lambda layer: layer, call_function=call
    )
    for name in names:
        if isinstance(outputs[name], list):
            outputs[name] = keras.layers.Concatenate()(outputs[name])
    returned = {name: outputs[name] for name in names}
    return keras.Model(traced.input, returned | {output: traced.output} if output else returned)


def output_columns(model: keras.Model) -> dict[str, int]:
    """The number of columns among which the output channels of each layer are split, by the layers' names.

    It is 1 for the image with its mean subtracted, for the classifier and its softmax, and for a user's own layers.
    """
    columns, top, split, result = num_columns(model), set(class_layers(model)), False, {}
    for layer in network_layers(model):
        if isinstance(layer, layers.ColumnLayer):
            split = True
        elif not isinstance(layer, _KEEP_COLUMNS):
            split = False
        result[layer.name] = columns if split and layer.name not in top else 1
    return result


def stages(model: keras.Model) -> list[Stage]:
    """The layers with kernels, from the image to the classifier, and how figure 2 lays them out.

    Source: figure 2.
    """
    columns, found = output_columns(model), []
    below = 1
    for layer in network_layers(model):
        if has_kernel(layer):
            here = columns[layer.name]
            connected = rows.connections(below, here, getattr(layer, "input_columns", "all"))
            found.append(Stage(layer, layer.name, here, connected))
            below = here
        elif found and isinstance(column_layer(layer), _ACTIVATIONS):
            found[-1] = dataclasses.replace(found[-1], activation=layer.name)
    return found


def column_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer that is applied to each column, or the layer itself."""
    return layer.layer if isinstance(layer, layers.ColumnWise) else layer


def _is_softmax(layer: keras.layers.Layer) -> bool:
    softmax = isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax
    return softmax or isinstance(layer, keras.layers.Softmax)
