"""Reads the weights and settings of an AlexNet from an ONNX graph. Requires the package onnx."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from alexnet_tf.weights.caffe_files import Settings

_NAMES = {"Conv": ("conv1", "conv2", "conv3", "conv4", "conv5"), "Gemm": ("fc6", "fc7", "fc8")}
_ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu")


def read_onnx(
    path: str | pathlib.Path,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[Settings], int | None]:
    """Reads a graph of five convolutions and three fully-connected layers, such as the model zoo's bvlcalexnet.

    Returns: (layers, settings, image_px): conv1 to fc8 to (weights, biases), with weights of shape (kernels, channels,
    height, width) or (units, inputs); the settings of the layers, as `caffe_files.read_caffemodel` returns them; and
    the side of the images, None if the graph does not say.

    Raises:
        ValueError: if the file is damaged, has its weights in other files, or holds another graph.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"onnx is needed to read {path}: pip install --editable '.[pretrained]'") from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
        arrays = _constants(graph, onnx)
    except Exception as error:  # a damaged file raises one of half a dozen classes
        raise ValueError(f"{path} is not a complete ONNX graph with its weights: {error}") from error
    layers, names_of_outputs = {}, {}
    for kind, names in _NAMES.items():
        nodes = [node for node in graph.node if node.op_type == kind]
        if len(nodes) != len(names) or any(len(node.input) != 3 for node in nodes):
            raise ValueError(f"{path} must hold {len(names)} {kind} nodes with biases. Received: {len(nodes)}")
        for name, node in zip(names, nodes, strict=True):
            missing = [each for each in node.input[1:] if each not in arrays]
            if missing:
                raise ValueError(f"{path} must hold the weights of {name}. {missing[0]} is computed or missing.")
            kernel, bias = (arrays[each] for each in node.input[1:])
            is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            kernel = kernel.T if kind == "Gemm" and not is_transposed else kernel
            layers[name] = (kernel, bias.reshape(-1))
            names_of_outputs[node.output[0]] = name
    return layers, list(_read_settings(graph, names_of_outputs, onnx)), _image_px(graph, arrays)


def _constants(graph: Any, onnx: Any) -> dict[str, np.ndarray]:
    """Returns all arrays in the graph by name."""

    def to_array(tensor):
        # `onnx.numpy_helper` would read another file, relative to the current directory.
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"the weights {tensor.name:.100} are in another file: save the graph with its weights")
        return onnx.numpy_helper.to_array(tensor)

    arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        values = [to_array(each.t) for each in node.attribute if each.name == "value"]
        if node.op_type == "Constant" and values:
            arrays[node.output[0]] = values[0]
        elif node.op_type == "ConstantOfShape" and node.input[0] in arrays:
            value = values[0].reshape(-1)[0] if values else np.float32(0)
            arrays[node.output[0]] = np.broadcast_to(value, tuple(arrays[node.input[0]]))  # takes no memory
    return arrays


def _read_settings(graph: Any, names: dict[str, str], onnx: Any) -> Iterator[Settings]:
    """Yields the settings of convolutions, normalizations, poolings and nonlinearities, by the names in rows.py."""
    for node in graph.node:
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        name = names.get(node.output[0]) or node.name or f"{node.op_type} {node.output[0]}"
        window = {"strides": set(given.get("strides", [1])), "padding": set(given.get("pads", [0]))}
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            window["padding"] = {np.nan}
        match node.op_type:
            case "Conv":
                yield "Conv", name, window
            case "MaxPool" | "AveragePool" if set(given["kernel_shape"]) != {1}:
                size = {"pool_size": set(given["kernel_shape"])}
                yield "MaxPool", name, size | window | {"function": {float(node.op_type == "AveragePool")}}
            case "LRN":
                numbers = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0} | given
                sizes = {"n": {numbers["size"]}, "k": {numbers["bias"]}}
                yield "LRN", name, sizes | {each: {numbers[each]} for each in ("alpha", "beta")}
            case kind if kind in _ACTIVATIONS:
                yield "Activation", name, {"function": {kind.lower()}}


def _image_px(graph: Any, arrays: dict[str, np.ndarray]) -> int | None:
    """Returns the side of the images, by the shape of the graph's input."""
    for value in graph.input:
        sides = [each.dim_value for each in value.type.tensor_type.shape.dim][2:]
        if value.name not in arrays and len(sides) == 2 and sides[0] == sides[1] > 0:
            return sides[0]
    return None
