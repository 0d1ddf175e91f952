"""Tests of structure: columns, classifiers and receptive fields of networks, nested ones included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.layers import device_placement
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import rows, structure
from alexnet_tf.networks.variants import VARIANTS

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3)).astype("uint8")


def _nested():
    """A frozen base with a user's own classifier."""
    base = build_alexnet("testing", 10, include_top=False, pooling="avg")
    base.trainable = False
    return keras.Sequential([base, keras.layers.Dropout(0.5), keras.layers.Dense(5, name="head")])


class TestFlatten:
    def test_plain_model_is_returned(self):
        model = build_alexnet("testing", 10, initializer="zeros")
        assert structure.flatten(model) is model

    def test_nested_models_become_their_layers(self):
        inner = _nested()
        image = keras.Input((56, 56, 3))
        model = keras.Model(image, keras.layers.Softmax(name="outer")(inner(image, training=False)))
        flat = structure.flatten(model)
        assert [layer.name for layer in flat.layers[1:3]] == ["mean_image", "conv1"]
        assert [weight.path for weight in flat.weights] == [weight.path for weight in model.weights]
        np.testing.assert_array_equal(flat(IMAGES), model(IMAGES))
        assert not flat.get_layer("conv1").trainable


class TestColumns:
    @pytest.mark.parametrize("variant", ["testing", "caffe", "four_layer"])
    def test_network_has_the_columns_of_its_variant(self, variant):
        model = build_alexnet(variant, 10, initializer="zeros")
        assert structure.num_columns(model) == VARIANTS[variant].columns

    def test_classifier_belongs_to_no_column(self):
        columns = structure.output_columns(build_alexnet("testing", 10, initializer="zeros"))
        assert {name for name, count in columns.items() if count == 1} == {"mean_image", "fc8", "softmax"}

    def test_batch_normalization_keeps_its_column(self):
        columns = structure.output_columns(build_alexnet("batch_norm", 10, initializer="zeros", image_px=67))
        assert columns["conv1"] == columns["bn1"] == columns["relu1"] == 2

    def test_own_classifier_belongs_to_no_column(self):
        columns = structure.output_columns(_nested())
        assert columns["pool5"] == columns["avg_pool"] == 2
        assert columns["head"] == 1

    def test_flattened_maps_belong_to_no_column(self):
        base = build_alexnet("testing", 10, include_top=False)
        model = keras.Sequential([base, keras.layers.Flatten(name="flat"), keras.layers.Dense(5)])
        assert structure.output_columns(model)["flat"] == 1


class TestClassifier:
    @pytest.mark.parametrize("variant, image_px", [("testing", 56), ("caffe", 67)])  # both kinds of dropout
    def test_classifier_of_full_network(self, variant, image_px):
        model = build_alexnet(variant, 10, initializer="zeros", image_px=image_px)
        assert structure.class_layers(model) == ["fc8", "softmax"]
        assert structure.last_hidden_layer(model) == "relu7"

    def test_classifier_of_nested_network(self):
        assert structure.class_layers(_nested()) == ["head"]
        assert structure.last_hidden_layer(_nested()) == "avg_pool"

    def test_network_that_ends_in_a_hidden_layer_has_none(self):
        model = build_alexnet("testing", 10, initializer="zeros")
        assert structure.class_layers(keras.Model(model.input, model.get_layer("relu7").output)) == []
        base = build_alexnet("testing", 10, include_top=False)
        with pytest.raises(ValueError, match="has no classifier"):
            structure.last_hidden_layer(base)


