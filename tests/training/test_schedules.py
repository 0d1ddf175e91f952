"""The learning rate over a run."""

import numpy as np
import pytest

from alexnet_tf.training import schedules
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


class TestOriginalPhase:
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
