"""The devices of a run: its strategy, the columns' devices, and whether XLA compiles the step."""

import dataclasses

import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.training import fc_parallel
from alexnet_tf.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: the distribution strategy.
        column_devices: a TensorFlow device name per column; None if the columns share a device.
        jit: whether XLA compiles the step.
        worker: which worker this process is.
        fc_parallel: whether the fully-connected layers are split over the workers.
    """

    strategy: tf.distribute.Strategy
    column_devices: list[str] | None
    jit: bool
    worker: Worker
    fc_parallel: bool = False

    @property
    def workers(self) -> int:
        return len(self.worker.addresses)

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def describe(self) -> str:
        """The number of replicas and workers in words."""
        if self.replicas == 1:
            return "on one device"
        return f"{self.replicas} replicas on {self.workers} worker{'s' if self.workers > 1 else ''}"


def choose_devices(config: TrainConfig, worker: Worker) -> Devices:
    """Chooses the devices. Call it before TensorFlow runs any operation.

    Raises:
        ValueError: if there are no such devices, or they can't be combined.
    """
    name = "one" if config.column_devices and config.strategy == "auto" else config.strategy
    strategy = strategies.make_strategy(name, worker)
    column_devices = strategies.usable_column_devices(config.column_devices, config.allow_fewer_devices)
    if config.fc_parallel:
        fc_parallel.check_devices(strategy, worker)
    jit = strategies.use_jit(config.jit, strategy, column_devices)
    return Devices(strategy, column_devices, jit, worker, config.fc_parallel)
