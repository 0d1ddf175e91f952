"""Training in bfloat16: its types, and the error of its gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import precision
from alexnet_tf.training import callbacks

# bfloat16 rounds to one part in 2^9. A layer's gradient is rounded and computed from rounded weights and activations,
# while sums are in float32: four roundings.
BOUND = 4 * 2**-9


def build(dtype):
    keras.utils.set_random_seed(0)
    return build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125, dtype=dtype)


def gradients(layer, inputs, upstream):
    """The gradients of a layer's inputs and weights, as float64 arrays."""
    inputs = tf.cast(inputs, layer.compute_dtype)
    variables = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
    found = tape.gradient(outputs, [inputs, *variables], output_gradients=tf.cast(upstream, outputs.dtype))
    return [gradient.numpy().astype("float64") for gradient in found]


class TestGradients:
    def test_gradients_of_each_layer_are_close_to_float64(self):
        mixed, exact = build("mixed_bfloat16"), build("float64")
        exact.set_weights(mixed.get_weights())
        generator = np.random.default_rng(0)
        compared = []
        for layer, of_float64 in zip(mixed.layers[2:], exact.layers[2:], strict=True):
            inputs, upstream = (
                tf.cast(generator.normal(size=(8, *shape[1:])), "bfloat16")
                for shape in (layer.input.shape, layer.output.shape)
            )
            found, expected = (gradients(each, inputs, upstream) for each in (layer, of_float64))
            for gradient, of_exact in zip(found, expected, strict=True):
                error = np.linalg.norm(gradient - of_exact) / np.linalg.norm(of_exact)
                assert error < BOUND, (layer.name, gradient.shape, error)
            compared.append(layer.name)
        assert {"conv1", "norm1", "pool1", "drop6", "fc6", "fc8"} < set(compared)

    def test_weights_and_momentum_stay_in_float32(self, start, tmp_path, monkeypatch):
        monkeypatch.setattr(precision, "_on_this_machine", lambda: (True, "made"))
        received = start(tmp_path / "run", precision="auto")
        assert received.network.get_layer("conv2").compute_dtype == "bfloat16"
        assert {weight.dtype for weight in received.network.weights} == {"float32"}
        assert {momentum.dtype for momentum in received.optimizer.momentums} == {"float32"}
        assert received.callback(callbacks.SaveCheckpoints).settings["precision"] == "mixed_bfloat16"

    @pytest.mark.slow
    def test_auto_run_resumes_in_the_precision_it_began_in(self, train_here, start, tmp_path, monkeypatch):
        monkeypatch.setattr(precision, "_on_this_machine", lambda: (True, "made"))
        train_here(tmp_path / "run", precision="auto", epochs=1)
        monkeypatch.setattr(precision, "_on_this_machine", lambda: (False, "made"))
        assert start(tmp_path / "run", precision="auto", epochs=2).network.dtype_policy.name == "mixed_bfloat16"
