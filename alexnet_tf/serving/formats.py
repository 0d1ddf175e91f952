"""The formats of an export: which there are, in which precisions, and how an exported model is opened.

A version's folder holds saved_model.pb, model.onnx, model.tflite, or model.xml and model.bin. A format's packages are
imported when a model is opened, so that programs can define and check their flags at once.
"""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from alexnet_tf.cpus import available_cpus

if TYPE_CHECKING:
    import numpy as np

# From float32 pixels (batch, side, side, 3) to float32 probabilities (batch, classes).
Predictor: TypeAlias = "Callable[[np.ndarray], np.ndarray]"

# bfloat16: weights and products of 16 bits. float16: weights are stored in 16 bits, and products are computed in 32:
# LRN's sums of squares exceed the largest number of 16 bits. int8: convolutions and matrix products of 8 bits; on the
# web, matrix products alone, which needs no calibration.
PRECISIONS = {
    "savedmodel": ("float32", "bfloat16"),
    "onnx": ("float32", "float16", "int8"),
    "litert": ("float32", "float16", "int8"),
    "openvino": ("float32", "float16", "int8"),
    "web": ("int8", "float16"),  # the first is the default
}
_PACKAGES = {
    "savedmodel": (),
    "onnx": ("tf2onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino", "nncf"),
    "web": ("tf2onnx", "onnxruntime"),
}

# Pixels of an encoded image that a SavedModel decodes at most. One of so many pixels took up to 590 MB while it was
# decoded: docs/serving.md has more.
MAX_PIXELS = 50_000_000


def check(model_format: str, precision: str, data_dir: str | pathlib.Path | None) -> None:
    """Checks that a format exists in a precision, and that the packages and the data it needs are there.

    Args:
        model_format: a key of `PRECISIONS`.
        precision: "float32", "bfloat16", "float16" or "int8".
        data_dir: None, or the data set that int8 is calibrated on.

    Raises:
        ValueError: if one of them is missing.
    """
    if precision not in PRECISIONS[model_format]:
        raise ValueError(
            f"`precision` of the format {model_format} must be one of {', '.join(PRECISIONS[model_format])}. "
            f"Received: {precision}"
        )
    missing = [name for name in _PACKAGES[model_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"`format` {model_format} needs {', '.join(missing)}: pip install alexnet-tf[{model_format}]")
    if precision == "int8" and model_format != "web" and not data_dir:
        raise ValueError("`precision` int8 needs `data_dir`: its training images calibrate the ranges of 8 bits.")


def open_predictor(folder: str | pathlib.Path) -> Predictor:
    """Opens an exported version of any format.

    Args:
        folder: the version's.

    Returns: a function from float32 pixels (batch, side, side, 3) to float32 probabilities (batch, classes).

    Raises:
        ValueError: if it holds none of the formats.
    """
    folder = pathlib.Path(folder)
    openers = {
        "saved_model.pb": _open_savedmodel,
        "model.onnx": _open_onnx,
        "model.tflite": _open_litert,
        "model.xml": _open_openvino,
    }
    for name, opener in openers.items():
        if (folder / name).exists():
            return opener(folder)
    raise ValueError(f"{folder} must hold an exported model: saved_model.pb, model.onnx, model.tflite or model.xml.")


def _open_savedmodel(folder: pathlib.Path) -> Predictor:
    import tensorflow as tf

    saved = tf.saved_model.load(str(folder))

    def predict(pixels):
        return saved.signatures["predict"](pixels=tf.constant(pixels))["probabilities"].numpy()

    return predict


def _open_onnx(folder: pathlib.Path) -> Predictor:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    # The model of a page has a factor for each column as well.
    gates = {each.name: np.ones((1, each.shape[1]), "float32") for each in session.get_inputs() if each.name == "gates"}
    return lambda pixels: np.asarray(session.run(["probabilities"], {"pixels": pixels, **gates})[0])


def _open_litert(folder: pathlib.Path) -> Predictor:
    from ai_edge_litert import interpreter

    network = interpreter.Interpreter(str(folder / "model.tflite"), num_threads=available_cpus())
    (inputs,), (outputs,) = network.get_input_details(), network.get_output_details()

    def predict(pixels):
        network.resize_tensor_input(inputs["index"], pixels.shape)
        network.allocate_tensors()
        network.set_tensor(inputs["index"], pixels)
        network.invoke()
        return network.get_tensor(outputs["index"])

    return predict


def _open_openvino(folder: pathlib.Path) -> Predictor:
    import openvino

    # Otherwise it computes in bfloat16 where the processor can, and the probabilities are off by 0.01.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", exact)
    return lambda pixels: compiled(pixels)[0]


def size_mb(folder: str | pathlib.Path) -> float:
    """Megabytes (1e6 bytes) of all files in a folder."""
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()) / 1e6
