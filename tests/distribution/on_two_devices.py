"""Tests of replicas, which test_mirrored.py runs in a process with two logical CPU devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf import layers
from alexnet_tf.distribution import strategies
from alexnet_tf.training import optimizers

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="module")
def mirrored():
    # One for all tests: the collective operations of a second one would have the names of the first one's.
    return strategies.make_strategy("mirrored")


def test_masks_differ_between_replicas_and_follow_from_the_seed(mirrored):
    def masks(make, strategy):
        with strategy.scope():
            layer = make()
        step = tf.function(lambda: layer(tf.ones((4, 100)), training=True))
        return [np.stack(strategy.experimental_local_results(strategy.run(step))) > 0 for _ in range(2)]

    for make in (lambda: layers.PaperDropout(0.5, seed=1), lambda: layers.ReplicaDropout(0.5, seed=1)):
        first, second = masks(make, mirrored)
        again, _ = masks(make, mirrored)
        assert first.shape == (2, 4, 100)
        assert 0.3 < np.mean(first[0] != first[1]) < 0.7, "the replicas drop the same"
        assert 0.3 < np.mean(first != second) < 0.7, "the steps drop the same"
        assert np.array_equal(first, again)
    stock = keras.layers.Dropout(0.5, seed=1)(tf.ones((4, 100)), training=True)
    ours = layers.ReplicaDropout(0.5, seed=1)(tf.ones((4, 100)), training=True)
    assert np.array_equal(stock, ours)


@pytest.mark.parametrize("dtype", optimizers.REDUCE_DTYPES)
def test_gradients_are_summed_in_the_type_asked_for_and_updates_are_in_float32(dtype, mirrored):
    with mirrored.scope():
        weight = keras.Variable(np.ones((2, 3), "float32"))
        optimizer = optimizers.PaperMomentum(0.1, reduce_dtype=dtype)
        optimizer.build([weight])

    @tf.function
    def step():
        mirrored.run(lambda: optimizer.apply([weight.value / 3], [weight]))

    operations = step.get_concrete_function().graph.get_operations()
    assert {op.outputs[0].dtype.name for op in operations if op.type == "CollectiveReduceV2"} == {dtype}
    step()
    gradient = tf.cast(tf.cast(1 / 3, dtype), tf.float32).numpy()
    np.testing.assert_allclose(weight, np.full((2, 3), 1 - 0.1 * (2 * gradient + 0.0005)), rtol=1e-6)


def test_overflow_on_one_replica_skips_the_step_on_all(mirrored):
    with mirrored.scope():
        weight = keras.Variable(np.ones((2, 3), "float32"))
        optimizer = optimizers.AgreedLossScale(optimizers.PaperMomentum(0.1), initial_scale=8.0)
        optimizer.build([weight])

    @tf.function
    def step(values):
        def of_each():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([tf.fill((2, 3), values[replica])], [weight])

        mirrored.run(of_each)

    for values in ([np.inf, 1.0], [1.0, np.inf], [np.nan, np.nan]):
        step(tf.constant(values, tf.float32))
        assert int(optimizer.iterations.numpy()) == 0
        copies = [copy.numpy() for copy in mirrored.experimental_local_results(weight.value)]
        assert len(copies) == 2 and all(np.all(copy == 1) for copy in copies), copies
    assert float(optimizer.dynamic_scale.numpy()) == 1.0  # halved three times
    step(tf.constant([1.0, 2.0]))
    copies = [copy.numpy() for copy in mirrored.experimental_local_results(weight.value)]
    assert int(optimizer.iterations.numpy()) == 1
    np.testing.assert_allclose(copies, 1 - 0.1 * (3 + 0.0005), rtol=1e-6)


def test_multipliers_reach_all_replicas(mirrored):
    weights = []
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")]
            )
            model.compile(optimizers.PaperMomentum(0.1), "mse")
            model.optimizer.build(model.trainable_variables)
        for multipliers in ({"bias": 2.0}, {"a": 0.0, "b/kernel": 0.5}):
            model.optimizer.set_rate_multipliers(multipliers)
            model.fit(x, x[:, :2], batch_size=8, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, mirrored in zip(*weights, strict=True):
        np.testing.assert_allclose(mirrored, one, atol=1e-6)
