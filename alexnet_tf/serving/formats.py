"""The formats and precisions of an export, and how to open an exported model.

A format's packages are imported when a model is opened, so that programs can check their flags at once.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from alexnet_tf import options
from alexnet_tf.cpus import available_cpus

if TYPE_CHECKING:
    import numpy as np

# From float32 pixels (batch, side, side, 3) to float32 probabilities (batch, classes).
Predictor: TypeAlias = "Callable[[np.ndarray], np.ndarray]"

# bfloat16 computes in 16 bits. float16 stores weights in 16 bits and computes in 32, because LRN's sums of squares
# exceed float16's range. int8 computes convolutions and matrix products in 8 bits; on the web, only matrix products,
# which need no calibration. The first is the default.
PRECISIONS = {
    "savedmodel": ("float32", "bfloat16"),
    "onnx": ("float32", "float16", "int8"),
    "litert": ("float32", "float16", "int8"),
    "openvino": ("float32", "float16", "int8"),
    "web": ("int8", "float16"),
}
PACKAGES = {
    "savedmodel": (),
    "onnx": ("tf2onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino", "nncf"),
    "web": ("tf2onnx", "onnxruntime"),
}
# Maximum number of pixels of an encoded image for a SavedModel. Decoding so many took up to 590 MB (docs/serving.md).
MAX_PIXELS = 50_000_000


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How a model is exported.

    Raises:
        ValueError: if the format does not exist in this precision, or the packages or the data set that it needs are
            missing.
    """

    version: int | None = options.option(
        None, "Version number; by default one more than the largest in --export_dir.", minimum=1
    )
    format: str = options.option("savedmodel", "Format of the model.", choices=sorted(PRECISIONS))
    precision: str | None = options.option(
        None,
        "Precision of the weights, and with bfloat16 (SavedModel) and int8 (other formats) also of the computation. By "
        "default float32; int8 for a web page.",
        choices=["float32", "bfloat16", "float16", "int8"],
    )
    data_dir: str | None = options.option(
        None,
        "Data set of the same classes. Its validation images compare the export with the trained model, its training "
        "images calibrate int8. A web page shows images of both.",
    )
    examples: str | None = options.option(None, "web: folder of JPEGs and PNGs that the page offers first.")
    num_images: int = options.option(1000, "Maximum number of images used of each split.", minimum=1)
    parity: bool | None = options.option(
        None,
        "Whether to compare the export with the trained model on --data_dir. By default for every format but web, "
        "where it takes minutes.",
    )
    max_pixels: int = options.option(
        MAX_PIXELS,
        "Maximum number of pixels of an image that is sent to the server. Bounds the memory for decoding.",
        minimum=1,
    )
    runtime: str | None = options.option(
        None,
        "web: npm package onnxruntime-web to copy, as a folder or the .tgz of `npm pack onnxruntime-web`. Without it, "
        "the page loads the package from a CDN.",
    )

    def __post_init__(self):
        precisions = PRECISIONS[self.format]
        if self.precision is None:
            object.__setattr__(self, "precision", precisions[0])
        if self.parity is None:
            object.__setattr__(self, "parity", self.format != "web")
        if self.precision not in precisions:
            raise ValueError(
                f"`precision` of the format {self.format} must be one of {', '.join(precisions)}. "
                f"Received: {self.precision}"
            )
        missing = [name for name in PACKAGES[self.format] if importlib.util.find_spec(name) is None]
        if missing:
            raise ValueError(
                f"`format` {self.format} needs {', '.join(missing)}: pip install --editable '.[{self.format}]'"
            )
        if self.precision == "int8" and self.format != "web" and not self.data_dir:
            raise ValueError("`precision` int8 needs `data_dir`: its training images calibrate the value ranges.")
        for name in ("runtime", "examples"):
            if getattr(self, name) and self.format != "web":
                raise ValueError(f"`{name}` is for --format=web. Received: --format={self.format}")
        if self.examples and not pathlib.Path(self.examples).is_dir():
            raise ValueError(f"`examples` must be a folder of images. Received: {self.examples}")


def open_predictor(folder: str | pathlib.Path) -> Predictor:
    """Opens the folder of an exported version in any format.

    Raises:
        ValueError: if it has no exported model.
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
    raise ValueError(f"{folder} must have an exported model: {', '.join(openers)}.")


def check_path(folder: str | pathlib.Path) -> None:
    """Raises ValueError if TensorFlow would read a SavedModel's path as a pattern for file names."""
    if any(character in str(folder) for character in "*?["):
        raise ValueError(f"The path of a SavedModel must not contain *, ? or [. Received: {folder}")


def _open_savedmodel(folder: pathlib.Path) -> Predictor:
    import tensorflow as tf

    check_path(folder)
    saved = tf.saved_model.load(str(folder))

    def predict(pixels):
        return saved.signatures["predict"](pixels=tf.constant(pixels))["probabilities"].numpy()

    return predict


def _open_onnx(folder: pathlib.Path) -> Predictor:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    # The model of a page also has a factor for each column as input.
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

    # By default OpenVINO computes in bfloat16 on some processors: the probabilities are then off by 0.01.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", exact)
    return lambda pixels: compiled(pixels)[0]


def size_mb(folder: str | pathlib.Path) -> float:
    """The size of all files in a folder, in MB (1e6 bytes)."""
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()) / 1e6
