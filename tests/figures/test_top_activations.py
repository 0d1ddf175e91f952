"""Receptive fields, and the images with the largest activations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.figures import image_grids, top_activations
from alexnet_tf.model import build_alexnet
from alexnet_tf.tfrecords import reader, schema


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
    def test_sizes_and_steps_of_the_papers_layers(self, layer, size, step):
        model = build_alexnet("paper", 10, initializer="zeros")
        assert top_activations.receptive_field(model, layer)[:2] == (size, step)

    @pytest.mark.parametrize("variant", ["testing", "four_layer"])
    @pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "pool2", "conv3"])
    def test_unit_in_the_middle_depends_on_these_pixels_and_no_others(self, variant, layer):
        # No LRN and no max, so that each weight counts: a sum in place of each pooling.
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
        size, step, start = top_activations.receptive_field(model, layer)
        first = start + row * step
        inside = np.flatnonzero(np.abs(tape.gradient(unit, pixels)[0].numpy()).sum(axis=(1, 2)))
        assert inside[0] == max(first, 0)
        assert inside[-1] == min(first + size, pixels.shape[1]) - 1

    def test_unknown_layer_is_refused_with_the_names_there_are(self):
        model = build_alexnet("testing", 10, initializer="zeros")
        with pytest.raises(ValueError, match=r"`layer` must be one of .*conv1.* Received: layer='conv9'"):
            top_activations.receptive_field(model, "conv9")


class TestFindTopActivations:
    @pytest.mark.parametrize("layer", ["conv3", "relu7"])
    def test_equals_a_search_through_all_outputs(self, layer, untrained, data_dir):
        model, _ = untrained
        description = schema.load_description(data_dir)
        feature_maps = [0, 5, 23]
        found = top_activations.find_top_activations(model, layer, feature_maps, data_dir, description, "validation", 4)
        images = np.concatenate([x for x, _ in reader.make_evaluation_dataset(data_dir, 250, model.input_shape[1])])
        outputs = keras.Model(model.input, model.get_layer(layer).output).predict(images, verbose=0)
        outputs = outputs[..., feature_maps]
        for index in range(len(feature_maps)):
            peaks = outputs[..., index].reshape(len(images), -1).max(axis=1)
            np.testing.assert_allclose(found[1][index], np.sort(peaks)[::-1][:4], rtol=1e-5)
            for number, value, row, column in zip(*(array[index] for array in found), strict=True):
                place = (number, row, column) if outputs.ndim == 4 else (number,)
                np.testing.assert_allclose(outputs[(*place, index)], value, rtol=1e-5)

    def test_receptive_field_is_cropped_and_gray_beyond_the_edge(self):
        image = np.random.default_rng(0).integers(0, 100, (20, 20, 3)).astype("uint8")
        np.testing.assert_array_equal(top_activations.crop_receptive_field(image, (5, 2, 0), 3, 4), image[6:11, 8:13])
        corner = top_activations.crop_receptive_field(image, (5, 2, -2), 0, 9)
        np.testing.assert_array_equal(corner[:2], 128)
        np.testing.assert_array_equal(corner[2:, :4], image[:3, 16:])
        np.testing.assert_array_equal(corner[:, 4], 128)

    @pytest.mark.parametrize(
        "feature_maps, count, message", [([24], 4, "`feature_maps`"), ([0], 0, "`count`"), ([0], 1001, "`count`")]
    )
    def test_missing_feature_maps_and_impossible_counts_are_refused(
        self, feature_maps, count, message, untrained, data_dir
    ):
        model, _ = untrained
        description = schema.load_description(data_dir)
        with pytest.raises(ValueError, match=message):
            top_activations.find_top_activations(
                model, "conv3", feature_maps, data_dir, description, "validation", count
            )


class TestDrawTopActivations:
    def test_rows_show_what_activates_a_map_and_leave_out_those_of_one_color(self, data_dir, monkeypatch):
        model = build_alexnet("testing", 10, initializer="zeros")
        # The first kernel of each column is strongest on black, of which Fashion-MNIST has much; the others on edges.
        for kernel in model.get_layer("conv1").kernels:
            values = np.zeros(kernel.shape, "float32")
            values[..., 0] = -1
            values[:, : values.shape[1] // 2, :, 1:], values[:, -(values.shape[1] // 2) :, :, 1:] = -1, 1
            kernel.assign(values)
        drawn = {}
        monkeypatch.setattr(image_grids, "patch_rows", lambda rows, names: drawn.update(rows=rows, names=names))
        description = schema.load_description(data_dir)
        top_activations.draw_top_activations(model, "conv1", data_dir, description, "validation", 4, 3)
        maps = [int(name.split("\n")[1].removeprefix("feature map ")) for name in drawn["names"]]
        assert len(maps) == 4
        assert not {0, model.get_layer("conv1").filters // 2} & set(maps)
        for row in drawn["rows"]:
            for patch in row:  # dark at the left, bright at the right
                middle = patch.shape[1] // 2
                assert patch[:, middle + 1 :].mean() > patch[:, :middle].mean() + 100
