"""Dropout and the mean image; and every layer, saved and loaded."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_calls import MODES, activations, call, sines

from alexnet_tf.layers import (
    ColumnDense,
    GroupedConv2D,
    LocallyConnected2D,
    LocalResponseNormalization,
    MeanImage,
    PaperDropout,
    ReplicaDropout,
    WithinMapNormalization,
)


class TestPaperDropout:
    def test_training(self):
        output = np.asarray(PaperDropout(0.3, seed=1)(np.full((200, 200), 3.0, "float32"), training=True))
        assert set(np.unique(output)) == {0.0, 3.0}
        assert abs(np.mean(output == 0) - 0.3) < 0.01

    def test_inference(self):
        np.testing.assert_allclose(PaperDropout(0.3)(np.full((2, 2), 3.0, "float32"), training=False), 2.1, rtol=1e-6)

    def test_masks_differ_between_steps_and_repeat_with_the_seed(self):
        x = np.ones((1, 1000), "float32")
        first, again = PaperDropout(seed=5), PaperDropout(seed=5)
        a, b = np.asarray(first(x, training=True)), np.asarray(first(x, training=True))
        assert not np.array_equal(a, b)
        np.testing.assert_array_equal(a, again(x, training=True))

    @pytest.mark.parametrize("mode", MODES)
    def test_gradient_of_kept_units(self, mode):
        x = tf.ones((4, 50))
        output, (gradient,) = call(PaperDropout(), x, mode, training=True)
        np.testing.assert_allclose(gradient, output * sines(output.shape), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
    def test_invalid_rate_raises(self, rate):
        with pytest.raises(ValueError, match=f"rate={rate}"):
            PaperDropout(rate)

    def test_invalid_groups_raise(self):
        with pytest.raises(ValueError, match=r"divisible by `groups`\. Received: .*groups=3"):
            PaperDropout(groups=3)(np.ones((2, 4), "float32"), training=True)

    def test_separate_tensors_get_the_same_masks(self):
        x = activations((4, 10))
        merged, split = PaperDropout(seed=3, groups=2), PaperDropout(seed=3, groups=2)
        expected = np.asarray(merged(x, training=True))
        outputs = split([x[:, :5], x[:, 5:]], training=True)
        np.testing.assert_array_equal(np.concatenate(outputs, axis=1), expected)
        assert not np.array_equal(expected[:, :5] == 0, expected[:, 5:] == 0)
        np.testing.assert_array_equal(np.concatenate(split([x[:, :5], x[:, 5:]]), 1), merged(x))


class TestReplicaDropout:
    def test_separate_tensors_are_dropped_only_in_training(self):
        columns, layer = [np.ones((4, 50), "float32")] * 2, ReplicaDropout(0.5, seed=3)
        first, second = (np.asarray(output) for output in layer(columns, training=True))
        assert {*np.unique(first)} == {*np.unique(second)} == {0.0, 2.0}
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(layer(columns), columns)


class TestMeanImage:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_center_of_the_mean_image_is_subtracted(self, dtype):
        layer = MeanImage(scale=0.5)
        pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(dtype)
        mean = np.random.default_rng(1).uniform(0, 255, (8, 6, 3)).astype("float32")
        layer.build(pixels.shape)
        layer.set_mean_image(mean)
        np.testing.assert_allclose(layer(pixels), (np.float32(pixels) - mean[2:6, 1:5]) * 0.5, rtol=1e-6)

    def test_color_offset_is_added_only_in_training(self):
        layer = MeanImage()
        pixels = np.full((2, 4, 4, 3), 100, "uint8")
        offset = np.float32([[1, 2, 3], [-200, 0, 200]])
        training = np.asarray(layer(pixels, offset, training=True))
        np.testing.assert_array_equal(training[:, 0, 0], [[101, 102, 103], [-100, 100, 300]])
        np.testing.assert_array_equal(layer(pixels, offset, training=False), np.float32(pixels))

    def test_images_with_color_noise_are_divided_only_in_training(self):
        layer = MeanImage(noise_divisor=1.1)
        pixels = np.full((2, 4, 4, 3), 100, "uint8")
        offset = np.float32([[10, 0, -1], [0, 0, 0]])
        training = np.asarray(layer(pixels, offset, training=True))
        np.testing.assert_allclose(training[:, 0, 0], [[100, 100 / 1.1, 90], [100, 100, 100]], rtol=1e-6)
        np.testing.assert_array_equal(layer(pixels, offset, training=False), np.float32(pixels))
        np.testing.assert_array_equal(layer(pixels, training=True), np.float32(pixels))

    def test_scale_per_color(self):
        pixels = np.full((1, 2, 2, 3), 60, "uint8")
        np.testing.assert_allclose(MeanImage(scale=(0.5, 0.1, 1))(pixels)[0, 0, 0], [30, 6, 60], rtol=1e-6)

    def test_mean_is_not_trainable(self):
        layer = MeanImage()
        layer.build((None, 4, 4, 3))
        assert not layer.trainable_variables
        assert len(layer.weights) == 1

    def test_half_precision_subtracts_in_float32(self):
        layer = MeanImage(dtype="mixed_bfloat16")
        pixels = np.full((1, 2, 2, 3), 254.75, "float32")  # bfloat16 would round it to 255
        layer.build(pixels.shape)
        layer.set_mean_image(np.full((2, 2, 3), 254.25))
        output = layer(pixels)
        assert output.dtype == tf.bfloat16
        np.testing.assert_array_equal(np.float32(output), 0.5)

    @pytest.mark.parametrize("size", [(4, 8), (8, 4), (None, None), (None, 4)])
    def test_mean_color_of_a_mean_image_that_is_smaller_than_the_images(self, size):
        layer = MeanImage()
        layer.build((None, *size, 3))
        mean_image = np.random.default_rng(0).uniform(0, 255, (6, 6, 3))
        layer.set_mean_image(mean_image)
        pixels = np.zeros((1, *(side or 4 for side in size), 3))
        np.testing.assert_allclose(layer(pixels)[0, 0, 0], -mean_image.mean((0, 1)), rtol=1e-6)

    @pytest.mark.parametrize("shape", [(4, 4, 1), (4, 4)])
    def test_mean_image_without_three_colors_raises(self, shape):
        layer = MeanImage()
        layer.build((None, 4, 4, 3))
        with pytest.raises(ValueError, match=r"must be \(height, width, 3\).*Received"):
            layer.set_mean_image(np.zeros(shape))


SAVED_LAYERS = [
    LocalResponseNormalization(k=1.0, n=3, alpha=0.1, beta=0.5, alpha_divided_by_n=True, groups=2),
    GroupedConv2D(8, 3, strides=2, padding=((0, 1), (0, 1)), input_columns="all", kernel_initializer="he_normal"),
    GroupedConv2D(8, 3, devices=["CPU:0", "CPU:0"]),
    GroupedConv2D(8, 3, use_bias=False),
    ColumnDense(8, input_columns="own"),
    PaperDropout(0.25),
    MeanImage(scale=0.1),
    WithinMapNormalization(k=2.0, n=3, alpha=0.1, beta=0.5),
    LocallyConnected2D(4, 3),
    ReplicaDropout(0.25),
]


@pytest.mark.parametrize("layer", SAVED_LAYERS, ids=lambda layer: type(layer).__name__)
def test_loaded_layer_has_the_same_output(layer, tmp_path):
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (2, 9, 9, 6)).astype("float32")
    image = keras.Input((9, 9, 6))
    model = keras.Model(image, layer(image))
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", [PaperDropout(0.4, seed=3), ReplicaDropout(0.4, seed=3)])
def test_reloaded_dropout_draws_the_same_masks(layer):
    images = np.ones((8, 50), "float32")
    reloaded, other = layer.from_config(layer.get_config()), type(layer)(0.4, seed=4)
    first, same, different = (np.asarray(each(images, training=True)) for each in (layer, reloaded, other))
    np.testing.assert_array_equal(same, first)
    assert not np.array_equal(different, first)
