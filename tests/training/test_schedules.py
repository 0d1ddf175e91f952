"""The learning rate over a run."""

import numpy as np

from alexnet_tf.training.schedules import make_learning_rate


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

    def test_warm_up_begins_with_its_rate_and_may_overlap(self, make_config):
        changes = {"schedule": "poly", "learning_rate": 0.2, "warmup_steps": 10, "warmup_rate": 0.1, "epochs": 10}
        for overlaps, expected in ((False, [0.1, 0.15, 0.2, 0.05]), (True, [0.1, 0.15, 0.162, 0.2 * 0.45**2])):
            schedule = make_learning_rate(make_config(**changes, warmup_overlaps=overlaps), 10)
            rates = [float(schedule(step)) for step in (0, 5, 10, 55)]
            np.testing.assert_allclose(rates, expected, rtol=1e-5)
