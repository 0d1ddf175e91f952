"""The devices of a run: its strategy, the columns' devices, and whether XLA compiles the step."""

import dataclasses

import tensorflow as tf
from absl import logging

from alexnet_tf.distribution import strategies
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.layers import device_placement
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
    """

    strategy: tf.distribute.Strategy
    column_devices: list[str] | None
    jit: bool
    worker: Worker

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def describe(self) -> str:
        """The number of replicas and workers in words."""
        workers = len(self.worker.addresses)
        if self.replicas == 1:
            return "on one device"
        return f"{self.replicas} replicas on {workers} worker{'s' if workers > 1 else ''}"


def choose_devices(config: TrainConfig, worker: Worker) -> Devices:
    """Chooses the devices. Call it before TensorFlow runs any operation.

    Raises:
        ValueError: if there are no such devices, or they can't be combined.
    """
    name = "one" if config.column_devices and config.strategy == "auto" else config.strategy
    strategy = strategies.make_strategy(name, worker)
    column_devices = list(config.column_devices) or None
    try:
        device_placement.check_devices_exist(config.column_devices)
    except ValueError as error:
        if not config.allow_fewer_devices:
            raise ValueError(f"{error} With --allow_fewer_devices the columns share a device.") from error
        logging.warning("Fewer devices than columns: the columns share a device. %s", error)
        column_devices = None
    if config.fc_parallel:
        fc_parallel.check_devices(strategy, worker)
    return Devices(strategy, column_devices, strategies.use_jit(config.jit, strategy, column_devices), worker)
