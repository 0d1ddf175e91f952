"""Replicas and workers train as one device does, and only the chief writes."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from programs import ENVIRONMENT, run, run_well, train_flags

from alexnet_tf.distribution import local_workers
from alexnet_tf.training import optimizers

REPLICA_TRAINING = pathlib.Path(__file__).with_name("replica_training.py")
EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "distributed_keras.py"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def train_replicas(data_dir, output, name, as_workers, num_workers=1, *others):
    command = [sys.executable, REPLICA_TRAINING, data_dir, output, name, as_workers, *others]
    assert local_workers.run_workers([str(part) for part in command], num_workers, max_restarts=0) == 0


class TestEqualToOneDevice:
    @pytest.mark.parametrize(
        "name, num_workers",
        [
            pytest.param("mirrored", 1, marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("multi_worker", 2, marks=pytest.mark.slow),
            pytest.param("multi_worker", 3, marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("fc_parallel", 2, marks=[pytest.mark.slow, pytest.mark.long]),
            pytest.param("fc_parallel", 3, marks=pytest.mark.slow),  # of which neither 16 nor 10 units are a multiple
            pytest.param("fc_parallel", 4, marks=[pytest.mark.slow, pytest.mark.long]),
        ],
    )
    def test_twenty_steps_and_the_validation(self, name, num_workers, data_dir, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        train_replicas(data_dir, tmp_path / "one.npz", "one", num_workers)
        train_replicas(data_dir, tmp_path / "worker{worker}.npz", name, num_workers, num_workers)
        one = np.load(tmp_path / "one.npz")
        for worker in range(num_workers):
            distributed = np.load(tmp_path / f"worker{worker}.npz")
            assert distributed["replicas"] == (2 if name == "mirrored" else num_workers)
            for key in set(one.files) - {"replicas"}:
                np.testing.assert_allclose(distributed[key], one[key], rtol=1e-6, atol=1e-6, err_msg=key)
        assert np.all(one["gradient_norms"] > 0)  # those of the last step, over all replicas
        weights = [one[key] for key in one.files if key.startswith("arr_")]
        assert len(weights) > 20
        assert max(np.abs(weight).max() for weight in weights) > 0.1


class TestSplitLayers:
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
            for key in expected.files:
                np.testing.assert_allclose(split[key], expected[key], rtol=1e-6, atol=1e-6, err_msg=key)

    @pytest.mark.slow
    @pytest.mark.long
    def test_files_are_whole_and_the_run_goes_on_with_and_without(self, data_dir, tmp_path):
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
                # In float32, where ties of max-pooling are decided otherwise: 0.009 of it was seen after 10 steps.
                np.testing.assert_allclose(found[name], values, rtol=0, atol=0.1 * np.abs(values).max(), err_msg=name)

        assert_same(train("split", 1, 2, "--fc_parallel"), train("plain", 1, 2))
        shutil.copytree(tmp_path / "split", tmp_path / "split-one")
        assert_same(train("split", 2, 3, "--fc_parallel"), train("plain", 2, 3))
        shutil.copytree(tmp_path / "split", tmp_path / "plain-three")
        assert_same(train("plain-three", 3, 3), train("split", 3, 3, "--fc_parallel"))
        train("split-one", 2, 1)


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLE.exists(), reason="a Bazel sandbox holds no docs")
def test_keras_model_of_ones_own_trains_on_two_workers_as_on_one(capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    results = {}
    for num_workers in (1, 2):
        assert local_workers.run_workers([sys.executable, str(EXAMPLE)], num_workers, max_restarts=0) == 0
        found = re.findall(r"worker \d of (\d): loss (\S+), weights (\S+)", capfd.readouterr().out)
        assert len(found) == num_workers
        results[num_workers] = np.array(found, float)[:, 1:]
    np.testing.assert_array_equal(results[2][0], results[2][1])
    np.testing.assert_allclose(results[2][0], results[1][0], rtol=1e-4)
    assert results[1][0][0] < 0.5  # the loss was 1.1


class TestDropout:
    def test_masks_differ_between_replicas_and_follow_from_the_seed(self):
        script = textwrap.dedent("""
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            import keras, numpy as np
            from alexnet_tf import layers
            from alexnet_tf.distribution import strategies
            def masks(make, strategy):
                with strategy.scope():
                    layer = make()
                step = tf.function(lambda: layer(tf.ones((4, 100)), training=True))
                return [np.stack(strategy.experimental_local_results(strategy.run(step))) > 0 for _ in range(2)]
            for make in (lambda: layers.PaperDropout(0.5, seed=1), lambda: layers.ReplicaDropout(0.5, seed=1)):
                mirrored = strategies.make_strategy("mirrored")
                first, second = masks(make, mirrored)
                again, _ = masks(make, mirrored)
                (one,), _ = masks(make, tf.distribute.get_strategy())
                assert first.shape == (2, 4, 100)
                assert 0.3 < np.mean(first[0] != first[1]) < 0.7, "the replicas drop the same"
                assert 0.3 < np.mean(first != second) < 0.7, "the steps drop the same"
                assert np.array_equal(first, again)
            stock = keras.layers.Dropout(0.5, seed=1)(tf.ones((4, 100)), training=True)
            ours = layers.ReplicaDropout(0.5, seed=1)(tf.ones((4, 100)), training=True)
            assert np.array_equal(stock, ours)
        """)
        command = [sys.executable, "-c", script]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


class TestWorkersOfTheProgram:
    @pytest.mark.slow
    def test_only_the_chief_writes_and_all_its_metrics_are_global(self, data_dir, tmp_path):
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=1", "--num_local_workers=2")
        output = run_well("train", *flags)
        assert "2 replicas on 2 workers" in output
        assert output.count("Trained to the end of epoch 1") == 1
        written = sorted(path.name for path in (tmp_path / "run").iterdir())
        expected = [
            ".lock",
            "checkpoints",
            "dataset.json",
            "initial_kernels.npz",
            "model.keras",
            "statistics.npz",
            "tensorboard",
            "training.json",
        ]
        assert written == expected
        event_files = [path.name for path in (tmp_path / "run" / "tensorboard").rglob("events*")]
        assert len({name.split(".")[5] for name in event_files}) == 1  # events.out.tfevents.TIME.HOST.PROCESS
        reported = json.loads((tmp_path / "run" / "training.json").read_text())
        evaluation = run_well("evaluate", f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}", "--noten_views")
        assert f"{reported['val_top1_error']:.2%}" in evaluation

    @pytest.mark.slow
    @pytest.mark.long
    def test_workers_that_find_different_checkpoints_are_refused(self, data_dir, run_dir, tmp_path):
        # As on two machines whose --run_dir is not the same disk: the second has none of the first's checkpoints.
        script = textwrap.dedent("""
            import json, os, sys
            if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
                sys.argv.append(f"--run_dir={sys.argv.pop(1)}")
            else:
                sys.argv.pop(1)
            from alexnet_tf import train
            train.run()
        """)
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=1")
        run_well("train", *flags, "--num_local_workers=2", "--checkpoint_every_steps=1000")
        starter = textwrap.dedent("""
            import sys
            from alexnet_tf.distribution import local_workers
            sys.exit(local_workers.run_workers([sys.executable, "-c", *sys.argv[1:]], 2, 0))
        """)
        others = ("--epochs=2", "--allow_changed")
        command = [sys.executable, "-c", starter, script, str(tmp_path / "other"), *flags, *others]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode != 0
        assert "a --run_dir on a disk that they share" in result.stderr
        assert "Worker 1 (localhost:" in result.stderr

    @pytest.mark.slow
    def test_workers_with_different_flags_are_refused(self, data_dir, tmp_path):
        script = textwrap.dedent("""
            import json, os, sys
            from alexnet_tf import train
            if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
                sys.argv.append("--layer_rates=fc8=0")
            train.run()
        """)
        starter = textwrap.dedent("""
            import sys
            from alexnet_tf.distribution import local_workers
            sys.exit(local_workers.run_workers([sys.executable, "-c", *sys.argv[1:]], 2, 0))
        """)
        command = [sys.executable, "-c", starter, script, *train_flags(data_dir, tmp_path / "run", "--epochs=1")]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode != 0
        assert "All workers must have the same flags" in result.stderr
        assert "'layer_rates': ['fc8=0']" in result.stderr

    @pytest.mark.slow
    @pytest.mark.long
    def test_slurm_starts_workers(self, data_dir, tmp_path):
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=1")
        processes = []
        for task in range(2):
            slurm = {
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": str(task),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_STEP_TASKS_PER_NODE": "2",
            }
            command = [sys.executable, "-m", "alexnet_tf.train", *flags]
            processes.append(
                subprocess.Popen(command, env=ENVIRONMENT | slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            )
        outputs = [process.communicate() for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        assert b"2 replicas on 2 workers" in outputs[0][0]
        assert (tmp_path / "run" / "model.keras").exists()

    @pytest.mark.slow
    def test_batch_that_workers_cannot_share_is_refused(self, data_dir, tmp_path):
        result = run("train", *train_flags(data_dir, tmp_path / "run", "--batch_size=25", "--num_local_workers=2"))
        assert result.returncode != 0
        assert "`batch_size` must be a multiple of the number of replicas, 2. Received: 25" in result.stderr


class TestReducingInHalfPrecision:
    def test_gradients_are_added_up_in_it_and_the_update_stays_exact(self):
        script = textwrap.dedent("""
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            import keras, numpy as np
            from alexnet_tf.distribution import strategies
            from alexnet_tf.training import optimizers
            strategy = strategies.make_strategy("mirrored")
            ends = {}
            for dtype in optimizers.REDUCE_DTYPES:
                with strategy.scope():
                    weight = keras.Variable(np.linspace(-1, 1, 1000, dtype="float32").reshape(10, 100))
                    optimizer = optimizers.PaperMomentum(0.1, reduce_dtype=dtype)
                    optimizer.build([weight])
                @tf.function
                def step():
                    def of_each():
                        gradient = weight.value / 3
                        optimizer.apply([gradient], [weight])
                    strategy.run(of_each)
                graph = step.get_concrete_function().graph
                sums = [op for op in graph.get_operations() if op.type == "CollectiveReduceV2"]
                added = {op.outputs[0].dtype.name for op in sums}
                assert added == {dtype}, added
                for _ in range(20):
                    step()
                ends[dtype] = weight.numpy()
                assert ends[dtype].dtype == "float32"
            for dtype, tolerance in (("float16", 2e-3), ("bfloat16", 2e-2)):
                difference = np.abs(ends[dtype] - ends["float32"]).max()
                assert 0 < difference < tolerance, (dtype, difference)
        """)
        command = [sys.executable, "-c", script]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr

    def test_other_types_are_refused(self):
        with pytest.raises(ValueError, match=r"`reduce_dtype` must be one of .*Received: reduce_dtype='int8'"):
            optimizers.PaperMomentum(reduce_dtype="int8")


class TestLossScale:
    def test_overflow_on_one_replica_skips_the_step_on_all(self):
        script = textwrap.dedent("""
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            import keras, numpy as np
            from alexnet_tf.distribution import strategies
            from alexnet_tf.training import optimizers
            strategy = strategies.make_strategy("mirrored")
            with strategy.scope():
                weight = keras.Variable(np.ones((2, 3), "float32"))
                optimizer = optimizers.AgreedLossScale(optimizers.PaperMomentum(0.1), initial_scale=8.0)
                optimizer.build([weight])
            @tf.function
            def step(values):
                def of_each():
                    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                    optimizer.apply([tf.fill((2, 3), values[replica])], [weight])
                strategy.run(of_each)
            for values in ([np.inf, 1.0], [1.0, np.inf], [np.nan, np.nan]):
                step(tf.constant(values, tf.float32))
                assert int(optimizer.iterations.numpy()) == 0
                copies = [copy.numpy() for copy in strategy.experimental_local_results(weight.value)]
                assert len(copies) == 2 and all(np.all(copy == 1) for copy in copies), copies
            assert float(optimizer.dynamic_scale.numpy()) == 1.0  # halved three times
            step(tf.constant([1.0, 2.0]))
            copies = [copy.numpy() for copy in strategy.experimental_local_results(weight.value)]
            assert int(optimizer.iterations.numpy()) == 1
            np.testing.assert_allclose(copies, 1 - 0.1 * (3 + 0.0005), rtol=1e-6)
        """)
        command = [sys.executable, "-c", script]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stderr
