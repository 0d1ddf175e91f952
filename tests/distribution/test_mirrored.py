"""What the replicas of a mirrored strategy do, in a process with two logical CPU devices."""

import subprocess
import sys
import textwrap

import pytest
from programs import ENVIRONMENT

TWO_DEVICES = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from alexnet_tf import layers
from alexnet_tf.distribution import strategies
from alexnet_tf.training import optimizers
"""


def run_on_two_devices(script):
    command = [sys.executable, "-c", TWO_DEVICES + textwrap.dedent(script)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_masks_differ_between_replicas_and_follow_from_the_seed():
    run_on_two_devices("""
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


def test_reduced_gradients_are_half_precision_and_updates_are_not():
    run_on_two_devices("""
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


@pytest.mark.slow
def test_overflow_on_one_replica_skips_the_step_on_all():
    run_on_two_devices("""
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
