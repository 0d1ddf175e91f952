"""Conversion of a network, from pixels to probabilities, to ONNX, LiteRT and OpenVINO."""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

_CALIBRATION_IMAGES = 200
_ONNX_OPSET = 18


def write(
    folder: str | pathlib.Path,
    model: keras.Model,
    model_format: str,
    precision: str,
    calibration_images: np.ndarray | None = None,
) -> None:
    """Converts a model to ONNX, LiteRT or OpenVINO, and writes it.

    Its input is `pixels`, float32 (batch, side, side, 3), RGB from 0 to 255; its output is `probabilities`, float32
    (batch, classes); the batch may have any size.

    Args:
        folder: where to write.
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        model_format, precision: see `formats.check`.
        calibration_images: for int8, uint8 (n, side, side, 3); of which at most 200 are used.
    """
    folder, side = pathlib.Path(folder), model.input_shape[1]
    spec = tf.TensorSpec((None, side, side, 3), tf.float32, name="pixels")
    function = tf.function(
        lambda pixels: {"probabilities": model(pixels, training=False)}, input_signature=[spec], autograph=False
    )
    if calibration_images is None:
        calibration_images = np.zeros((0, side, side, 3), "uint8")
    images = calibration_images[:_CALIBRATION_IMAGES, None].astype("float32")
    writers = {"onnx": _write_onnx, "litert": _write_litert, "openvino": _write_openvino}
    writers[model_format](folder, function, precision, images)


def _write_onnx(folder: pathlib.Path, function, precision: str, images: np.ndarray) -> None:
    import onnx
    import tf2onnx

    path = folder / "model.onnx"
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_ONNX_OPSET)
    for value in (*proto.graph.input, *proto.graph.output):  # otherwise named unk__200
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if precision == "float16":
        _store_in_float16(proto.graph)
    onnx.save(proto, path)
    if precision == "int8":
        from onnxruntime import quantization

        class Images(quantization.CalibrationDataReader):
            def __init__(self):
                self.remaining = iter(images)

            def get_next(self):  # pyright: ignore[reportIncompatibleMethodOverride] # None ends, as documented
                image = next(self.remaining, None)
                return None if image is None else {"pixels": image}

        float32_path = path.rename(folder / "float32.onnx")
        quantization.quantize_static(
            float32_path,
            path,
            Images(),
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            # 18 ms an image on x86; with signed activations, the default, 364 ms.
            activation_type=quantization.QuantType.QUInt8,
            per_channel=True,
            # 7 bits for weights: with 8, sums of products overflow on processors older than VNNI.
            reduce_range=True,
        )
        float32_path.unlink()


def _store_in_float16(graph) -> None:
    """Stores the weights of an ONNX graph as float16, and casts them to float32 before they are used."""
    import onnx

    casts = []
    for initializer in graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype == np.float32 and values.size > 1:
            name = initializer.name
            initializer.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), f"{name}_float16"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_float16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _write_litert(folder: pathlib.Path, function, precision: str, images: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as saved_model:
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", function)
        archive.write_out(saved_model, verbose=False)  # pyright: ignore[reportAttributeAccessIssue] # by backend
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([image] for image in images)
        (folder / "model.tflite").write_bytes(converter.convert())


def _write_openvino(folder: pathlib.Path, function, precision: str, images: np.ndarray) -> None:
    import openvino

    converted = openvino.convert_model(function)
    if precision == "int8":
        import nncf

        converted = nncf.quantize(converted, nncf.Dataset(images), subset_size=len(images))
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=precision == "float16")
