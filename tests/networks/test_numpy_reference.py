"""The paper's network, as it is built, against an independent NumPy implementation in float64."""

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet


@pytest.fixture(scope="module")
def paper():
    keras.utils.set_random_seed(0)
    return build_alexnet("paper")


def test_initial_weights(paper):
    biases = {"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 0}
    for name, bias in biases.items():
        layer = paper.get_layer(name)
        for kernel, values in zip(layer.kernels, layer.biases, strict=True):
            assert abs(np.std(kernel) - 0.01) < 0.0005, name
            assert abs(np.mean(kernel)) < 0.0005, name
            assert np.all(np.asarray(values) == bias), name


@pytest.mark.slow
def test_logits_and_gradients_equal_numpy(paper):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 224, 224, 3)).astype("uint8")
    mean = np.full((224, 224, 3), 120, "float32")
    paper.get_layer("mean_image").set_mean_image(mean)
    labels = np.array([3, 997])
    weights, variables = {}, []
    for name in reference.KERNEL_SHAPES:
        layer = paper.get_layer(name)
        for kernel in layer.kernels if name != "fc8" else ():
            # Large enough that every layer's signal and gradient can be compared.
            kernel.assign(random.normal(scale=np.sqrt(2 / np.prod(kernel.shape[:-1])), size=kernel.shape))
        weights[name] = tuple([np.float64(each) for each in part] for part in (layer.kernels, layer.biases))
        variables += [*layer.kernels, *layer.biases]
    assert {variable.path for variable in variables} == {variable.path for variable in paper.trainable_weights}

    logits_model = keras.Model(paper.input, paper.get_layer("fc8").output)
    with tf.GradientTape() as tape:
        logits = logits_model(images, training=False)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    gradients = tape.gradient(loss, [variable.value for variable in variables])

    expected_logits, expected_loss, expected = reference.paper_alexnet(np.float64(images) - mean, weights, labels)
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-4 * np.abs(expected_logits).max())
    assert abs(float(loss) - expected_loss) < 1e-4 * abs(expected_loss)
    expected = [gradient for kernels, biases in expected.values() for gradient in (*kernels, *biases)]
    for variable, ours, gradient in zip(variables, gradients, expected, strict=True):
        error = np.linalg.norm(ours - gradient) / np.linalg.norm(gradient)
        assert error < 1e-4, f"{variable.path}: {error:.2e}"
