"""Training that fails without an error."""

import math
import types

import pytest

from alexnet_tf.training import health_checks


class TestTrainingHealthChecks:
    def test_each_standstill_is_reported_once(self, make_config, monkeypatch, caplog):
        clock = types.SimpleNamespace(seconds=0.0)
        checks = health_checks.TrainingHealthChecks(make_config(), [1, 1], patience_seconds=8)

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
    def test_loss_that_is_not_finite_ends_training_in_its_step(self, loss, make_config):
        checks = health_checks.TrainingHealthChecks(make_config(), [1, 1])
        checks.set_model(types.SimpleNamespace(optimizer=types.SimpleNamespace(iterations=7)))
        checks.on_epoch_begin(0)
        checks.on_train_batch_end(0, {"loss": 2.0})
        with pytest.raises(FloatingPointError, match=f"The loss of step 7 is {loss}"):
            checks.on_train_batch_end(1, {"loss": loss})

    @pytest.mark.parametrize("ends_after, warnings", [(90, 0), (110, 1), (400, 1)])
    def test_hundred_steps_at_chance_are_one_warning(self, ends_after, warnings, make_config, caplog):
        checks = health_checks.TrainingHealthChecks(make_config(), [5] * 10)
        losses = [math.log(10) * (1.005 if step < ends_after else 0.9) for step in range(500)]
        for epoch in range(2):
            checks.on_epoch_begin(epoch)
            of_epoch = losses[250 * epoch : 250 * (epoch + 1)]
            for batch in range(250):
                checks.on_train_batch_end(batch, {"loss": sum(of_epoch[: batch + 1]) / (batch + 1)})
        assert caplog.text.count("The loss has been at chance level") == warnings

    def test_chance_steps_that_are_not_consecutive_are_no_warning(self, make_config, caplog):
        checks = health_checks.TrainingHealthChecks(make_config(), [5] * 10)
        losses = [math.log(10) * (0.9 if step % 100 >= 80 else 1) for step in range(500)]
        checks.on_epoch_begin(0)
        for batch in range(500):
            checks.on_train_batch_end(batch, {"loss": sum(losses[: batch + 1]) / (batch + 1)})
        assert "at chance level" not in caplog.text

    @pytest.mark.parametrize(
        "counts, class_weights, loss, learned",
        [
            ([50, 50], "none", math.log(2), False),
            ([50, 50], "none", 0.9 * math.log(2), True),
            ([50, 50], "none", 2.0, True),  # not at chance: it diverges
            ([90, 10], "none", math.log(2), False),
            ([90, 10], "none", 0.325, False),  # the loss of predicting 90 % and 10 %
            ([90, 10], "none", 0.32, True),  # a margin of 1 % below
            ([90, 10, 0], "none", 0.325, False),
            ([90, 10], "balanced", math.log(2), False),
            ([90, 10], "balanced", 0.325, True),
        ],
    )
    def test_loss_at_chance_at_the_end_gives_advice(self, counts, class_weights, loss, learned, make_config):
        checks = health_checks.TrainingHealthChecks(make_config(class_weights=class_weights), counts)
        checks.on_epoch_end(0, {"loss": loss})
        advice = checks.advice()
        if learned:
            assert advice is None
        else:
            assert "has learned nothing" in advice and "--flagfile=alexnet_tf/recipes/demo.flags" in advice

    def test_advice_fits_the_initial_weights(self, make_config):
        checks = health_checks.TrainingHealthChecks(make_config(initializer="he_normal", learning_rate=0.5), [1, 1])
        checks.on_epoch_end(0, {"loss": math.log(2)})
        assert "Try another --learning_rate than 0.5" in checks.advice()
