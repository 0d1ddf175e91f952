"""Reads the weights of an AlexNet's ONNX graph. Needs the package onnx."""

import pathlib
from typing import Any

import numpy as np

_NAMES = {"Conv": ("conv1", "conv2", "conv3", "conv4", "conv5"), "Gemm": ("fc6", "fc7", "fc8")}


def read_onnx(path: str | pathlib.Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], bool | None]:
    """Reads a graph of five convolutions and three fully-connected layers, such as the model zoo's bvlcalexnet.

    Returns: (layers, pools_first): conv1 to fc8 to (weights, biases), float32: (kernels, channels, rows, columns), or
    (units, inputs); and whether each normalization follows a pooling, None without any.

    Raises:
        ValueError: if the file is damaged, keeps its weights elsewhere, or is a graph of another kind.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"onnx is needed to read {path}: pip install 'alexnet-tf[pretrained]'") from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
        arrays = _constants(graph, onnx)
    except Exception as error:  # a damaged file raises one of half a dozen kinds
        raise ValueError(f"{path} is not a complete ONNX graph with its weights: {error}") from error
    layers = {}
    kinds = {output: node.op_type for node in graph.node for output in node.output}
    for kind, names in _NAMES.items():
        nodes = [node for node in graph.node if node.op_type == kind]
        if len(nodes) != len(names) or any(len(node.input) != 3 for node in nodes):
            raise ValueError(f"{path} must hold {len(names)} {kind} nodes with biases. Received: {len(nodes)}")
        for name, node in zip(names, nodes, strict=True):
            missing = [each for each in node.input[1:] if each not in arrays]
            if missing:
                raise ValueError(f"{path} must hold the weights of {name}. {missing[0]} is computed or missing.")
            kernel, bias = (np.asarray(arrays[each], "float32") for each in node.input[1:])
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            layers[name] = (kernel.T if kind == "Gemm" and not transposed else kernel, bias.reshape(-1))
    normalized = [kinds.get(node.input[0]) == "MaxPool" for node in graph.node if node.op_type == "LRN"]
    if len(set(normalized)) > 1:
        raise ValueError(f"{path} must normalize before each pooling (caffe) or after each (caffenet). It does both.")
    return layers, normalized[0] if normalized else None


def _constants(graph: Any, onnx: Any) -> dict[str, np.ndarray]:
    """All arrays that are in the graph."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        values = [onnx.numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value"]
        if node.op_type == "Constant" and values:
            arrays[node.output[0]] = values[0]
        elif node.op_type == "ConstantOfShape" and node.input[0] in arrays:
            value = values[0].reshape(-1)[0] if values else np.float32(0)
            arrays[node.output[0]] = np.broadcast_to(value, tuple(arrays[node.input[0]]))  # takes no memory yet
    return arrays
