"""Synthetic inputs activate their feature maps more than photographs and noise do."""

import numpy as np
import pytest

from alexnet_tf.figures import activations, optimized_inputs
from alexnet_tf.model import build_alexnet
from alexnet_tf.tfrecords import reader, schema


class TestOptimizeInputs:
    def test_known_kernels_give_the_colors_and_edges_that_excite_them(self):
        model = build_alexnet("testing", 10, initializer="zeros", input_scale=0.01)
        kernel = np.zeros(model.get_layer("conv1").kernels[0].shape, "float32")
        half = kernel.shape[1] // 2
        kernel[:, :, 0, 0], kernel[:, :, 2, 0] = 1, -1  # red without blue
        kernel[:, :half, :, 1], kernel[:, -half:, :, 1] = -1, 1  # dark at the left, bright at the right
        model.get_layer("conv1").kernels[0].assign(kernel)
        images, values = optimized_inputs.optimize_inputs(model, "conv1", [0, 1], steps=60)
        assert images.shape == (2, 56, 56, 3) and images.dtype == np.uint8
        red, green, blue = images[0].reshape(-1, 3).mean(axis=0)
        assert red > green + 50 > blue + 100
        (found,) = activations.activations(model, images, ["conv1"]).values()
        np.testing.assert_allclose(values, [found[0][i, ..., i].mean() for i in range(2)], rtol=1e-4)
        assert values[0] > 0

    def test_excites_units_more_than_any_image_of_the_data(self, untrained, data_dir):
        model, _ = untrained
        description = schema.load_description(data_dir)
        images, values = optimized_inputs.optimize_inputs(model, "fc7", [3, 20], steps=80)
        pixels, _ = next(iter(reader.make_evaluation_dataset(data_dir, 250, 56, description=description)))
        (columns,) = activations.activations(model, pixels, ["fc7"]).values()
        photographs = np.concatenate(columns, axis=-1)[:, [3, 20]]
        assert (values > photographs.max(axis=0)).all()
        again, _ = optimized_inputs.optimize_inputs(model, "fc7", [3, 20], steps=80)
        np.testing.assert_array_equal(images, again)

    @pytest.mark.parametrize(
        "layer, maps, message", [("conv9", [0], "`layer` must be one of"), ("conv1", [400], "`feature_maps` must be")]
    )
    def test_missing_layers_and_maps_are_refused(self, layer, maps, message):
        with pytest.raises(ValueError, match=message):
            optimized_inputs.optimize_inputs(build_alexnet("testing", 10, initializer="zeros"), layer, maps)
