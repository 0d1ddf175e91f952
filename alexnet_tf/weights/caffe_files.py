"""Reads Caffe's files, and NumPy dictionaries made from them, without Caffe."""

import mmap
import pathlib
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from alexnet_tf.weights.restricted_pickle import NumpyUnpickler, UnpickledArray, number_array

_CONVOLUTION, _LRN, _POOLING = 4, 15, 17  # V1LayerParameter.LayerType in src/caffe/proto/caffe.proto
_ACTIVATIONS = {"ReLU": "relu", 18: "relu", "TanH": "tanh", 23: "tanh", "Sigmoid": "sigmoid", 19: "sigmoid"}

Settings = tuple[str, str, dict[str, set[Any]]]  # the kind and name of a layer, and the values of its settings

# For each kind of row: Caffe's types, Caffe's message, and for each setting in rows.py Caffe's name and default.
_SETTINGS: dict[str, tuple[tuple[str | int, ...], str, dict[str, tuple[str, float]]]] = {
    "Conv": (("Convolution", _CONVOLUTION), "convolution_param", {"strides": ("stride", 1), "padding": ("pad", 0)}),
    "LRN": (
        ("LRN", _LRN),
        "lrn_param",
        {
            "n": ("local_size", 5),
            "alpha": ("alpha", 1),
            "beta": ("beta", 0.75),
            "k": ("k", 1),
            "region": ("norm_region", 0),
        },
    ),
    "MaxPool": (
        ("Pooling", _POOLING),
        "pooling_param",
        {"pool_size": ("kernel_size", 0), "strides": ("stride", 1), "padding": ("pad", 0), "function": ("pool", 0)},
    ),
}

# The needed part of src/caffe/proto/caffe.proto: the type, name and number of each field; repeated ones have a star.
_PROTO = {
    "BlobShape": "int64* dim 1",
    # Millions of packed numbers are bytes here, for NumPy to read.
    "BlobProto": "int32 num 1, int32 channels 2, int32 height 3, int32 width 4, bytes* data 5, BlobShape shape 7, "
    "bytes* double_data 8",
    "ConvolutionParameter": "int32* pad 3, int32* stride 6, int32 pad_h 9, int32 pad_w 10, int32 stride_h 13, "
    "int32 stride_w 14",
    "LRNParameter": "int32 local_size 1, float alpha 2, float beta 3, int32 norm_region 4, float k 5",
    "PoolingParameter": "int32 pool 1, int32 kernel_size 2, int32 stride 3, int32 pad 4, int32 kernel_size_h 5, "
    "int32 kernel_size_w 6, int32 stride_h 7, int32 stride_w 8",
    "LayerParameter": "string name 1, string type 2, BlobProto* blobs 7, "
    "ConvolutionParameter convolution_param 106, LRNParameter lrn_param 118, PoolingParameter pooling_param 121",
    "V1LayerParameter": "string name 4, int32 type 5, BlobProto* blobs 6, "
    "ConvolutionParameter convolution_param 10, LRNParameter lrn_param 18, PoolingParameter pooling_param 19",
    "NetParameter": "string name 1, V1LayerParameter* layers 2, LayerParameter* layer 100",
}


def read_caffemodel(path: str | pathlib.Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[Settings]]:
    """Reads a .caffemodel.

    Returns: (layers, settings): layer names to (weights, biases), float32, with weights of shape (kernels, channels,
    height, width) or (units, inputs); and the settings of convolutions, normalizations, poolings and nonlinearities in
    their order: (kind, name, settings), with the kinds and settings of rows.py.

    Raises:
        ValueError: if the file is damaged, or holds no such layers.
    """
    network = _caffe_message("NetParameter")
    try:
        network.ParseFromString(pathlib.Path(path).read_bytes())
    except message.DecodeError as error:
        raise ValueError(f"{path} is not a complete .caffemodel: {error}") from error
    weights = {}
    layers = [*network.layer, *network.layers]
    for layer in layers:
        if len(layer.blobs) == 2:
            kernel, bias = map(_blob_array, layer.blobs)
            # Fully-connected weights were 4-dimensional, (1, 1, units, inputs), in the older format.
            kernel = kernel.reshape(kernel.shape[-2:]) if kernel.shape[:2] == (1, 1) else kernel
            weights[layer.name] = (kernel, bias.reshape(-1))
    if not weights:
        raise ValueError(f"{path} holds no layer with weights and biases: it is not a .caffemodel of an AlexNet.")
    return weights, [*_read_settings(layers)]


