"""The speed benchmarks compare equal networks, and run."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from programs import ENVIRONMENT
from torch_weights import copy_to_torch

from alexnet_tf.model import build_alexnet

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
import contestants  # noqa: E402
import speed  # noqa: E402


@pytest.mark.slow
def test_plain_keras_and_pytorch_networks_compute_the_same_function():
    random = np.random.default_rng(0)
    ours = build_alexnet("paper", contestants.CLASSES, initializer="he_normal", input_scale=1 / 80)
    for layer in ours.layers:
        for bias in getattr(layer, "biases", []):
            bias.assign(random.normal(scale=0.1, size=bias.shape))
    images = random.integers(0, 256, (2, contestants.IMAGE_PX, contestants.IMAGE_PX, 3))
    expected = ours(images.astype("uint8"), training=False).numpy()
    assert np.max(np.std(expected, axis=0)) > 1e-4

    keras_network = contestants.plain_keras_network()
    for layer in keras_network.layers:
        if layer.weights:
            name, _, column = layer.name.partition("_")
            own = ours.get_layer(name)
            if column:  # a column of conv2, conv4 or conv5
                weights = [own.kernels[int(column) - 1], own.biases[int(column) - 1]]
            else:
                weights = [np.concatenate(parts, axis=-1) for parts in (own.kernels, own.biases)]
            # Its dropout rescales during training, ours halves the inputs of fc7 and fc8 at test time.
            factor = 0.5 if name in ("fc7", "fc8") else 1.0
            layer.set_weights([factor * np.asarray(weights[0]), np.asarray(weights[1])])
    scaled = np.float32(images) / 80
    np.testing.assert_allclose(keras_network(scaled, training=False), expected, rtol=1e-3, atol=1e-6)

    network = contestants.torch_network().eval()
    copy_to_torch(ours, network)
    with torch.no_grad():
        logits = network(torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy()))
    probabilities = torch.softmax(logits, dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-6)


def test_bfloat16_is_compared_with_the_best_in_float32_and_in_bfloat16():
    times = {"this project": [4.0], "this project, bfloat16": [2.0, 2.2, 9.0], "PyTorch": [11.0], "plain Keras": [5.5]}
    times |= {"PyTorch, bfloat16": [8.8], "matrix product, bfloat16": [1.1]}
    lines = speed.tables({("train", 32): times}, {}, None)
    rows = dict(line.split(" | ", 1) for line in lines if " | " in line)
    assert rows["| this project, bfloat16"].startswith("14.5 (3.56 to 16)")
    assert rows["| **this project, bfloat16 / this project**"] == "1.82 |"
    assert rows["| **this project, bfloat16 / plain Keras**"] == "2.50 |"
    assert rows["| **this project, bfloat16 / best of PyTorch in either type**"] == "4.00 |"
    assert rows["| **this project, bfloat16 / matrix product, bfloat16**"] == "0.50 |"
    assert "| **this project / plain Keras with XLA**" not in rows


def test_rows_in_bfloat16_are_for_processors_with_units():
    names = ["this project", "this project, bfloat16", "onnxruntime, int8"]
    assert speed.without_missing_units(names, "flags : avx2 avx512_bf16") == names
    assert speed.without_missing_units(names, "flags : avx2 avx512_vnni") == [names[0], names[2]]


@pytest.mark.slow
@pytest.mark.long
def test_quick_run_prints_every_contestants_speed():
    names = "this project,plain Keras,matrix product"
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick", f"--contestants={names}", "--fewer_bits="]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith(("| this", "| plain", "| *m"))]
    speeds = {row[0]: [float(cell.split(" ")[0]) for cell in row[1:3]] for row in rows[:3]}
    assert len(speeds) == 3
    assert all(speed > 0 for values in speeds.values() for speed in values)
    assert "`model.fit` with TensorBoard" in result.stdout


@pytest.mark.slow
@pytest.mark.long
def test_gpu_table_has_a_row_per_installed_contestant_and_names_missing_frameworks(tmp_path):
    # As on a machine without TensorFlow: no process can import it.
    (tmp_path / "sitecustomize.py").write_text('import sys; sys.modules["tensorflow"] = None')
    names = "this project,this project on JAX,this project on PyTorch"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick", f"--contestants={names}"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| float32")]
    assert [(row[1], row[3]) for row in rows] == [
        (mode, f"this project on {backend}") for mode in ("infer", "train") for backend in ("JAX", "PyTorch")
    ]
    assert all(float(row[4]) > 0 for row in rows), rows
    assert "tensorflow is not installed" in result.stdout
