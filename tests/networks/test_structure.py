"""Columns, classifiers and features of networks, nested ones included."""

import keras
import numpy as np
import pytest

from alexnet_tf.layers import device_placement
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import rows, structure
from alexnet_tf.networks.variants import VARIANTS

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3)).astype("uint8")


@pytest.fixture(scope="module")
def testing():
    return build_alexnet("testing", 10)


@pytest.fixture(scope="module")
def nested():
    """A frozen base with a user's own classifier."""
    base = build_alexnet("testing", 10, include_top=False, pooling="avg")
    base.trainable = False
    return keras.Sequential([base, keras.layers.Dropout(0.5), keras.layers.Dense(5, name="head")])


class TestFlatten:
    def test_plain_model_is_returned(self, testing):
        assert structure.flatten(testing) is testing

    def test_nested_models_become_their_layers(self, nested):
        image = keras.Input((56, 56, 3))
        model = keras.Model(image, keras.layers.Softmax(name="outer")(nested(image, training=False)))
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

    def test_classifier_belongs_to_no_column(self, testing):
        columns = structure.output_columns(testing)
        assert {name for name, count in columns.items() if count == 1} == {"mean_image", "fc8", "softmax"}

    def test_batch_normalization_keeps_its_column(self):
        columns = structure.output_columns(build_alexnet("batch_norm", 10, initializer="zeros", image_px=67))
        assert columns["conv1"] == columns["bn1"] == columns["relu1"] == 2

    def test_own_classifier_belongs_to_no_column(self, nested):
        columns = structure.output_columns(nested)
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

    def test_classifier_of_nested_network(self, nested):
        assert structure.class_layers(nested) == ["head"]
        assert structure.last_hidden_layer(nested) == "avg_pool"

    def test_network_that_ends_in_a_hidden_layer_has_none(self, testing):
        assert structure.class_layers(keras.Model(testing.input, testing.get_layer("relu7").output)) == []
        base = build_alexnet("testing", 10, include_top=False)
        with pytest.raises(ValueError, match="must have a classifier"):
            structure.last_hidden_layer(base)


class TestStages:
    def test_connections_are_those_of_figure_2(self, testing):
        stages = structure.stages(testing)
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

    def test_layer_without_nonlinearity_is_its_own_activation(self, nested):
        assert structure.stages(nested)[-1].activation == "head"

    def test_single_column_is_one_arrow(self):
        assert rows.connections(1, 1, "own") == [(0, 0)]


class TestFeatureExtractor:
    def test_outputs_are_the_layers_outputs(self, testing):
        features = structure.features(testing, ["relu5", "softmax"])(IMAGES)
        assert features["relu5"].shape == (2, *testing.get_layer("relu5").output.shape[1:])
        np.testing.assert_array_equal(features["softmax"], testing(IMAGES))

    def test_columns_on_devices_are_concatenated(self, testing, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)
        placed = build_alexnet("testing", 10, column_devices=["CPU:0", "CPU:0"])
        placed.set_weights(testing.get_weights())
        names = ["conv2", "pool5", "relu6"]
        expected = structure.features(testing, names)(IMAGES)
        for name, output in structure.features(placed, names)(IMAGES).items():
            np.testing.assert_allclose(output, expected[name], rtol=1e-6)

    def test_layers_of_nested_models(self, nested):
        features = structure.features(nested, ["pool5", "head"])(IMAGES)
        np.testing.assert_array_equal(features["head"], nested(IMAGES))
        np.testing.assert_array_equal(features["pool5"].numpy().mean(axis=(1, 2)), nested.layers[0](IMAGES))

    def test_missing_layer(self, testing):
        with pytest.raises(ValueError, match=r"among mean_image, conv1, .* Received: 'conv9'"):
            structure.features(testing, ["conv9"])
