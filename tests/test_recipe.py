"""The paper's update rule against float64 NumPy, and the learning rate's schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.recipe import PaperMomentum, make_learning_rate


class TestPaperMomentum:
    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_hundred_steps_equal_float64_with_decay_on_weights_only(self, mode):
        random = np.random.default_rng(0)
        kernel, bias = random.normal(scale=0.1, size=(7, 5)), random.normal(scale=0.1, size=5)
        variables = [keras.Variable(np.float32(kernel)), keras.Variable(np.float32(bias))]
        optimizer = PaperMomentum(learning_rate=0.01)
        optimizer.build(variables)

        def step(d_kernel, d_bias):
            optimizer.apply([d_kernel, d_bias], variables)

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "xla")
        expected = [kernel, bias]
        velocity = [np.zeros_like(kernel), np.zeros_like(bias)]
        for _ in range(100):
            gradients = [random.normal(scale=0.1, size=shape) for shape in ((7, 5), 5)]
            step(*(tf.constant(g, "float32") for g in gradients))
            for i, decay in enumerate((0.0005, 0.0)):
                velocity[i] = 0.9 * velocity[i] - decay * 0.01 * expected[i] - 0.01 * gradients[i]
                expected[i] = expected[i] + velocity[i]
        np.testing.assert_allclose(variables[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(variables[1], expected[1], atol=1e-6)
        assert int(optimizer.iterations) == 100

    def test_is_not_keras_own_weight_decay(self):
        # The difference that the class exists for: if this fails, keras.optimizers.SGD will do.
        ours, keras_own = (keras.Variable(np.ones((3, 3), "float32")) for _ in range(2))
        gradient = tf.ones((3, 3))
        a, b = PaperMomentum(0.1, decay=0.05), keras.optimizers.SGD(0.1, 0.9, weight_decay=0.05)
        for _ in range(12):
            a.apply([gradient], [ours])
            b.apply([gradient], [keras_own])
        assert np.abs(np.asarray(ours) - np.asarray(keras_own)).max() > 1e-3

    def test_goes_on_from_saved_variables(self):
        gradient = tf.constant([[1.0, -2.0]])
        whole = keras.Variable([[1.0, 2.0]])
        optimizer = PaperMomentum(0.1)
        for _ in range(4):
            optimizer.apply([gradient], [whole])
        half = keras.Variable([[1.0, 2.0]])
        first = PaperMomentum(0.1)
        for _ in range(2):
            first.apply([gradient], [half])
        second = PaperMomentum.from_config(first.get_config())
        second.build([half])
        for new, old in zip(second.variables, first.variables, strict=True):
            new.assign(old)
        for _ in range(2):
            second.apply([gradient], [half])
        np.testing.assert_array_equal(half, whole)

    @pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"decay": -1.0}])
    def test_values_outside_their_range_are_refused(self, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"Received: {name}={value}"):
            PaperMomentum(**arguments)


class TestMakeLearningRate:
    def test_cosine_rises_to_the_rate_and_falls_to_zero(self):
        schedule = make_learning_rate("cosine", 0.2, total_steps=100, warmup_steps=10)
        rates = np.array([float(schedule(step)) for step in range(101)])
        assert rates[0] == 0
        assert rates.argmax() == 10
        np.testing.assert_allclose(rates[10], 0.2, rtol=1e-6)
        np.testing.assert_allclose(rates[55], 0.1, rtol=1e-5)
        assert np.all(np.diff(rates[10:]) <= 0)
        assert abs(rates[100]) < 1e-8

    @pytest.mark.parametrize("schedule", ["plateau", "constant"])
    def test_others_begin_with_the_rate_itself(self, schedule):
        assert make_learning_rate(schedule, 0.01, 100) == 0.01

    def test_unknown_schedule_is_refused(self):
        with pytest.raises(ValueError, match="schedule='step'"):
            make_learning_rate("step", 0.01, 100)

    def test_warm_up_without_cosine_is_refused(self):
        with pytest.raises(ValueError, match="warmup_steps"):
            make_learning_rate("plateau", 0.01, 100, warmup_steps=5)
