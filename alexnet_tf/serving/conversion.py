"""Converts a network, from pixels to probabilities, to ONNX, LiteRT and OpenVINO.

`keras.Model.export` is not used: for the full network its ONNX conversion takes 12 GB instead of 3, its LiteRT
conversion 350 MB more, and its OpenVINO conversion has neither float16 nor int8.
"""

import functools
import pathlib
import tempfile
import types

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf.layers import ColumnDense
from alexnet_tf.networks import structure

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

    The input is `pixels`, float32 (batch, side, side, 3), RGB from 0 to 255. The output is `probabilities`, float32
    (batch, classes), or `features` of a network without its top. The batch may have any size.

    Args:
        folder: where to write.
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes) or features.
        model_format, precision: see `formats.PRECISIONS`.
        calibration_images: for int8, uint8 (n, side, side, 3). At most 200 are used.
    """
    folder, side = pathlib.Path(folder), model.input_shape[1]
    spec = tf.TensorSpec((None, side, side, 3), tf.float32, name="pixels")
    output = "features" if structure.classifier(model) is None else "probabilities"
    function = tf.function(
        lambda pixels: {output: model(pixels, training=False)}, input_signature=[spec], autograph=False
    )
    if calibration_images is None:
        calibration_images = np.zeros((0, side, side, 3), "uint8")
    images = calibration_images[:_CALIBRATION_IMAGES, None].astype("float32")
    writers = {"onnx": functools.partial(_write_onnx, model), "litert": _write_litert, "openvino": _write_openvino}
    writers[model_format](folder, function, precision, images)


def write_with_activations(folder: str | pathlib.Path, model: keras.Model, precision: str) -> None:
    """Converts a model to an ONNX model with its activations as outputs and a factor for each column as an input.

    The inputs are `pixels`, float32 (batch, side, side, 3), and `gates`, float32 (batch or 1, columns): the factors of
    each column's activations, 0 for a column that is switched off. A layer with inputs from all columns scales them by
    (number of columns) / (sum of the gates), so that their sum keeps its size, as dropout does. The outputs are
    `probabilities`, float32 (batch, classes), and the outputs of all layers by name, float32 (batch, maps, rows,
    columns) or (batch, units). Those of the nonlinearities are multiplied by the gates.

    Args:
        folder: where to write model.onnx.
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes), without nested models.
        precision: "float16", or "int8" for the weights of the fully-connected layers, nine tenths of all weights, and
            float16 for the others. The inputs of these layers are rounded to 8 bits by their own range.
    """
    import onnx
    from onnxruntime import quantization

    path, side, columns = pathlib.Path(folder) / "model.onnx", model.input_shape[1], structure.num_columns(model)
    *stages, classifier = structure.stages(model)
    shown = {stage.activation: stage.columns for stage in stages}
    joining = {stage.layer.name for stage in [*stages, classifier] if stage.joins_columns}

    def call(pixels, gates):
        x, outputs = pixels, {}
        scale = columns / tf.maximum(tf.reduce_sum(gates, axis=-1, keepdims=True), 1)
        for layer in model.layers[1:]:
            if layer.name in joining:
                x = _multiply(x, scale)
            x = layer(x)
            if shown.get(layer.name) == columns:
                parts = x if isinstance(x, list) else tf.split(x, columns, axis=-1)
                gated = list(map(_multiply, parts, tf.split(gates, columns, axis=-1)))
                x = gated if isinstance(x, list) else tf.concat(gated, axis=-1)
            joined = tf.concat(x, axis=-1) if isinstance(x, list) else x
            outputs[layer.name] = tf.transpose(joined, (0, 3, 1, 2)) if len(joined.shape) == 4 else joined
        return {"probabilities": x, **outputs}

    signature = [
        tf.TensorSpec((None, side, side, 3), tf.float32, name="pixels"),
        tf.TensorSpec((None, columns), tf.float32, name="gates"),
    ]
    proto = _to_onnx(model, tf.function(call, input_signature=signature, autograph=False))
    if precision == "float16":
        _store_in_float16(proto.graph)
    else:
        dense = tuple(
            f"{layer.name}{'_' if isinstance(layer, ColumnDense) else '/'}"
            for layer in model.layers
            if isinstance(layer, ColumnDense | keras.layers.Dense)
        )
        products = [node.name for node in proto.graph.node if node.op_type == "MatMul" and node.name.startswith(dense)]
        quantization.quant_utils.add_pre_process_metadata(proto)  # as below
        # 7 bits, as below.
        quantization.quantize_dynamic(
            proto, path, nodes_to_quantize=products, per_channel=True, reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        proto = onnx.load(path)
        _store_in_float16(proto.graph, least_dimensions=4)
    onnx.save(proto, path)


def _multiply(x, factors: tf.Tensor):
    """Multiplies maps or units, or a list of them, by factors (batch or 1, 1)."""
    if isinstance(x, list):
        return [_multiply(part, factors) for part in x]
    return x * (factors[:, None, None] if len(x.shape) == 4 else factors)


def _to_onnx(model: keras.Model, function):
    """Converts a tf.function that calls a model; the first dimension of its inputs and outputs is the batch.

    tf2onnx copies constants in each of its passes and frees nothing: 12 GB and a minute for the full network. So the
    weights are inputs during the conversion and become constants afterwards: 3 GB.
    """
    import onnx
    import tf2onnx

    weights = {f"weight_{number}": weight for number, weight in enumerate(model.weights)}
    specs = [tf.TensorSpec(weight.shape, weight.dtype, name) for name, weight in weights.items()]
    inputs = function.input_signature

    def call(*arguments):
        values = zip(weights.values(), arguments[len(inputs) :], strict=True)
        with keras.StatelessScope(state_mapping=list(values)):
            return function.python_function(*arguments[: len(inputs)])

    with_weights = tf.function(call, input_signature=[*inputs, *specs], autograph=False)
    proto, _ = tf2onnx.convert.from_function(with_weights, with_weights.input_signature, opset=_ONNX_OPSET)
    others = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(others)
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(keras.ops.convert_to_numpy(weight), name))
    proto = _fold_constants(proto)
    for value in (*proto.graph.input, *proto.graph.output):  # otherwise named unk__200
        value.type.tensor_type.shape.dim[0].dim_param = "gates" if value.name == "gates" else "batch"
    return proto


def _fold_constants(proto):
    """Computes what depends only on weights, such as kernels in ONNX's layout, and moves biases into convolutions."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path, folded = pathlib.Path(folder) / "model.onnx", pathlib.Path(folder) / "folded.onnx"
        onnx.save(proto, path)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        # Matrix products keep their layers' names, by which `write_with_activations` quantizes them.
        without = ["MatMulAddFusion"]
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=without)
        proto = onnx.load(folded)
    used = {node.domain for node in proto.graph.node}
    imports = [each for each in proto.opset_import if each.domain in used]  # onnxruntime adds all domains that it knows
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    return proto


def _write_onnx(model: keras.Model, folder: pathlib.Path, function, precision: str, images: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization

    path = folder / "model.onnx"
    proto = _to_onnx(model, function)
    if precision != "int8":
        if precision == "float16":
            _store_in_float16(proto.graph)
        onnx.save(proto, path)
        return
    feeds = ({"pixels": image} for image in images)
    quantization.quant_utils.add_pre_process_metadata(proto)  # otherwise it warns; tf2onnx has simplified the graph
    quantization.quantize_static(
        proto,
        path,
        types.SimpleNamespace(get_next=lambda: next(feeds, None)),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        # 18 ms an image on x86. With signed activations, the default, 364 ms.
        activation_type=quantization.QuantType.QUInt8,
        per_channel=True,
        # 7 bits for weights. With 8, sums of products overflow on processors without VNNI.
        reduce_range=True,
    )


def _store_in_float16(graph, least_dimensions: int = 0) -> None:
    """Stores the weights of an ONNX graph as float16, and casts them to float32 before they are used."""
    import onnx

    casts = []
    for initializer in graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype == np.float32 and values.size > 1 and values.ndim >= least_dimensions:
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
