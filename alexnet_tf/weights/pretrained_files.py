"""Reads AlexNets of other programs: Caffe, the NumPy dictionaries made from Caffe's, and PyTorch.

Each reader returns `PretrainedWeights`, in this project's layout. None of them runs code that a file contains.
"""

import codecs
import dataclasses
import io
import pathlib
import pickle
import re
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

# models/bvlc_alexnet/train_val.prototxt subtracts a mean image; models/bvlc_reference_caffenet/train_val.prototxt gives
# its mean color: blue 104, green 117, red 123.
CAFFE_MEAN_COLOR = (123.0, 117.0, 104.0)

_LRN, _POOLING = 15, 17  # V1LayerParameter.LayerType in src/caffe/proto/caffe.proto

# torchvision's transforms subtract a mean and divide by a standard deviation, of pixels from 0 to 1.
TORCHVISION_MEAN_COLOR = (255 * 0.485, 255 * 0.456, 255 * 0.406)
TORCHVISION_INPUT_SCALE = (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
_TORCHVISION_NAMES = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """Weights of a network from another program, in this project's layout.

    Attributes:
        variant: its row of the table of variants; None if the file does not say which it is.
        weights: layer names to (kernel, bias), float32. Kernels of convolutions are (rows, columns, input
            channels, kernels) with channels in the order red, green, blue in conv1; of dense layers (inputs, units).
        maps_first: whether the inputs of the first dense layer are in the order (channel, row, column), as in Caffe and
            PyTorch, and not (row, column, channel), as here.
        input_scale: what centered pixels are multiplied by: red, green, blue.
        mean_color: the mean red, green and blue that is subtracted, from pixels of 0 to 255.
    """

    variant: str | None
    weights: dict[str, tuple[np.ndarray, np.ndarray]]
    maps_first: bool
    input_scale: tuple[float, float, float]
    mean_color: tuple[float, float, float]

    @property
    def num_classes(self) -> int:
        """Units of the classifier, fc8; 1000 where the file lacks it."""
        return len(self.weights["fc8"][1]) if "fc8" in self.weights else 1000


def read_pretrained(path: str | pathlib.Path) -> PretrainedWeights:
    """Reads a .caffemodel, a .npy dictionary made from one, or a .pth state dict of torchvision's alexnet.

    Raises:
        ValueError: if the file is of another kind, is damaged, holds other layers, or is a pickle that would run code.
    """
    path = pathlib.Path(path)
    readers = {".caffemodel": read_caffemodel, ".npy": read_npy, ".pth": read_torchvision, ".pt": read_torchvision}
    if path.suffix not in readers:
        raise ValueError(f"The file's name must end in one of {', '.join(readers)}. Received: {path}")
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    return readers[path.suffix](path)


def read_caffemodel(path: str | pathlib.Path) -> PretrainedWeights:
    """Reads a .caffemodel of bvlc_alexnet or bvlc_reference_caffenet. Returns a `PretrainedWeights`.

    The two differ in the order of normalization and pooling, which is read from the file's layers, not from its name.
    """
    network = _caffe_message("NetParameter")
    try:
        network.ParseFromString(pathlib.Path(path).read_bytes())
    except message.DecodeError as error:
        raise ValueError(f"{path} is not a complete .caffemodel: {error}") from error
    weights = {}
    for layer in [*network.layer, *network.layers]:
        if len(layer.blobs) == 2:
            kernel, bias = map(_blob_array, layer.blobs)
            # Fully-connected weights were 4-dimensional, (1, 1, units, inputs), in the older format.
            kernel = kernel.reshape(kernel.shape[-2:]) if kernel.shape[:2] == (1, 1) else kernel
            weights[layer.name] = (_from_output_first(kernel), bias.reshape(-1))
    if not weights:
        raise ValueError(f"{path} holds no layer with weights and biases: it is no .caffemodel of an AlexNet.")
    _check_weights(path, weights)
    # What each normalization's input comes from: Caffe's types by name, and by number in the older format. A ReLU
    # writes over its own input.
    layers = [*network.layer, *network.layers]
    before = [
        {each.type for each in layers if set(each.top) & set(layer.bottom)} & {"Pooling", _POOLING}
        for layer in layers
        if layer.type in ("LRN", _LRN)
    ]
    if any(before) and not all(before):
        raise ValueError(f"{path} must normalize before each pooling (caffe) or after each (caffenet). It does both.")
    return PretrainedWeights(
        variant=("caffenet" if all(before) else "caffe") if before else None,
        weights=_with_red_first(weights),
        maps_first=True,
        input_scale=(1.0, 1.0, 1.0),
        mean_color=CAFFE_MEAN_COLOR,
    )


def read_caffe_mean(path: str | pathlib.Path) -> np.ndarray:
    """Reads a mean image: Caffe's .binaryproto, or a .npy array. Returns float32 (rows, columns, 3), red first.

    Arrays of three dimensions may have their colors first, blue, green, red, as Caffe's own ilsvrc_2012_mean.npy.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npy":
            mean = np.asarray(np.load(path, allow_pickle=False), "float32")
        else:
            blob = _caffe_message("BlobProto")
            blob.ParseFromString(path.read_bytes())
            mean = _blob_array(blob)
        mean = mean.reshape(mean.shape[-3:])
    except Exception as error:  # a damaged file raises one of half a dozen kinds
        raise ValueError(f"{path} is not a complete .binaryproto or .npy array of numbers: {error}") from error
    if mean.ndim != 3 or mean.shape[0] != 3 or not np.all(np.isfinite(mean)):
        received = f"{mean.shape}{'' if np.all(np.isfinite(mean)) else ', numbers that are not finite,'}"
        raise ValueError(f"A mean image must be of shape (3, rows, columns) and finite. Received: {received} in {path}")
    return mean[::-1].transpose(1, 2, 0)


def read_npy(path: str | pathlib.Path) -> PretrainedWeights:
    """Reads the dictionary that circulates as bvlc_alexnet.npy: layer names to (kernel, bias), as caffe-tensorflow
    writes them, with the colors blue, green, red. Returns a `PretrainedWeights`."""
    try:
        with pathlib.Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            shape, _, dtype = read_header(file)
            if shape != () or not dtype.hasobject:
                raise ValueError(f"an array of shape {shape} and type {dtype} is no dictionary of layers")
            content = _ArraysOnly(file, encoding="latin1").load()
        layers = content.item() if isinstance(content, np.ndarray) else content
        weights = {}
        for name, values in layers.items():
            kernel, bias = (values["weights"], values["biases"]) if isinstance(values, dict) else values
            weights[str(name)] = (np.asarray(kernel, "float32"), np.asarray(bias, "float32").reshape(-1))
    except Exception as error:  # a damaged file raises one of a dozen kinds
        raise ValueError(f"{path} is not a dictionary of layers in NumPy's format: {error}") from error
    _check_weights(path, weights)
    return PretrainedWeights("caffe", _with_red_first(weights), False, (1.0, 1.0, 1.0), CAFFE_MEAN_COLOR)


class _ArraysOnly(pickle.Unpickler):
    """Opens pickles of dictionaries and arrays, and refuses anything else that a pickle may call."""

    _ALLOWED = frozenset(
        {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
        | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")}
    )

    def find_class(self, module, name):
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it would call {module}.{name}, which could run any code")
        if name == "encode":
            return codecs.encode
        return super().find_class(module, name)


def read_torchvision(path: str | pathlib.Path) -> PretrainedWeights:
    """Reads a state dict of torchvision's alexnet. Needs PyTorch. Returns a `PretrainedWeights`."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"PyTorch is needed to read {path}: pip install torch") from error
    try:
        state = torch.load(io.BytesIO(pathlib.Path(path).read_bytes()), map_location="cpu", weights_only=True)
        for key in ("model", "state_dict", "model"):  # in which training programs wrap it
            state = state[key] if isinstance(state.get(key), dict) else state
        arrays = {str(name).removeprefix("module."): value.float().numpy() for name, value in state.items()}
    except pickle.UnpicklingError as error:  # PyTorch's own message says how to run the code that the file contains
        called = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} is damaged, or a pickle that would run code: it is not opened. A file of "
            f"torch.save(model.state_dict()) is expected. Received: {called[1] if called else 'something else'}"
        ) from None
    except Exception as error:  # a damaged file raises one of a dozen kinds
        raise ValueError(f"{path} is not a state dict of PyTorch: {error!r}") from error
    weights = {}
    for theirs, ours in _TORCHVISION_NAMES.items():
        try:
            weights[ours] = (_from_output_first(arrays[f"{theirs}.weight"]), arrays[f"{theirs}.bias"])
        except KeyError as error:
            raise ValueError(
                f"{path} must hold {theirs}.weight and {theirs}.bias, as torchvision's alexnet does, for {ours}. "
                f"It holds {', '.join(sorted(arrays)[:6])}, ..."
            ) from error
    _check_weights(path, weights)
    return PretrainedWeights(
        variant="one_weird_trick",
        weights=weights,
        maps_first=True,
        input_scale=TORCHVISION_INPUT_SCALE,
        mean_color=TORCHVISION_MEAN_COLOR,
    )


