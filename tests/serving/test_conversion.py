"""ONNX conversion, and the ONNX model of a page with its activations and gates."""

import collections

import keras
import numpy as np
import pytest

from alexnet_tf.layers import ColumnDense, ColumnLayer, GroupedConv2D, device_placement
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import structure
from alexnet_tf.serving import conversion, formats

pytest.importorskip("tf2onnx")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("float32")
NETWORKS = {
    "two columns": {"variant": "testing"},
    "merged": {"variant": "testing", "merge_columns": True},
    "a device each": {"variant": "testing", "column_devices": ["CPU:0", "CPU:0"]},
    "batch normalization": {"variant": "batch_norm", "image_px": 75},
    "one column": {"variant": "four_layer_tanh", "image_px": 56},
}


def run(folder, **inputs):
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def without_column(model, column, columns):
    """The same network with the column's weights set to zero, and the kernels of layers that join columns scaled."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    joining = {"conv3", "fc6", "fc7", "fc8"}
    classifier = copy.get_layer("fc8")
    for kernel in classifier.kernels:
        kernel.assign(kernel * (columns / (columns - 1)))
    for layer in copy.layers[:-2]:
        if isinstance(layer, ColumnLayer):
            for variable in (*layer.kernels, *layer.biases):
                values = keras.ops.convert_to_numpy(variable).copy()
                if layer.groups == 1:
                    np.split(values, columns, axis=-1)[column][...] = 0
                elif variable.path.endswith(f"_{column + 1}"):
                    values[...] = 0
                if layer.name in joining and any(variable is kernel for kernel in layer.kernels):
                    values *= columns / (columns - 1)
                variable.assign(values)
    return copy


@pytest.mark.parametrize("name", ["merged", pytest.param("batch normalization", marks=pytest.mark.slow)])
def test_onnx_has_folded_weights_and_predicts_the_same(name, tmp_path):
    model = build_alexnet(num_classes=10, initializer="he_normal", input_scale=1 / 80, **NETWORKS[name])
    conversion.write(tmp_path, model, "onnx", "float32")
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto)
    assert [value.name for value in proto.graph.input] == ["pixels"]
    assert [each.domain for each in proto.opset_import] == [""]
    constants = {each.name for each in proto.graph.initializer}
    for node in proto.graph.node:  # no node has only constant inputs
        assert not set(node.input) <= constants, node.name
    stored = sum(onnx.numpy_helper.to_array(each).size for each in proto.graph.initializer)
    assert 0.99 * model.count_params() <= stored <= 1.1 * model.count_params()
    pixels = np.resize(PIXELS, (3, *model.input_shape[1:]))
    expected = model.predict(pixels, verbose=0)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(run(tmp_path, pixels=pixels)["probabilities"], expected, rtol=1e-3, atol=1e-6)


# Merged columns are the hardest case, and fast.
@pytest.mark.parametrize(
    "name",
    [
        "merged",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("two columns", "a device each", "one column")),
        pytest.param("batch normalization", marks=(pytest.mark.slow, pytest.mark.long)),
    ],
)
def test_activations_equal_the_networks_and_gates_switch_columns_off(name, tmp_path, monkeypatch):
    # This machine may have no devices for the columns.
    monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)
    keras.utils.set_random_seed(1)
    model = build_alexnet(num_classes=10, initializer="he_normal", input_scale=1 / 80, **NETWORKS[name])
    columns = structure.num_columns(model)
    assert columns == (1 if name == "one column" else 2)
    side = model.input_shape[1]
    pixels = np.resize(PIXELS, (3, side, side, 3))
    conversion.write_with_activations(tmp_path, model, "float16")
    shown = [stage.activation for stage in structure.stages(model)[:-1]]
    assert len(shown) == sum(isinstance(layer, ColumnLayer) for layer in model.layers) - 1
    expected = structure.features(model, shown).predict(pixels, verbose=0)
    outputs = run(tmp_path, pixels=pixels, gates=np.ones((1, columns), "float32"))
    for layer, values in expected.items():
        values = np.moveaxis(values, -1, 1)
        np.testing.assert_allclose(outputs[layer], values, atol=0.003 * np.abs(values).max(), err_msg=layer)
    np.testing.assert_allclose(outputs["probabilities"], model.predict(pixels, verbose=0), atol=0.002)
    np.testing.assert_allclose(outputs["probabilities"], formats.open_predictor(tmp_path)(pixels), atol=1e-6)
    for column in range(columns):
        gates = np.float32([np.arange(columns) != column] * 3)
        outputs = run(tmp_path, pixels=pixels, gates=gates)
        for layer in shown:
            halves = np.split(outputs[layer], columns, axis=1)
            assert not halves[column].any()
            assert all(half.any() for index, half in enumerate(halves) if index != column)
        if name in ("two columns", "merged"):
            expected = without_column(model, column, columns).predict(pixels, verbose=0)
            np.testing.assert_allclose(outputs["probabilities"], expected, atol=0.002)
            assert np.abs(expected - model.predict(pixels, verbose=0)).max() > 0.02


def test_network_in_a_sequential_model(tmp_path):
    base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=1 / 80)
    top = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    model = structure.flatten(keras.Sequential([base, *top]))
    conversion.write_with_activations(tmp_path, model, "int8")
    outputs = run(tmp_path, pixels=PIXELS, gates=np.ones((1, 2), "float32"))
    np.testing.assert_allclose(outputs["probabilities"], model.predict(PIXELS, verbose=0), atol=0.03)
    types = {
        str(onnx.numpy_helper.to_array(each).dtype) for each in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    assert "int8" in types
    gated = run(tmp_path, pixels=PIXELS, gates=np.float32([[1, 0]]))
    assert np.abs(gated["probabilities"] - outputs["probabilities"]).max() > 0.001


@pytest.mark.slow
def test_int8_quantizes_only_fully_connected_layers_without_a_warning(tmp_path, caplog):
    keras.utils.set_random_seed(1)
    model = build_alexnet("testing", 10, initializer="he_normal", input_scale=1 / 80)
    outputs = {}
    for precision in formats.PRECISIONS["web"]:
        (tmp_path / precision).mkdir()
        conversion.write_with_activations(tmp_path / precision, model, precision)
        outputs[precision] = run(tmp_path / precision, pixels=PIXELS, gates=np.ones((1, 2), "float32"))
    probabilities = [each["probabilities"] for each in outputs.values()]
    np.testing.assert_allclose(*probabilities, atol=0.02)
    assert not np.array_equal(*probabilities)
    for layer in ("relu1", "relu5"):  # not quantized, LRN neither
        np.testing.assert_allclose(outputs["int8"][layer], outputs["float16"][layer], rtol=2e-3, atol=2e-3)
    counts = collections.Counter()
    for initializer in onnx.load(tmp_path / "int8" / "model.onnx").graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        counts[str(values.dtype)] += values.size
    kernels = {kind: 0 for kind in (ColumnDense, GroupedConv2D)}
    for layer in model.layers:
        if isinstance(layer, ColumnLayer):
            kernels[type(layer)] += sum(np.size(kernel) for kernel in layer.kernels)
    assert counts["int8"] >= kernels[ColumnDense] and counts["float16"] == kernels[GroupedConv2D]
    assert [path.name for path in (tmp_path / "int8").iterdir()] == ["model.onnx"]
    assert not caplog.records
