"""Moves weights between a Keras network and its PyTorch reference."""

import keras
import numpy as np
import torch
from torch_reference import Local


def torch_parameters(model, network):
    """Yields, for each variable of the Keras model that learns, (variable, the PyTorch parameter that it is part of,
    a function from an array of the parameter's shape to one of the variable's)."""
    for layer in model.layers:
        theirs = getattr(network, layer.name, None)
        if isinstance(layer, keras.layers.BatchNormalization):
            if layer.gamma is None:
                continue
            yield layer.gamma, theirs.weight, lambda array: array
            yield layer.beta, theirs.bias, lambda array: array
        elif isinstance(theirs, Local):
            maps = layer.input.shape[-1]
            yield layer.kernels[0], theirs.weight, lambda array, maps=maps: local_kernel(array, maps)
            yield layer.biases[0], theirs.bias, lambda array: array.T.reshape(-1)
        elif hasattr(layer, "kernels"):
            for column, kernel in enumerate(layer.kernels):
                own = theirs[column] if isinstance(theirs, torch.nn.ModuleList) else theirs
                parts, part = (1, 0) if own is not theirs else (len(layer.kernels), column)
                yield kernel, own.weight, kernel_part(layer, parts, part)
                if layer.biases:
                    yield layer.biases[column], own.bias, lambda array, ps=parts, p=part: np.split(array, ps)[p]


def copy_to_torch(model, network):
    """Copies the weights of a Keras model to the PyTorch network."""
    with torch.no_grad():
        for variable, parameter, convert in torch_parameters(model, network):
            # `convert` maps their layout to ours. Applied to indices, it gives where each of our values is in theirs.
            indices = convert(np.arange(parameter.numel()).reshape(parameter.shape)).reshape(-1)
            parameter.view(-1)[torch.tensor(indices)] = torch.tensor(variable.numpy().reshape(-1))


def local_kernel(array, maps):
    """From (maps * 9, filters, positions) to (9 * maps, positions * filters)."""
    array = array.reshape(maps, 9, *array.shape[1:]).transpose(1, 0, 3, 2)
    return array.reshape(9 * maps, -1)


def kernel_part(layer, parts, part):
    """From PyTorch's kernels, (kernels, channels, rows, columns) or (units, inputs), to a column's here."""

    def convert(array):
        array = np.split(array, parts)[part]
        if array.ndim == 4:
            return array.transpose(2, 3, 1, 0)
        if len(layer.input.shape) == 4:  # PyTorch flattens maps first
            _, rows, columns, maps = layer.input.shape
            maps //= layer.groups if layer.input_columns == "own" else 1
            return array.reshape(-1, maps, rows, columns).transpose(2, 3, 1, 0).reshape(array.shape[::-1])
        return array.T

    return convert
