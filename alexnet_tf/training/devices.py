"""The devices of a run: its strategy, those of the columns, and whether XLA compiles the step."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.training import fc_parallel as split_layers


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a run computes on.

    Attributes:
        strategy: the distribution strategy.
        column_devices: None, or a TensorFlow device name for each column.
        jit: whether XLA compiles the step.
        worker: which of the processes that train together this one is.
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


def choose_devices(
    worker: Worker,
    *,
    strategy: str,
    column_devices: Sequence[str],
    allow_fewer_devices: bool,
    jit: str,
    fc_parallel: bool = False,
) -> Devices:
    """Chooses the devices. To be called before TensorFlow runs any operation.

    Args:
        worker: which worker this process is.
        strategy, jit: as `strategies.make_strategy` and `strategies.use_jit` take them.
        column_devices: a TensorFlow device name for each column, or empty.
        allow_fewer_devices: whether to warn if the machine does not have the column devices.
        fc_parallel: whether the fully-connected layers are split over the workers.

    Raises:
        ValueError: if there are no such devices or they can't be combined.
    """
    name = "one" if column_devices and strategy == "auto" else strategy
    made = strategies.make_strategy(name, worker)
    usable = strategies.usable_column_devices(column_devices, allow_fewer_devices)
    if fc_parallel:
        split_layers.check_devices(made, worker)
    return Devices(made, usable, strategies.use_jit(jit, made, usable), worker, fc_parallel)
