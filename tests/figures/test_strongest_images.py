"""The images with the largest activations, and pictures of them."""

import keras
import numpy as np
import pytest

from alexnet_tf.figures import image_grids, strongest_images
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks.receptive_fields import Window
from alexnet_tf.tfrecords import crops, reader, schema


def _one_channel_model():
    """A network whose layer "maps" returns its input, and whose layer "units" the first pixel."""
    image = keras.Input((2, 3, 3))
    x = keras.layers.Activation("linear", name="maps")(image)
    return keras.Model(image, keras.layers.Dense(2, name="units", kernel_initializer="ones")(x[:, 0, 0]))


class TestFindStrongestImages:
    def test_images_values_and_positions_across_batches(self):
        images = np.random.default_rng(0).integers(0, 50, (10, 2, 3, 3)).astype("float32")  # with equal maxima
        images[7, 1, 2, 0] = images[2, 0, 1, 0] = 90
        batches = (images[first : first + 3] for first in range(0, 10, 3))
        found = strongest_images.find_strongest_images(_one_channel_model(), ["maps", "units"], batches, 4)
        for channel in range(3):
            peaks = images[..., channel].reshape(10, 6).max(axis=1)
            order = np.argsort(-peaks, kind="stable")[:4]
            np.testing.assert_array_equal(found["maps"].indices[channel], order)
            np.testing.assert_array_equal(found["maps"].values[channel], peaks[order])
            positions = images[..., channel].reshape(10, 6).argmax(axis=1)[order]
            np.testing.assert_array_equal(found["maps"].rows[channel], positions // 3)
            np.testing.assert_array_equal(found["maps"].columns[channel], positions % 3)
        assert found["maps"].indices[0, :2].tolist() == [2, 7]
        sums = images[:, 0, 0].sum(axis=1)
        np.testing.assert_array_equal(found["units"].indices[1], np.argsort(-sums, kind="stable")[:4])
        assert not found["units"].rows.any() and not found["units"].columns.any()

    @pytest.mark.parametrize("count", [0, 11])
    def test_impossible_count(self, count):
        with pytest.raises(ValueError, match=f"`count` must be from 1 to .* 10. Received: count={count}"):
            strongest_images.find_strongest_images(
                _one_channel_model(), ["maps"], [np.zeros((10, 2, 3, 3), "float32")], count
            )


class TestCropReceptiveField:
    def test_field_outside_of_the_image_is_moved_into_it(self):
        image = np.random.default_rng(0).integers(0, 100, (20, 20, 3)).astype("uint8")
        inside = strongest_images.crop_receptive_field(image, Window(5, 2, 0), 3, 4)
        np.testing.assert_array_equal(inside, image[6:11, 8:13])
        corner = strongest_images.crop_receptive_field(image, Window(5, 2, -2), 0, 9)
        np.testing.assert_array_equal(corner, image[:5, 15:])
        np.testing.assert_array_equal(strongest_images.crop_receptive_field(image, Window(25, 2, -2), 1, 1), image)


def test_areas_are_flat_if_no_channel_changes():
    image = np.full((20, 20, 3), 7, "uint8")
    window = Window(5, 2, 0)
    assert strongest_images._is_flat(image, window, 3, 4)
    image[8, 10, 1] = 100  # of the other channels, each is constant
    assert not strongest_images._is_flat(image, window, 3, 4)
    assert strongest_images._is_flat(image, window, 0, 4)


class TestDrawStrongestImages:
    def test_rows_skip_feature_maps_that_respond_to_one_color(self, data_dir, monkeypatch):
        model = build_alexnet("testing", 10, initializer="zeros")
        # The first kernel of each column is strongest on black, of which Fashion-MNIST has much; the others on edges.
        for kernel in model.get_layer("conv1").kernels:
            values = np.zeros(kernel.shape, "float32")
            values[..., 0] = -1
            values[:, : values.shape[1] // 2, :, 1:], values[:, -(values.shape[1] // 2) :, :, 1:] = -1, 1
            kernel.assign(values * (1 + np.arange(values.shape[-1])))  # each map has values of its own
        drawn = {}
        monkeypatch.setattr(image_grids, "patch_rows", lambda rows, names: drawn.update(rows=rows, names=names))
        description = schema.load_description(data_dir)
        strongest_images.draw_strongest_images(model, ["conv1"], data_dir, description, "validation", 4, 3)
        maps = [int(name.split("\n")[1].removeprefix("feature map ")) for name in drawn["names"]]
        assert len(maps) == 4
        assert not {0, model.get_layer("conv1").filters // 2} & set(maps)
        for row in drawn["rows"]:
            for patch, value in row:  # dark at the left, bright at the right
                middle = patch.shape[1] // 2
                assert patch[:, middle + 1 :].mean() > patch[:, :middle].mean() + 100
                assert float(value) > 0
        strongest_images.draw_strongest_images(model, ["conv1"], data_dir, description, "validation", 2, 3)
        images = reader.read_images(data_dir, description, "validation", range(1000))
        batches = np.split(crops.center_crop(images, model.input_shape[1]), 10)
        found = strongest_images.find_strongest_images(model, ["conv1"], batches, 3)["conv1"]
        for row, name in zip(drawn["rows"], drawn["names"], strict=True):
            values = found.values[int(name.removeprefix("conv1\nfeature map "))]
            assert [value for _, value in row] == [f"{value:.3g}" for value in values]
