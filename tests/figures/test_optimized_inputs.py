"""Synthetic inputs activate their units more than photographs and noise do."""

import importlib.util
import subprocess
import sys
import textwrap

import keras
import numpy as np
import programs
import pytest

from alexnet_tf.figures import optimized_inputs
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import receptive_fields, structure
from alexnet_tf.tfrecords import reader, schema

SCRIPT = """
    import sys
    import keras, numpy as np
    from alexnet_tf.figures import optimized_inputs

    assert keras.backend.backend() == sys.argv[1]
    model = keras.models.load_model(sys.argv[2])
    results = [optimized_inputs.optimize_inputs(model, "conv1", [0, 3], steps) for steps in (0, 12)]
    np.savez(sys.argv[3], images=[images for images, _ in results], values=[values for _, values in results])
"""


def _middle(model, images, layer):
    """The activations of the units in the middle, (images, feature maps)."""
    values = structure.features(model, [layer]).predict(images, verbose=0)[layer]
    return values[:, values.shape[1] // 2, values.shape[2] // 2] if values.ndim == 4 else values


class TestOptimizeInputs:
    def test_kernels_of_conv1_are_recovered(self):
        model = build_alexnet("testing", 10, initializer="zeros", input_scale=0.01)
        size = receptive_fields.receptive_field(model, "conv1")[0]
        middle, x, y = (size - 1) / 2, *np.mgrid[:size, :size]
        waves = [np.sin(2 * np.pi * (x - middle) / 4), np.sin(2 * np.pi * (y - middle) / 4)]  # as fast as the stride
        kernel = np.zeros(model.get_layer("conv1").kernels[0].shape, "float32")
        for index, wave in enumerate(waves):
            kernel[..., index] = wave[..., None]
        kernel[..., 0, 2], kernel[..., 2, 2] = 1, -1  # red without blue
        model.get_layer("conv1").kernels[0].assign(kernel)
        images, values = optimized_inputs.optimize_inputs(model, "conv1", [0, 1, 2], steps=60)
        assert images.shape == (3, size, size, 3) and images.dtype == np.uint8
        on_gray = np.full((3, 56, 56, 3), 127.5, "float32")
        field, maps = receptive_fields.receptive_field(model, "conv1"), model.get_layer("conv1").output.shape[1]
        first = field.start + field.step * (maps // 2)
        on_gray[:, first : first + size, first : first + size] = images
        np.testing.assert_allclose(values, np.diag(_middle(model, on_gray, "conv1")[:, :3]), rtol=1e-4)
        for index in range(3):
            patch = images[index].astype(float)
            assert np.corrcoef((patch - patch.mean()).ravel(), kernel[..., index].ravel())[0, 1] > 0.7
        assert (values > 0.4 * 127 * 0.01 * np.abs(kernel).sum(axis=(0, 1, 2))[:3]).all()

    def test_inputs_are_placed_where_the_unit_sees_them(self):
        layer = "conv2"
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.01)
        images, values = optimized_inputs.optimize_inputs(model, layer, [0, 5], steps=3)
        field, maps = receptive_fields.receptive_field(model, layer), model.get_layer(layer).output[0].shape[1]
        assert field.start < 0  # zeros are padded
        first, side = field.start + field.step * (maps // 2), images.shape[1]
        assert 0 < first < 56 - side
        on_gray = np.full((2, 56, 56, 3), 127.5, "float32")
        on_gray[:, first : first + side, first : first + side] = images
        np.testing.assert_allclose(values, np.diag(_middle(model, on_gray, layer)[:, [0, 5]]), rtol=1e-4)

    def test_units_are_activated_more_than_by_photographs(self, untrained, data_dir):
        model, _ = untrained
        description = schema.load_description(data_dir)
        pixels, _ = next(iter(reader.make_evaluation_dataset(data_dir, 250, 56, description=description)))
        for layer in ("conv3", "fc7"):
            _, values = optimized_inputs.optimize_inputs(model, layer, [3, 20], steps=80)
            assert (values > _middle(model, pixels, layer)[:, [3, 20]].max(axis=0)).all()

    def test_published_conv5_has_no_high_frequencies(self, published_features):
        model = build_alexnet("one_weird_trick", include_top=False, weights=published_features)
        images, values = optimized_inputs.optimize_inputs(model, "conv5", [109], steps=30)
        assert values[0] > 100
        spectrum = np.abs(np.fft.fft2(images[0].mean(axis=-1) - images[0].mean())) ** 2
        fast = np.hypot(*np.meshgrid(*[np.fft.fftfreq(len(spectrum))] * 2)) > 0.25
        assert spectrum[fast].sum() < 0.1 * spectrum.sum()

    def test_seed_decides_the_images(self, untrained):
        first, again, other = (
            optimized_inputs.optimize_inputs(untrained[0], "conv2", [3], steps=5, seed=seed)[0] for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).mean() > 0.5

    def test_own_head(self):
        base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=0.01)
        model = keras.Sequential([base, keras.layers.Dense(5, name="head")])
        images, values = optimized_inputs.optimize_inputs(model, "head", [4], steps=10)
        np.testing.assert_allclose(values, model.predict(images, verbose=0)[0, [4]], rtol=1e-3)
        picture = optimized_inputs.draw_optimized_inputs(model, ["conv1", "head"], 2, list("abcde"))
        assert picture.ndim == 3

    @pytest.mark.parametrize(
        "layer, maps, message", [("conv9", [0], "`layers` must be among"), ("conv1", [400], "`feature_maps` must be")]
    )
    def test_missing_layers_and_maps(self, layer, maps, message):
        with pytest.raises(ValueError, match=message):
            optimized_inputs.optimize_inputs(build_alexnet("testing", 10, initializer="zeros"), layer, maps)

    @pytest.mark.slow
    @pytest.mark.parametrize("backend", ["jax", "torch"])
    def test_other_backends_find_the_same_images(self, backend, tmp_path):
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
        model = build_alexnet("testing", 10, initializer="zeros", input_scale=0.01)
        kernel = model.get_layer("conv1").kernels[0]
        kernel.assign(np.random.default_rng(0).normal(scale=0.1, size=kernel.shape))
        model.save(tmp_path / "model.keras")
        files = [str(tmp_path / name) for name in ("model.keras", "results.npz")]
        environment = programs.ENVIRONMENT | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), backend, *files]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        results = np.load(files[1])
        (noise, on_gray), (expected, activated) = (
            optimized_inputs.optimize_inputs(model, "conv1", [0, 3], steps) for steps in (0, 12)
        )
        np.testing.assert_allclose(results["images"][0], noise, atol=1)  # before the first step, almost gray
        np.testing.assert_allclose(results["values"][0], on_gray, rtol=0.01)
        difference = results["images"][1].astype(float) - expected
        assert np.std(difference) < 0.2 * np.std(expected)
        np.testing.assert_allclose(results["values"][1], activated, rtol=0.05)
        assert (results["values"][1] > on_gray + 1).all()