def _check_weights(path, weights):
    for name, (kernel, bias) in weights.items():
        if kernel.ndim not in (2, 4) or (name == "conv1" and kernel.ndim != 4) or bias.ndim != 1:
            raise ValueError(
                f"{path} must hold kernels of 2 or 4 dimensions and biases of 1. Received: {name} of shapes "
                f"{kernel.shape} and {bias.shape}"
            )


def _from_output_first(kernel):
    """(kernels, channels, rows, columns) to (rows, columns, channels, kernels); (units, inputs) to (inputs, units)."""
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T)


def _with_red_first(weights):
    """conv1's kernels for red, green, blue where they were for blue, green, red."""
    if "conv1" in weights:
        kernel, bias = weights["conv1"]
        weights = weights | {"conv1": (kernel[:, :, ::-1], bias)}
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


def _caffe_message(name: str) -> Any:  # whose fields exist at run time alone
    """An empty message of Caffe's: the part of src/caffe/proto/caffe.proto that is needed, by field number."""
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    text, int32, int64 = field.TYPE_STRING, field.TYPE_INT32, field.TYPE_INT64
    packed = field.TYPE_BYTES  # millions of packed numbers, which NumPy reads at once
    file = descriptor_pb2.FileDescriptorProto(name="caffe_subset.proto", package="caffe", syntax="proto2")
    for message_name, fields in {
        "BlobShape": [("dim", 1, many, int64)],
        "BlobProto": [
            ("num", 1, one, int32),
            ("channels", 2, one, int32),
            ("height", 3, one, int32),
            ("width", 4, one, int32),
            ("data", 5, many, packed),
            ("shape", 7, one, ".caffe.BlobShape"),
            ("double_data", 8, many, packed),
        ],
        "LayerParameter": [
            ("name", 1, one, text),
            ("type", 2, one, text),
            ("bottom", 3, many, text),
            ("top", 4, many, text),
            ("blobs", 7, many, ".caffe.BlobProto"),
        ],
        "V1LayerParameter": [
            ("bottom", 2, many, text),
            ("top", 3, many, text),
            ("name", 4, one, text),
            ("type", 5, one, int32),
            ("blobs", 6, many, ".caffe.BlobProto"),
        ],
        "NetParameter": [
            ("name", 1, one, text),
            ("layers", 2, many, ".caffe.V1LayerParameter"),
            ("layer", 100, many, ".caffe.LayerParameter"),
        ],
    }.items():
        description = file.message_type.add(name=message_name)
        for field_name, number, label, kind in fields:
            added = description.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, kind
            else:
                added.type = kind
            if kind == int64:
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))()
