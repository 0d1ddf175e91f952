"""The formats other than a SavedModel: ONNX, LiteRT and OpenVINO, each from pixels to probabilities.

A version's folder holds saved_model.pb, model.onnx, model.tflite, or model.xml and model.bin.
"""

import importlib.util
import os
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

# float16: weights are stored in 16 bits, and the products are computed in 32: LRN's sums of squares pass the largest
# number of 16 bits. int8: convolutions and matrix products of 8 bits.
PRECISIONS = {
    "savedmodel": ("float32",),
    "onnx": ("float32", "float16", "int8"),
    "litert": ("float32", "float16", "int8"),
    "openvino": ("float32", "float16", "int8"),
}
_PACKAGES = {
    "savedmodel": (),
    "onnx": ("tf2onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino", "nncf"),
}
_CALIBRATION_IMAGES = 200
_ONNX_OPSET = 18


def check(model_format, precision, data_dir):
    """Raises ValueError where a format does not exist in a precision, or what it needs is missing.

    Args:
        model_format: a key of `PRECISIONS`.
        precision: "float32", "float16" or "int8".
        data_dir: None, or the data set that int8 is calibrated on.
    """
    if precision not in PRECISIONS[model_format]:
        raise ValueError(
            f"`precision` of the format {model_format} must be one of {', '.join(PRECISIONS[model_format])}. "
            f"Received: {precision}"
        )
    missing = [name for name in _PACKAGES[model_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"`format` {model_format} needs {', '.join(missing)}: pip install alexnet-tf[{model_format}]")
    if precision == "int8" and not data_dir:
        raise ValueError("`precision` int8 needs `data_dir`: the ranges of 8 bits are found on its training images.")


def write(folder, model, model_format, precision, calibration=None):
    """Writes a model in another format.

    Its input is `pixels`, float32 (batch, side, side, 3), RGB from 0 to 255, its output `probabilities`, float32
    (batch, classes), for any number of images.

    Args:
        folder: where to write.
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        model_format, precision: as `check` takes them.
        calibration: for int8: (images, labels), uint8 (n, side, side, 3) and int (n,).
    """
    folder, side = pathlib.Path(folder), model.input_shape[1]
    spec = tf.TensorSpec((None, side, side, 3), tf.float32, name="pixels")
    function = tf.function(
        lambda pixels: {"probabilities": model(pixels, training=False)}, input_signature=[spec], autograph=False
    )
    images = None if calibration is None else np.float32(calibration[0][:_CALIBRATION_IMAGES, None])
    {"onnx": _write_onnx, "litert": _write_litert, "openvino": _write_openvino}[model_format](
        folder, function, precision, images
    )


def _write_onnx(folder, function, precision, images):
    import onnx
    import tf2onnx

    path = folder / "model.onnx"
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_ONNX_OPSET)
    for value in (*proto.graph.input, *proto.graph.output):  # else named unk__200
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if precision == "float16":
        _store_in_float16(proto.graph)
    onnx.save(proto, path)
    if precision == "int8":
        from onnxruntime import quantization

        class Images(quantization.CalibrationDataReader):
            def __init__(self):
                self.remaining = iter(images)

            def get_next(self):
                image = next(self.remaining, None)
                return None if image is None else {"pixels": image}

        whole = path.rename(folder / "float32.onnx")
        quantization.quantize_static(
            whole,
            path,
            Images(),
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            # With signed activations, its default, it took 364 ms for an image on x86, and 18 so.
            activation_type=quantization.QuantType.QUInt8,
            per_channel=True,
            # 7 bits for weights: with 8, processors older than VNNI overflow in sums of products.
            reduce_range=True,
        )
        whole.unlink()


def _store_in_float16(graph):
    """Keeps the weights of an ONNX graph as float16, and casts them to float32 where they are used."""
    import onnx

    casts = []
    for initializer in graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype == np.float32 and values.size > 1:
            name = initializer.name
            initializer.CopyFrom(onnx.numpy_helper.from_array(np.float16(values), f"{name}_float16"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_float16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _write_litert(folder, function, precision, images):
    with tempfile.TemporaryDirectory() as saved_model:
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", function)
        archive.write_out(saved_model, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([image] for image in images)
        (folder / "model.tflite").write_bytes(converter.convert())


def _write_openvino(folder, function, precision, images):
    import openvino

    converted = openvino.convert_model(function)
    if precision == "int8":
        import nncf

        converted = nncf.quantize(converted, nncf.Dataset(images), subset_size=len(images))
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=precision == "float16")


def open_predictor(folder):
    """Opens an exported version of any format.

    Args:
        folder: the version's.

    Returns: a function from float32 pixels (batch, side, side, 3) to float32 probabilities (batch, classes).

    Raises:
        ValueError: where it holds none of the formats.
    """
    folder = pathlib.Path(folder)
    if (folder / "saved_model.pb").exists():
        saved = tf.saved_model.load(str(folder))

        def predict(pixels):
            return saved.signatures["predict"](pixels=tf.constant(pixels))["probabilities"].numpy()

    elif (folder / "model.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

        def predict(pixels):
            return session.run(["probabilities"], {"pixels": pixels})[0]

    elif (folder / "model.tflite").exists():
        from ai_edge_litert import interpreter

        network = interpreter.Interpreter(str(folder / "model.tflite"), num_threads=os.cpu_count())
        (inputs,), (outputs,) = network.get_input_details(), network.get_output_details()

        def predict(pixels):
            network.resize_tensor_input(inputs["index"], pixels.shape)
            network.allocate_tensors()
            network.set_tensor(inputs["index"], pixels)
            network.invoke()
            return network.get_tensor(outputs["index"])

    elif (folder / "model.xml").exists():
        import openvino

        # Else it computes in bfloat16 where the processor can, and the probabilities are off by 0.01.
        exactly = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", exactly)

        def predict(pixels):
            return compiled(pixels)[0]

    else:
        raise ValueError(
            f"{folder} must hold an exported model: saved_model.pb, model.onnx, model.tflite or model.xml."
        )
    return predict


def size(folder):
    """Megabytes (1e6 bytes) of all files in a folder."""
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()) / 1e6
