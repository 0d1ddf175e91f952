"""The table of variants and the networks built from it. test_torch_reference.py compares what they compute."""

import keras
import numpy as np
import pytest
import torch
import torch_reference

from alexnet_tf.model import build_alexnet, count_parameters
from alexnet_tf.networks import keras_layers, rows
from alexnet_tf.networks.variants import VARIANTS


@pytest.mark.parametrize("name", torch_reference.NAMES)
def test_layers_shapes_and_parameters_equal_pytorch(name):
    found = [(each.name, each.output_shape, each.parameters) for each in rows.trace(VARIANTS[name], 1000)]
    expected, side = [], VARIANTS[name].image_px
    with torch.device("meta"):  # without numbers
        network = torch_reference.build(name, 1000)
        for layer, output in network.outputs(torch.empty(1, 3, side, side)):
            _, maps, *sides = output.shape
            parameters = sum(each.numel() for each in network.get_submodule(layer).parameters())
            expected.append((layer, (*sides, maps), parameters))
    assert found[:-1] == [each for each in expected if each[0] not in ("pad1", "flatten")]
    assert found[-1] == ("softmax", (1000,), 0)


@pytest.mark.parametrize("name", ["testing", "four_layer", "cifar_11pct", "original", "one_column"])
def test_network_has_the_traced_shapes(name):
    model = build_alexnet(name, 10, initializer="zeros")
    mean_image, variant = model.get_layer("mean_image"), VARIANTS[name]
    assert (mean_image.scale, mean_image.noise_divisor) == (variant.input_scale, variant.noise_divisor)
    shapes = list(rows.trace(variant, 10))
    assert [shape.name for shape in shapes] == [layer.name for layer in model.layers[2:]]
    for shape in shapes:
        layer = model.get_layer(shape.name)
        assert shape.output_shape == layer.output.shape[1:], shape.name
        assert shape.parameters == sum(int(np.prod(w.shape)) for w in layer.trainable_weights), shape.name


def test_layers_have_the_numbers_of_their_rows():
    kinds = {
        rows.LRN: ("k", "n", "alpha", "beta", "alpha_divided_by_n"),
        rows.WithinMapNorm: ("k", "n", "alpha", "beta"),
        rows.BatchNorm: ("momentum", "epsilon"),
        rows.Dropout: ("rate",),
    }
    compared = set()
    for variant in VARIANTS.values():
        for shape in rows.trace(variant, 10):
            for name in kinds.get(type(shape.row), ()):
                layer = keras_layers.make_layer(shape, variant.columns, variant.columns_merged, None, None)
                assert getattr(layer, name) == getattr(shape.row, name), (variant.title, shape.name, name)
                compared.add((type(shape.row), getattr(shape.row, name)))
    assert {(rows.LRN, True), (rows.LRN, 2.0), (rows.LRN, 1.0)} < compared


class TestInitialWeights:
    def test_one_weird_trick_has_pytorchs_initial_weights(self):
        model = build_alexnet("one_weird_trick", 10)
        for name, inputs in (("conv1", 11 * 11 * 3), ("conv4", 3 * 3 * 384), ("fc6", 9216), ("fc8", 4096)):
            for values in model.get_layer(name).get_weights():
                limit = inputs**-0.5
                assert np.abs(values).max() <= limit
                if values.ndim > 1:
                    assert abs(values.std() / (limit / 3**0.5) - 1) < 0.02, name
                else:
                    assert len(np.unique(values)) > 1

    def test_original_has_the_programs_initial_weights(self):
        model = build_alexnet("original", 10)
        for name, std, bias in (("conv1", 0.01, 0), ("conv3", 0.03, 0), ("conv5", 0.03, 1), ("fc6", 0.01, 1)):
            layer = model.get_layer(name)
            assert abs(np.std(layer.kernels[1]) / std - 1) < 0.05, name
            assert np.all(np.asarray(layer.biases[1]) == bias), name

    def test_batch_norm_has_biases_only_in_conv5(self):
        model = build_alexnet("batch_norm", 10, initializer="zeros", image_px=67)
        assert [len(model.get_layer(f"conv{i}").biases) for i in range(1, 6)] == [0, 0, 0, 0, 2]


def test_merged_columns_are_one_kernel_where_every_column_is_seen():
    split, merged = (build_alexnet("testing", 10, merge_columns=value) for value in (False, True))
    assert [len(layer.kernels) for layer in split.layers if hasattr(layer, "kernels")] == [*[2] * 7, 1]
    assert [len(layer.kernels) for layer in merged.layers if hasattr(layer, "kernels")] == [1, 2, 1, 2, 2, 1, 1, 1]
    assert split.count_params() == merged.count_params()


@pytest.mark.slow
@pytest.mark.long
def test_other_layers_train_and_save(tmp_path):
    for name in ("original", "batch_norm", "independent_columns"):
        model = build_alexnet(name, 3, initializer="he_normal", input_scale=0.01)
        side = VARIANTS[name].image_px
        images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype("uint8")
        model.compile(keras.optimizers.SGD(0.001), "sparse_categorical_crossentropy")
        before = [w.copy() for w in model.get_weights()[1:]]
        model.fit(images, np.array([0, 2]), verbose=0)
        assert all(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()[1:], strict=True))
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(images), model(images))


class TestVariant:
    def test_operations_on_rows(self):
        paper = VARIANTS["paper"]
        names = [layer.name for layer in paper.layers]
        assert [layer.name for layer in paper.without(rows.LRN).layers] == [n for n in names if "norm" not in n]
        changed = paper.with_layers("conv4 fc6", std=0.5)
        assert [layer.name for layer in changed.layers if getattr(layer, "std", None) == 0.5] == ["conv4", "fc6"]
        moved = [layer.name for layer in paper.move("relu1", after="pool1").layers]
        assert moved[:4] == ["conv1", "norm1", "pool1", "relu1"] and moved[4:] == names[4:]

    def test_unknown_layer(self):
        with pytest.raises(ValueError, match=r"must name layers of the variant. Received: conv9"):
            VARIANTS["paper"].with_layers("conv1 conv9", std=0.5)


def test_parameters_are_counted_without_means_and_moving_averages():
    for name in ("batch_norm", "testing"):
        model = build_alexnet(name, 10, initializer="zeros", image_px={"batch_norm": 67}.get(name))
        expected = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        model.get_layer("conv2").trainable = False
        assert count_parameters(model) == expected
