"""The network on Keras's other backends computes and trains as on TensorFlow."""

import importlib.util
import subprocess
import sys

import backend_training
import numpy as np
import pytest
from programs import ENVIRONMENT


@pytest.fixture(scope="module")
def expected():
    return backend_training.logits_and_changes()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.long)])
def test_logits_and_training_steps_equal_tensorflow(backend, expected, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = ENVIRONMENT | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}  # with CUDA, JAX fails without a GPU
    command = [sys.executable, backend_training.__file__, str(tmp_path / "results.npz"), backend]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    results = np.load(tmp_path / "results.npz")
    assert results.files == list(expected)
    np.testing.assert_allclose(results["logits"], expected["logits"], rtol=1e-4, atol=1e-5)
    assert np.std(expected["logits"]) > 0.1
    for name in results.files[1:]:
        assert np.any(expected[name]) != ("mean_image" in name), name
        error = np.linalg.norm(results[name] - expected[name])
        assert error <= 1e-4 * np.linalg.norm(expected[name]), name
