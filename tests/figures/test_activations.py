"""The outputs of all layers, column by column, and drawn as figure 2."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.figures import activations
from alexnet_tf.layers import device_placement
from alexnet_tf.model import build_alexnet

NAMES = list("abcdefghij")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("uint8")


class TestActivations:
    @pytest.mark.parametrize("merge_columns", [False, True])
    def test_equals_calling_the_layers_in_turn(self, merge_columns, images):
        model = build_alexnet("testing", 10, merge_columns=merge_columns, initializer="he_normal", input_scale=0.01)
        found = activations.activations(model, images)
        assert list(found) == [layer.name for layer in model.layers[1:]]
        x = tf.constant(images)
        for layer in model.layers[1:]:
            x = layer(x)
            assert len(found[layer.name]) == (1 if layer.name in ("mean_image", "fc8", "softmax") else 2)
            assert found[layer.name][0].dtype == np.float32
            np.testing.assert_allclose(np.concatenate(found[layer.name], axis=-1), x, rtol=1e-5, atol=1e-6)

    def test_arrays_are_the_networks_columns(self, images):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.01)
        before = activations.activations(model, images, ["conv1", "pool2", "conv3"])
        kernel = model.get_layer("conv1").kernels[1]
        kernel.assign(kernel + 0.1)
        after = activations.activations(model, images, ["conv3", "pool2", "conv1"])
        assert list(after) == ["conv1", "pool2", "conv3"]  # in the network's order
        for name in ("conv1", "pool2"):
            np.testing.assert_array_equal(before[name][0], after[name][0])
            assert np.abs(before[name][1] - after[name][1]).max() > 0.01
        assert np.abs(before["conv3"][0] - after["conv3"][0]).max() > 0.001  # connected to both columns

    def test_columns_on_devices_and_single_column(self, images, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)  # one serves for two here
        placed = build_alexnet("testing", 10, column_devices=["CPU:0", "CPU:0"], initializer="he_normal")
        shapes = {name: [x.shape for x in arrays] for name, arrays in activations.activations(placed, images).items()}
        assert shapes["fc6"] == [(3, 16), (3, 16)] and shapes["fc8"] == [(3, 10)]
        one = build_alexnet("one_column", 10, image_px=67, initializer="zeros", include_top=False)
        found = activations.activations(one, np.zeros((1, 67, 67, 3), "uint8"))
        assert {len(arrays) for arrays in found.values()} == {1}


@pytest.mark.parametrize("nested", [False, True])
def test_own_head_is_not_split_into_columns(nested, images):
    base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=0.01)
    head = keras.layers.Dense(10, activation="softmax", name="head")
    model = keras.Sequential([base, head]) if nested else keras.Model(base.input, head(base.output))
    found = activations.activations(model, images)
    assert [array.shape for array in found["head"]] == [(3, 10)] and len(found["conv1"]) == 2
    np.testing.assert_allclose(found["head"][0], model.predict(images, verbose=0), rtol=1e-4)
    assert activations.draw_activations(model, images[0], NAMES).ndim == 3


class TestMosaic:
    def test_maps_in_order_with_gaps(self):
        maps = np.arange(5 * 2 * 3, dtype="float32").reshape(5, 2, 3).transpose(1, 2, 0)
        picture = activations.mosaic(maps)
        assert picture.shape == (2 * 3 - 1, 3 * 4 - 1)
        np.testing.assert_array_equal(picture[:2, 4:7], maps[..., 1])
        np.testing.assert_array_equal(picture[3:, :3], maps[..., 3])
        assert np.isnan(picture[2]).all() and np.isnan(picture[:, 3]).all() and np.isnan(picture[3:, 8:]).all()

    def test_units_are_squares_without_gaps(self):
        units = np.arange(7, dtype="float32")
        np.testing.assert_array_equal(activations.mosaic(units), [[0, 1, 2], [3, 4, 5], [6, np.nan, np.nan]])
        np.testing.assert_array_equal(activations.mosaic(units, 2), [[0, 1], [2, 3], [4, 5], [6, np.nan]])


class TestDrawActivations:
    def test_bright_map_is_bright_at_its_position(self, images):
        model = build_alexnet("testing", 10, initializer="zeros")
        silent = activations.draw_activations(model, images[0], NAMES).astype(int)
        bias = model.get_layer("conv1").biases[1]  # of the lower column
        bias.assign(np.eye(1, bias.shape[0])[0] * 5.0)
        drawn = activations.draw_activations(model, images[0], NAMES).astype(int)
        assert (silent[:, 400:650] == 0x50).all(axis=-1).sum() > 100  # gaps between conv1's maps
        changed = np.argwhere(np.abs(drawn - silent).max(axis=-1) > 100)
        (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
        rows, columns, _ = drawn.shape
        # A square in the lower half, where conv1 is: after the image, before conv2.
        assert top > rows / 2 and left / columns > 3.0 / 35 and right < 7.5 * 100
        assert 0.9 < (bottom - top) / (right - left) < 1.1
        inside = drawn[top + 3 : bottom - 3, left + 3 : right - 3]
        assert np.ptp(inside.reshape(-1, 3), axis=0).max() < 10  # a map of one value

    def test_scale_ends_at_the_99_9th_percentile(self, images, figures):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.01)
        activations.draw_activations(model, images[0], NAMES)
        mosaics = [image for image in figures[0].axes[0].images if image.get_array().ndim == 2]
        found = activations.activations(model, images[:1], ["relu1", "relu2"])
        expected = [max(np.percentile(column, 99.9) for column in columns) for columns in found.values()]
        np.testing.assert_allclose([each.norm.vmax for each in mosaics[:4]], np.repeat(expected, 2), rtol=1e-5)
        probabilities = model.predict(images[:1], verbose=0)[0]
        (bars,) = figures[0].axes[0].child_axes
        best = np.argsort(-probabilities, kind="stable")[:5]
        texts = [(NAMES[label], f"{probabilities[label]:.0%}") for label in best]
        assert [each.get_text() for each in bars.texts] == [text for pair in texts for text in pair]

    def test_single_column_without_top_is_as_tall_as_two(self, images):
        one = build_alexnet("one_column", image_px=67, include_top=False, initializer="zeros")
        picture = activations.draw_activations(one, np.zeros((67, 67, 3), "uint8"), [])
        two = activations.draw_activations(build_alexnet("testing", 10, initializer="zeros"), images[0], NAMES)
        assert picture.shape[0] == two.shape[0]
