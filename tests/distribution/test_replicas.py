"""Several replicas and workers train like one device."""

import pathlib
import re
import runpy
import shutil
import sys

import keras
import numpy as np
import pytest
import replica_training
from programs import run_well, train_flags

from alexnet_tf.distribution import local_workers

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "distributed_keras.py"


def train_replicas(data_dir, output, name, as_workers, num_workers=1, *others):
    if name == "one":
        try:
            replica_training.main(data_dir, output, name, as_workers, *others)
        finally:
            keras.config.set_dtype_policy("float32")
        return
    command = [sys.executable, replica_training.__file__, data_dir, output, name, as_workers, *others]
    assert local_workers.run_workers([str(part) for part in command], num_workers, max_restarts=0) == 0


class TestDataParallelism:
    @pytest.mark.parametrize(
        "name, num_workers, optimizer",
        [
            pytest.param("mirrored", 1, "PaperMomentum", marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("multi_worker", 2, "PaperMomentum", marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("multi_worker", 3, "PaperMomentum", marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("fc_parallel", 2, "Lars", marks=pytest.mark.slow),
            # 3 divides neither 16 nor 10 units.
            pytest.param("fc_parallel", 3, "PaperMomentum", marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("fc_parallel", 4, "PaperMomentum", marks=[pytest.mark.slow, pytest.mark.long]),
        ],
    )
    def test_some_steps_and_a_validation_equal_one_device(
        self, name, num_workers, optimizer, data_dir, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        steps, dropout = 6, 0
        others = (steps, dropout, optimizer)
        train_replicas(data_dir, tmp_path / "one.npz", "one", num_workers, 1, *others)
        train_replicas(data_dir, tmp_path / "worker{worker}.npz", name, num_workers, num_workers, *others)
        one = np.load(tmp_path / "one.npz")
        for worker in range(num_workers):
            distributed = np.load(tmp_path / f"worker{worker}.npz")
            assert distributed["replicas"] == (2 if name == "mirrored" else num_workers)
            rows = [[number] * 2 for number in range(num_workers) for _ in range(1 + number)]
            assert distributed["gathered"].tolist() == rows
            # Those of split layers are measured before the update, which changes them little.
            np.testing.assert_allclose(distributed["weight_norms"], one["weight_norms"], rtol=0.01)
            for key in set(one.files) - {"replicas", "gathered", "weight_norms"}:
                np.testing.assert_allclose(distributed[key], one[key], rtol=1e-6, atol=1e-6, err_msg=key)
        assert np.all(one["gradient_norms"] > 0)  # of the last step, over all replicas
        weights = [one[key] for key in one.files if key.startswith("arr_")]
        assert len(weights) > 20
        assert max(np.abs(weight).max() for weight in weights) > 0.1


class TestFcParallel:
    @pytest.mark.slow
    @pytest.mark.long
    @pytest.mark.parametrize("optimizer", ["PaperMomentum", "Lars"])
    def test_dropout_masks_and_norms_are_those_of_data_parallelism(self, optimizer, data_dir, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        steps, dropout = 20, 0.5
        for name in ("multi_worker", "fc_parallel"):
            output = tmp_path / f"{name}{{worker}}.npz"
            train_replicas(data_dir, output, name, 2, 2, steps, dropout, optimizer)
        expected = np.load(tmp_path / "multi_worker0.npz")
        for worker in range(2):
            split = np.load(tmp_path / f"fc_parallel{worker}.npz")
            for key in set(expected.files) - {"gathered", "weight_norms"}:
                np.testing.assert_allclose(split[key], expected[key], rtol=1e-6, atol=1e-6, err_msg=key)

    @pytest.mark.slow
    @pytest.mark.long
    def test_runs_resume_with_and_without_it(self, data_dir, tmp_path):
        def train(name, epochs, num_workers, *others):
            few_steps = ("--batch_size=600", "--allow_changed", "--schedule=constant", "--learning_rate=0.01")
            flags = train_flags(data_dir, tmp_path / name, *few_steps, f"--epochs={epochs}", *others)
            run_well("train", *flags, f"--num_local_workers={num_workers}")
            folder = tmp_path / name / "checkpoints" / f"{5 * epochs:08d}"
            with np.load(folder / "training_state.npz") as arrays:
                state = dict(arrays)
            return state | {v.path: v.numpy() for v in keras.models.load_model(folder / "model.keras").weights}

        def assert_same(found, expected):
            assert found.keys() == expected.keys()
            assert sum(values.size > 100 and np.std(values) > 0 for values in expected.values()) > 10
            for name, values in expected.items():
                # Ties of max-pooling differ in float32: differences of 0.009 were measured after 10 steps.
                np.testing.assert_allclose(found[name], values, rtol=0, atol=0.1 * np.abs(values).max(), err_msg=name)

        assert_same(train("split", 1, 2, "--fc_parallel"), train("plain", 1, 2))
        shutil.copytree(tmp_path / "split", tmp_path / "split-one")
        assert_same(train("split", 2, 3, "--fc_parallel"), train("plain", 2, 3))
        shutil.copytree(tmp_path / "split", tmp_path / "plain-three")
        assert_same(train("plain-three", 3, 3), train("split", 3, 3, "--fc_parallel"))
        train("split-one", 2, 1)


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLE.exists(), reason="a Bazel sandbox holds no docs")
def test_documented_example_trains_on_two_workers_like_on_one(capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    runpy.run_path(str(EXAMPLE))
    assert local_workers.run_workers([sys.executable, str(EXAMPLE)], num_workers=2, max_restarts=0) == 0
    printed = capfd.readouterr().out
    one, first, second = (
        np.array(re.findall(rf"worker {number}: loss (\S+), weights (\S+)", printed), float)
        for number in ("0 of 1", "0 of 2", "1 of 2")
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one, rtol=1e-4)
    assert one[0, 0] < 0.5  # the loss was 1.1
