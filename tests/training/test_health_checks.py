"""Warnings for training that fails without an error."""

import time

from alexnet_tf.training import health_checks


class TestTrainingHealthChecks:
    def test_standstill_is_reported_once(self, caplog):
        checks = health_checks.TrainingHealthChecks(10, patience_seconds=0.2)
        checks.on_train_begin()
        time.sleep(0.8)
        checks.on_test_batch_end(0)
        time.sleep(0.1)
        checks.on_train_end()
        warnings = [record for record in caplog.records if "No step has ended for" in record.message]
        assert len(warnings) == 1
