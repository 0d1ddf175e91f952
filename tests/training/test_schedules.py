"""The learning rate over a run."""

import numpy as np

from alexnet_tf.training import schedules
from alexnet_tf.training.schedules import make_learning_rate, original_phase


class TestMakeLearningRate:
    def test_poly_with_warm_up_is_saved_with_its_schedule(self, make_config):
        schedule = make_learning_rate(make_config(schedule="poly", learning_rate=0.2, warmup_steps=10, epochs=11), 10)
        loaded = type(schedule).from_config(schedule.get_config())
        for each in (schedule, loaded):
            rates = [float(each(step)) for step in (0, 5, 10, 60, 110)]
            np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.05, 0], atol=1e-7)

    def test_cosine_rises_to_the_rate_and_decays_to_zero(self, make_config):
        config = make_config(schedule="cosine", learning_rate=0.2, warmup_steps=10, epochs=10)
        schedule = make_learning_rate(config, 10)
        rates = np.array([float(schedule(step)) for step in range(101)])
        assert rates[0] == 0
        assert rates.argmax() == 10
        np.testing.assert_allclose(rates[10], 0.2, rtol=1e-6)
        np.testing.assert_allclose(rates[55], 0.1, rtol=1e-5)
        assert np.all(np.diff(rates[10:]) <= 0)
        assert abs(rates[100]) < 1e-8


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
