"""Reads AlexNets of other programs: of Caffe, of PyTorch, and in ONNX.

Each reader returns `PretrainedWeights`, in this project's layout. None of them runs code that a file contains.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.weights import caffe_files, onnx_files, torch_files

# models/bvlc_alexnet/train_val.prototxt subtracts a mean image; models/bvlc_reference_caffenet/train_val.prototxt gives
# its mean color: blue 104, green 117, red 123.
CAFFE_MEAN_COLOR = (123.0, 117.0, 104.0)

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
    """Reads an AlexNet of another program.

    Args:
        path: a .caffemodel; a .npy dictionary made from one; a .pth, .pt, .pth.tar or .safetensors state dict of
            torchvision's alexnet; or an .onnx graph of one of these networks.

    Raises:
        ValueError: if the file is of another kind, is damaged, holds other layers, or is a pickle that would run code.
    """
    path = pathlib.Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"The file's name must end in one of {', '.join(READERS)}. Received: {path}")
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    network = READERS[path.suffix](path)
    for name, (kernel, bias) in network.weights.items():
        if kernel.ndim not in (2, 4) or (name == "conv1" and kernel.ndim != 4) or bias.ndim != 1:
            raise ValueError(
                f"{path} must hold kernels of 2 or 4 dimensions and biases of 1. Received: {name} of shapes "
                f"{kernel.shape} and {bias.shape}"
            )
    return network


def fitting_variants(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The variants that have kernels of these shapes.

    Args:
        shapes: names of layers to the shapes of their kernels, as `rows.kernel_shapes` returns them; without the dense
            layers they are of a network without its top.
    """
    fitting = []
    for name, row in VARIANTS.items():
        expected = rows.kernel_shapes(row, shapes.get(row.layers[-1].name, (0,))[-1])
        convolutions = {layer.name for layer in row.select(rows.Conv)}
        if shapes in (expected, {name: shape for name, shape in expected.items() if name in convolutions}):
            fitting.append(name)
    return fitting


def _read_caffemodel(path):
    # bvlc_alexnet and bvlc_reference_caffenet differ in the order of normalization and pooling.
    layers, pools_first, settings = caffe_files.read_caffemodel(path)
    weights = {name: (_from_output_first(kernel), bias) for name, (kernel, bias) in layers.items()}
    new = weights.keys() - _TORCHVISION_NAMES.values()
    if "fc8" not in weights and len(new) == 1:  # fine-tuned: Caffe's way to a new classifier is a new name
        weights["fc8"] = weights.pop(new.pop())
    variant = {None: None, True: "caffenet", False: "caffe"}[pools_first]
    if variant:
        _warn_of_settings(path, variant, settings)
    return PretrainedWeights(variant, _with_red_first(weights), True, (1.0, 1.0, 1.0), CAFFE_MEAN_COLOR)


def _read_npy(path):
    weights = _with_red_first(caffe_files.read_npy(path))
    fits = "caffe" in fitting_variants({name: kernel.shape for name, (kernel, _) in weights.items()})
    return PretrainedWeights("caffe" if fits else None, weights, False, (1.0, 1.0, 1.0), CAFFE_MEAN_COLOR)


def _read_torchvision(path):
    read = _read_safetensors if path.suffix == ".safetensors" else torch_files.read_state_dict
    # torch.nn.DataParallel puts "module." before the names of the part that it wraps.
    arrays = {name.replace("module.", ""): np.asarray(array, "float32") for name, array in read(path).items()}
    weights = {}
    for theirs, ours in _TORCHVISION_NAMES.items():
        try:
            weights[ours] = (_from_output_first(arrays[f"{theirs}.weight"]), arrays[f"{theirs}.bias"])
        except KeyError as error:
            raise ValueError(
                f"{path} must hold {theirs}.weight and {theirs}.bias, as torchvision's alexnet does, for {ours}. "
                f"It holds {', '.join(sorted(arrays)[:6])}, ..."
            ) from error
    return PretrainedWeights("one_weird_trick", weights, True, TORCHVISION_INPUT_SCALE, TORCHVISION_MEAN_COLOR)


def _read_safetensors(path):
    try:
        from safetensors import numpy as safetensors_numpy
    except ImportError as error:
        raise ValueError(f"safetensors is needed to read {path}: pip install 'alexnet-tf[pretrained]'") from error
    try:
        return safetensors_numpy.load_file(path)
    except Exception as error:  # its own kinds, which are no ValueError
        raise ValueError(f"{path} is not a complete .safetensors file: {error}") from error


def _read_onnx(path):
    layers, pools_first = onnx_files.read_onnx(path)
    weights = {name: (_from_output_first(kernel), bias) for name, (kernel, bias) in layers.items()}
    if pools_first is None:  # torchvision's, which has no normalization, takes normalized colors, red first
        return PretrainedWeights("one_weird_trick", weights, True, TORCHVISION_INPUT_SCALE, TORCHVISION_MEAN_COLOR)
    variant = "caffenet" if pools_first else "caffe"
    return PretrainedWeights(variant, _with_red_first(weights), True, (1.0, 1.0, 1.0), CAFFE_MEAN_COLOR)


def _warn_of_settings(path, variant, settings):
    """Warns of the settings in which a file's network differs from its variant, and so computes something else."""
    differences = []
    for kind in (rows.Conv, rows.LRN, rows.MaxPool):
        layers = [each for each in settings if each[0] == kind.__name__]
        expected = VARIANTS[variant].select(kind)
        if len(layers) != len(expected):
            differences.append(f"{len(layers)} layers of the kind {kind.__name__}, not {len(expected)}")
        for (_, name, found), row in zip(layers, expected, strict=False):
            padding = row.kernel_size // 2 if isinstance(row, rows.Conv) and row.padding == "same" else 0
            wanted: dict[str, Any] = dataclasses.asdict(row) | {"padding": padding}
            wanted |= {"region": 0, "function": 0}  # over feature maps; the maximum
            differences += [
                f"{name}'s {setting} is {', '.join(f'{value:g}' for value in sorted(values))}, not {wanted[setting]:g}"
                for setting, values in found.items()
                if {np.float32(value) for value in values} != {np.float32(wanted[setting])}
            ]
    if differences:
        logging.warning(
            "%s is another network than %s, which computes something else: %s", path, variant, "; ".join(differences)
        )


def _from_output_first(kernel):
    """(kernels, channels, rows, columns) to (rows, columns, channels, kernels); (units, inputs) to (inputs, units)."""
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T)


def _with_red_first(weights):
    """conv1's kernels for red, green, blue where they were for blue, green, red."""
    if "conv1" in weights and weights["conv1"][0].ndim == 4:
        kernel, bias = weights["conv1"]
        weights = weights | {"conv1": (kernel[:, :, ::-1], bias)}
    return weights


READERS = {
    ".caffemodel": _read_caffemodel,
    ".npy": _read_npy,
    ".pth": _read_torchvision,
    ".pt": _read_torchvision,
    ".tar": _read_torchvision,  # .pth.tar, as PyTorch's own training example names its checkpoints
    ".safetensors": _read_torchvision,
    ".onnx": _read_onnx,
}
"""Ends of files' names to the functions that read them."""