class TestStages:
    def test_connections_are_those_of_figure_2(self):
        stages = structure.stages(build_alexnet("testing", 10, initializer="zeros"))
        own, crossed = [(0, 0), (1, 1)], [(0, 0), (1, 0), (0, 1), (1, 1)]
        assert [(stage.layer.name, stage.activation, stage.connections) for stage in stages] == [
            ("conv1", "relu1", [(0, 0), (0, 1)]),
            ("conv2", "relu2", own),
            ("conv3", "relu3", crossed),
            ("conv4", "relu4", own),
            ("conv5", "relu5", own),
            ("fc6", "relu6", crossed),
            ("fc7", "relu7", crossed),
            ("fc8", "softmax", [(0, 0), (1, 0)]),
        ]

    def test_activation_is_the_last_nonlinearity(self):
        stages = structure.stages(build_alexnet("original", 10, initializer="zeros"))
        assert [stage.activation for stage in stages[:2]] == ["relu1", "relu2"]

    def test_layer_without_nonlinearity_is_its_own_activation(self):
        assert structure.stages(_nested())[-1].activation == "head"

    def test_single_column_is_one_arrow(self):
        assert rows.connections(1, 1, "own") == [(0, 0)]


class TestFeatureExtractor:
    def test_outputs_are_the_layers_outputs(self):
        model = build_alexnet("testing", 10)
        features = structure.features(model, ["relu5", "softmax"])(IMAGES)
        assert features["relu5"].shape == (2, *model.get_layer("relu5").output.shape[1:])
        np.testing.assert_array_equal(features["softmax"], model(IMAGES))

    def test_columns_on_devices_are_concatenated(self, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)
        model = build_alexnet("testing", 10)
        placed = build_alexnet("testing", 10, column_devices=["CPU:0", "CPU:0"])
        placed.set_weights(model.get_weights())
        for name, output in structure.features(model, ["conv2", "pool5", "relu6"])(IMAGES).items():
            np.testing.assert_allclose(structure.features(placed, [name])(IMAGES)[name], output, rtol=1e-6)

    def test_layers_of_nested_models(self):
        model = _nested()
        features = structure.features(model, ["pool5", "head"])(IMAGES)
        np.testing.assert_array_equal(features["head"], model(IMAGES))
        np.testing.assert_array_equal(features["pool5"].numpy().mean(axis=(1, 2)), model.layers[0](IMAGES))

    def test_missing_layer(self):
        with pytest.raises(ValueError, match=r"among mean_image, conv1, .* Received: 'conv9'"):
            structure.features(build_alexnet("testing", 10, initializer="zeros"), ["conv9"])


class TestReceptiveField:
    # Known from the literature, for the paper's kernels, strides and pools.
    @pytest.mark.parametrize(
        "layer, size, step",
        [
            ("conv1", 11, 4),
            ("norm1", 11, 4),
            ("pool1", 19, 8),
            ("conv2", 51, 8),
            ("conv3", 99, 16),
            ("conv4", 131, 16),
            ("relu5", 163, 16),
            ("pool5", 195, 32),
            ("fc6", 224, 1),
        ],
    )
    def test_paper(self, layer, size, step):
        model = build_alexnet("paper", 10, initializer="zeros")
        assert structure.receptive_field(model, layer)[:2] == (size, step)

    @pytest.mark.parametrize("variant", ["testing", "four_layer"])
    @pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "pool2", "conv3"])
    def test_pixels_with_a_gradient(self, variant, layer):
        # Without LRN, and with sums instead of maxima, so that each weight counts.
        model = build_alexnet(variant, 10, initializer="ones", input_scale=1e-3)
        pixels = tf.ones((1, *model.input_shape[1:]))
        row = 2
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            x = pixels
            for each in model.layers[1:]:
                if isinstance(each, keras.layers.MaxPooling2D):
                    x = keras.ops.average_pool(x, each.pool_size, each.strides, each.padding)
                elif hasattr(each, "kernels"):
                    x = each(x)
                if each.name == layer:
                    break
            unit = x[0, row, row, 0]
        size, step, start = structure.receptive_field(model, layer)
        first = start + row * step
        inside = np.flatnonzero(np.abs(tape.gradient(unit, pixels)[0].numpy()).sum(axis=(1, 2)))
        assert inside[0] == max(first, 0)
        assert inside[-1] == min(first + size, pixels.shape[1]) - 1

    def test_nested_network(self):
        assert structure.receptive_field(_nested(), "conv1").size == 7
        assert structure.receptive_field(_nested(), "head").size == 56
