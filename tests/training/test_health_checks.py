"""Warnings for training that fails without an error."""

import types

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
