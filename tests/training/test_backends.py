"""The network on Keras's other backends computes and trains as on TensorFlow."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

SCRIPT = """
    import sys
    import keras, numpy as np
    from alexnet_tf import model
    from alexnet_tf.training import optimizers

    keras.utils.set_random_seed(0)
    alexnet = model.build_alexnet("testing", 10, input_scale=1 / 80)
    random = np.random.default_rng(0)
    for weight in alexnet.weights:  # at this scale every layer has a gradient
        spread = (2 / np.prod(weight.shape[:-1])) ** 0.5 if len(weight.shape) > 1 else 0.1
        weight.assign(random.normal(scale=spread, size=weight.shape))
    alexnet.get_layer("mean_image").set_mean_image(np.full((56, 56, 3), 120.0))
    images, labels = random.integers(0, 256, (4, 56, 56, 3)).astype("uint8"), np.arange(4)
    logits = keras.Model(alexnet.input, alexnet.get_layer("fc8").output)(images, training=False)
    results = {"logits": keras.ops.convert_to_numpy(logits)}
    for name in ("drop6", "drop7"):
        alexnet.get_layer(name).rate = 0.0  # backends draw different random numbers
    before = alexnet.get_weights()
    optimizers = {"paper": optimizers.PaperMomentum(0.01, weight_decay=0.05), "LARS": optimizers.Lars(0.1)}
    for rule, optimizer in optimizers.items():
        alexnet.set_weights(before)
        alexnet.compile(optimizer, "sparse_categorical_crossentropy")
        alexnet.train_on_batch(images, labels)
        # Frozen when it already has momentum, which must become 0.
        optimizer.set_rate_multipliers({"bias": 2.0, "conv2/kernel_2": 0.0})
        for _ in range(2):
            alexnet.train_on_batch(images, labels)
        for weight, old in zip(alexnet.weights, before):
            results[f"{rule}: {weight.path}"] = weight.numpy() - old
    np.savez(sys.argv[1], **results)
    assert keras.backend.backend() == sys.argv[2]
"""


def results_on(backend, folder):
    path = folder / f"{backend}.npz"
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    environment["JAX_PLATFORMS"] = "cpu"  # JAX with CUDA fails if there is no GPU
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path), backend]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return np.load(path)


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    return results_on("tensorflow", tmp_path_factory.mktemp("tensorflow"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.long)])
def test_logits_and_training_steps_equal_tensorflow(backend, on_tensorflow, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    results = results_on(backend, tmp_path)
    expected = on_tensorflow
    assert results.files == expected.files
    np.testing.assert_allclose(results["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    assert np.std(expected["logits"]) > 0.1
    for name in expected.files[1:]:
        assert np.any(expected[name]) != ("mean_image" in name), name
        error = np.linalg.norm(results[name] - expected[name])
        assert error <= 1e-4 * np.linalg.norm(expected[name]), name
