"""Warnings for training that fails without an error."""

import math
import types

import pytest

from alexnet_tf.training import health_checks


class TestTrainingHealthChecks:
    def test_each_standstill_is_reported_once(self, monkeypatch, caplog):
        clock = types.SimpleNamespace(seconds=0.0)
        checks = health_checks.TrainingHealthChecks(10, patience_seconds=8)

        class Ended:
            def wait(self, seconds):
                clock.seconds += seconds
                if clock.seconds in (40, 42, 44):
                    checks.on_test_batch_end(0)
                return clock.seconds > 60

        monkeypatch.setattr(health_checks, "time", types.SimpleNamespace(monotonic=lambda: clock.seconds))
        checks._last_step_end, checks._training_ended = 0.0, Ended()
        checks._watch_clock()  # what the thread does
        seconds = [record.args[0] for record in caplog.records if "No step has ended for" in record.message]
        assert seconds == [10, 10]  # at 10 and at 54 seconds

    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_loss_that_is_not_finite_ends_training_in_its_step(self, loss):
        checks = health_checks.TrainingHealthChecks(10)
        checks.set_model(types.SimpleNamespace(optimizer=types.SimpleNamespace(iterations=7)))
        checks.on_epoch_begin(0)
        checks.on_train_batch_end(0, {"loss": 2.0})
        with pytest.raises(FloatingPointError, match=f"The loss of step 7 is {loss}"):
            checks.on_train_batch_end(1, {"loss": loss})

    @pytest.mark.parametrize("ends_after, warnings", [(90, 0), (110, 1), (400, 1)])
    def test_hundred_steps_at_chance_are_warned_of_once(self, ends_after, warnings, caplog):
        checks = health_checks.TrainingHealthChecks(10)
        losses = [math.log(10) * (1.005 if step < ends_after else 0.9) for step in range(500)]
        for epoch in range(2):
            checks.on_epoch_begin(epoch)
            of_epoch = losses[250 * epoch : 250 * (epoch + 1)]
            for batch in range(250):
                checks.on_train_batch_end(batch, {"loss": sum(of_epoch[: batch + 1]) / (batch + 1)})
        assert caplog.text.count("so far the network is at chance level") == warnings