def _read_settings(layers):
    for layer in layers:
        if layer.type in _ACTIVATIONS:
            yield "Activation", layer.name, {"function": {_ACTIVATIONS[layer.type]}}
        for kind, (types, message_name, names) in _SETTINGS.items():
            if layer.type in types:
                given = {field.name: value for field, value in getattr(layer, message_name).ListFields()}
                yield kind, layer.name, {name: _values(given, *theirs) for name, theirs in names.items()}


def _values(given, name, default):
    """Returns the values of a setting, which may differ between height and width: stride, or stride_h and stride_w."""
    values = {
        float(value) for each in (name, f"{name}_h", f"{name}_w") if each in given for value in np.ravel(given[each])
    }
    return values or {float(default)}


def read_mean(path: str | pathlib.Path) -> np.ndarray:
    """Reads a mean image: Caffe's .binaryproto, or a .npy array. Returns float32 (height, width, 3), red first.

    Raises:
        ValueError: if it is damaged, or not of the shape (3, height, width), blue first, as Caffe's own files.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npy":
            # Mapped, so that a header can't claim more numbers than the file has.
            mean = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False), "float32")
        else:
            blob = _caffe_message("BlobProto")
            blob.ParseFromString(path.read_bytes())
            mean = _blob_array(blob)
        mean = mean.reshape(mean.shape[-3:])
    except Exception as error:  # a damaged file raises one of half a dozen classes
        raise ValueError(f"{path} is not a complete .binaryproto or .npy array of numbers: {error}") from error
    if mean.ndim != 3 or mean.shape[:1] != (3,) or not np.all(np.isfinite(mean)):
        received = f"{mean.shape}{'' if np.all(np.isfinite(mean)) else ', numbers that are not finite,'}"
        raise ValueError(f"A mean image must be of shape (3, height, width) and finite. Received: {received} in {path}")
    return mean[::-1].transpose(1, 2, 0)


def read_npy(path: str | pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the dictionary that circulates as bvlc_alexnet.npy, as caffe-tensorflow writes it.

    Returns: the names of the layers to (kernel, bias), arrays of any number type: (height, width, channels, kernels),
    with the colors blue, green, red, or (inputs, units).

    Raises:
        ValueError: if the file is damaged, or a pickle that would run code.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            shape, _, dtype = read_header(file)
            if shape != () or not dtype.hasobject:
                raise ValueError(f"an array of shape {shape} and type {dtype} is not a dictionary of layers")
            # A map has no more bytes than the file, whatever length a pickle states.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                content.seek(file.tell())
                layers = NumpyUnpickler(content, file_bytes=content.size()).load()
        layers = layers.values if isinstance(layers, UnpickledArray) else layers
        weights = {}
        for name, values in layers.items():
            kernel, bias = (values["weights"], values["biases"]) if isinstance(values, dict) else values
            weights[str(name)] = (number_array(kernel), number_array(bias).reshape(-1))
    except Exception as error:  # a damaged file raises one of a dozen classes
        raise ValueError(f"{path} is not a dictionary of layers in NumPy's format: {error}") from error
    return weights


def _blob_array(blob):
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    try:
        values = np.frombuffer(b"".join(blob.data), "<f4")
        values = values if values.size else np.frombuffer(b"".join(blob.double_data), "<f8")
    except ValueError as error:
        raise ValueError(f"A blob of Caffe's holds a broken number: {error}") from error
    if values.size != np.prod(shape):
        raise ValueError(f"A blob of Caffe's must hold as many numbers as its shape {shape} says, not {values.size}.")
    return np.float32(values).reshape(shape)


def _caffe_message(name: str) -> Any:  # its fields exist only at run time
    """Makes an empty message of `_PROTO`."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe_subset.proto", package="caffe", syntax="proto2")
    for message_name, fields in _PROTO.items():
        added = file.message_type.add(name=message_name)
        for each in fields.split(", "):
            kind, field_name, number = each.split()
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            added_field = added.field.add(name=field_name, number=int(number), label=label)
            if kind in _PROTO:
                added_field.type, added_field.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                added_field.type = field.Type.Value(f"TYPE_{kind.upper()}")
            added_field.options.packed = kind == "int64"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))()
