"""The choice of a run's devices."""

import pytest

from alexnet_tf.distribution.workers import Worker
from alexnet_tf.training import devices as run_devices

DEVICES = {"strategy": "auto", "column_devices": [], "allow_fewer_devices": False, "jit": "auto"}


def choose_devices(**changes):
    return run_devices.choose_devices(Worker(), **DEVICES | changes)


class TestChooseDevices:
    def test_auto_is_one_device_without_xla_on_a_cpu(self):
        devices = choose_devices()
        assert (devices.replicas, devices.workers, devices.column_devices, devices.jit) == (1, 1, None, False)

    def test_xla_on_request(self):
        assert choose_devices(jit="true").jit

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"strategy": "multi_worker"}, "needs several workers"),
            ({"column_devices": ["GPU:0", "GPU:1"]}, "With --allow_fewer_devices the columns share a device"),
        ],
    )
    def test_devices_that_are_missing_are_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            choose_devices(**changes)

    def test_missing_column_devices_are_warned_of_if_allowed(self, caplog):
        devices = choose_devices(column_devices=["GPU:0", "GPU:1"], allow_fewer_devices=True)
        assert devices.column_devices is None
        assert "THE COLUMNS ARE NOT ON DEVICES OF THEIR OWN" in caplog.text
