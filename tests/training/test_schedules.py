"""The learning rate over a run."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.training import callbacks, loop, schedules
from alexnet_tf.training.optimizers import PaperMomentum
from alexnet_tf.training.schedules import make_learning_rate, original_phase, scale_learning_rate


class TestScaleLearningRate:
    def test_linear_and_square_root(self):
        assert [scale_learning_rate(0.01, how, 512) for how in ("none", "linear", "sqrt")] == [0.01, 0.04, 0.02]
        with pytest.raises(ValueError, match="how='cube'"):
            scale_learning_rate(0.01, "cube", 512)


class TestMakeLearningRate:
    def test_poly_rises_to_the_rate_and_falls_to_zero_along_a_parabola(self):
        schedule = make_learning_rate("poly", 0.2, total_steps=110, warmup_steps=10)
        loaded = type(schedule).from_config(schedule.get_config())
        for each in (schedule, loaded):
            rates = [float(each(step)) for step in (0, 5, 10, 60, 110)]
            np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.05, 0], atol=1e-7)

    def test_cosine_rises_to_the_rate_and_falls_to_zero(self):
        schedule = make_learning_rate("cosine", 0.2, total_steps=100, warmup_steps=10)
        rates = np.array([float(schedule(step)) for step in range(101)])
        assert rates[0] == 0
        assert rates.argmax() == 10
        np.testing.assert_allclose(rates[10], 0.2, rtol=1e-6)
        np.testing.assert_allclose(rates[55], 0.1, rtol=1e-5)
        assert np.all(np.diff(rates[10:]) <= 0)
        assert abs(rates[100]) < 1e-8

    def test_step_divides_by_ten(self):
        schedule = make_learning_rate("step", 0.01, total_steps=100, steps_per_division=20)
        np.testing.assert_allclose([schedule(step) for step in (0, 19, 20, 39, 40)], [0.01, 0.01, 1e-3, 1e-3, 1e-4])

    @pytest.mark.parametrize("schedule, steps", [("step", None), ("constant", 5)])
    def test_step_without_its_length_and_length_without_step_are_refused(self, schedule, steps):
        with pytest.raises(ValueError, match=f"steps_per_division={steps}"):
            make_learning_rate(schedule, 0.01, 100, steps_per_division=steps)

    @pytest.mark.parametrize("schedule", ["plateau", "constant", "original"])
    def test_others_begin_with_the_rate_itself(self, schedule):
        assert make_learning_rate(schedule, 0.01, 100) == 0.01

    def test_unknown_schedule_is_refused(self):
        with pytest.raises(ValueError, match="schedule='stairs'"):
            make_learning_rate("stairs", 0.01, 100)

    def test_warm_up_without_cosine_is_refused(self):
        with pytest.raises(ValueError, match="warmup_steps"):
            make_learning_rate("plateau", 0.01, 100, warmup_steps=5)


def small_training(schedule_callbacks, optimizer, first_epoch, epochs, validation=None):
    """Trains the testing variant for some epochs of one step; returns its weights after each."""
    keras.utils.set_random_seed(0)
    model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.01)
    training_model = with_color_offset(model)
    loop.compile_model(training_model, optimizer, jit=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype("uint8")
    labels = np.array([0, 1, 2, 0], "int32")
    batch = ({"image": images, "color_offset": np.zeros((4, 3), "float32")}, labels)
    history = []
    loop.fit(
        training_model,
        lambda step, share: tf.data.Dataset.from_tensors(batch).repeat(),
        lambda share: tf.data.Dataset.from_tensors((images, labels)),
        first_epoch,
        1,
        epochs,
        [
            *schedule_callbacks,
            keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: history.append(model.get_weights())),
        ],
    )
    return [w.path for w in model.weights], history


class TestOriginalSchedule:
    def test_rates_are_those_of_the_notes(self):
        rates = {}
        for epoch in range(1, 91):
            phase = original_phase(epoch - 1)
            rates[epoch] = [
                0.01 * rate for rate in (phase.weights, phase.biases, phase.conv1_weights, phase.conv1_biases)
            ]
        changes = [epoch for epoch in range(2, 91) if rates[epoch] != rates[epoch - 1]]
        assert changes == [25, 51, 67, 72, 79]
        np.testing.assert_allclose(rates[1], [0.01, 0.02, 0.01, 0.02])
        np.testing.assert_allclose(rates[25], [1e-3, 0.02, 1e-3, 0.02])
        np.testing.assert_allclose(rates[66], [1e-4, 0.02, 1e-4, 0.02])
        np.testing.assert_allclose(rates[67], [1e-4, 0.02, 1e-5, 0.02])
        np.testing.assert_allclose(rates[72], [1e-4, 0.02, 0, 0])
        np.testing.assert_allclose(rates[90], [1e-5, 0.02, 0, 0])
        assert schedules.ORIGINAL_COLOR_NOISE_EPOCHS == 66

    def test_rates_are_set_wherever_the_run_begins(self):
        for first_epoch, weights, bias, conv1, conv1_bias in (
            (0, 0.01, 2, 1, 2),
            (66, 1e-4, 200, 0.1, 200),
            (78, 1e-5, 2000, 0, 0),
        ):
            optimizer = PaperMomentum(0.01)
            schedule = callbacks.FollowOriginalSchedule(optimizer, 0.01)
            paths, _ = small_training([schedule], optimizer, first_epoch, first_epoch + 1)
            np.testing.assert_allclose(optimizer.learning_rate, weights, rtol=1e-6)
            multipliers = dict(zip(paths[1:], np.asarray(optimizer.rate_multipliers), strict=True))
            for path, expected in (
                ("conv1/kernel_1", conv1),
                ("conv1/bias_2", conv1_bias),
                ("conv3/kernel_2", 1),
                ("fc6/bias_1", bias),
                ("fc8/bias", bias),
            ):
                np.testing.assert_allclose(multipliers[path], expected, rtol=1e-5, err_msg=path)

    def test_conv1_is_frozen_from_epoch_72(self):
        optimizer = PaperMomentum(0.01)
        paths, history = small_training([callbacks.FollowOriginalSchedule(optimizer, 0.01)], optimizer, 69, 73)
        conv1 = [[w for path, w in zip(paths, weights, strict=True) if "conv1" in path] for weights in history]
        changed = [not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(conv1)]
        assert changed == [True, False, False]  # epochs 71, 72, 73
        fc8 = [weights[-1] for weights in history]
        assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(fc8))


class TestDivideRateOnPlateau:
    def test_divides_by_ten_three_times_at_most(self):
        optimizer = PaperMomentum(0.01)
        plateau = callbacks.DivideRateOnPlateau(patience=2)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        plateau.set_model(model)
        rates = []
        for epoch, top1 in enumerate([0.1, 0.2, 0.2, 0.15, 0.3] + [0.3] * 8):
            plateau.on_epoch_end(epoch, {"val_top1": top1})
            rates.append(float(optimizer.learning_rate))
        expected = [0.01] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 5
        np.testing.assert_allclose(rates, expected, rtol=1e-5)
