"""Distribution strategies, the model they train, and what workers exchange."""

import json
import random
import re
import zlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf.distribution.workers import Worker, this_worker

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu:NAME")


def make_strategy(name: str, worker: Worker | None = None) -> tf.distribute.Strategy:
    """Makes a distribution strategy. Call it before TensorFlow runs any operation.

    Args:
        name: "one" (TensorFlow's default: one device); "mirrored" (one replica per GPU, or per logical CPU device if
            there is no GPU); "multi_worker" (one replica per GPU of each worker); "tpu:NAME" (one replica per core of
            that Cloud TPU; "tpu:local" is this machine's); or "auto" (multi_worker if there are several workers,
            mirrored if there are several GPUs).
        worker: None for `workers.this_worker()`.

    Raises:
        ValueError: if the name is unknown, "multi_worker" has only one worker, or several workers would each train on
            their own.
    """
    worker = worker or this_worker()
    several = len(worker.addresses) > 1
    if name not in STRATEGIES[:-1] and not re.fullmatch("tpu:.+", name):
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: strategy={name!r}")
    if name.startswith("tpu:"):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name.removeprefix("tpu:"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if name == "multi_worker" or (name == "auto" and several):
        if not several:
            raise ValueError(
                "strategy=multi_worker needs several workers: in TF_CONFIG, started by SLURM, or on this machine by "
                "--num_local_workers."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if several:
        raise ValueError(
            f"With strategy={name} each of the {len(worker.addresses)} workers would train on its own and write to the "
            "same folder. Use multi_worker or auto."
        )
    if name == "mirrored" or (name == "auto" and len(tf.config.list_logical_devices("GPU")) > 1):
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def use_jit(jit: str, strategy: tf.distribute.Strategy, column_devices: Sequence[str] | None = None) -> bool:
    """Whether XLA compiles the training step.

    Args:
        jit: "true", "false", or "auto": only on a single GPU. On a CPU the step is 1.4 times faster without XLA, whose
            gradient of max-pooling is slow there.
        strategy: the distribution strategy of the run.
        column_devices: the devices of the columns, or None.

    Raises:
        ValueError: if "true" is combined with a distribution strategy or column devices, which XLA can't compile, or if
            these two are combined.
    """
    several = strategy is not tf.distribute.get_strategy()
    if several and column_devices:
        raise ValueError(
            "`column_devices` can't be combined with a distribution strategy: all replicas would use the same devices. "
            f"Received: column_devices={','.join(column_devices)} and {type(strategy).__name__}"
        )
    if jit == "true" and (several or column_devices):
        raise ValueError(
            "`jit` must not be true with a distribution strategy or `column_devices`, which XLA can't compile."
        )
    one_gpu = not several and not column_devices and bool(tf.config.list_logical_devices("GPU"))
    return jit == "true" or (jit == "auto" and one_gpu)


class DistributedModel(keras.Model):
    """A `keras.Model` whose `fit` works under every strategy, and with which each worker can request all to stop.

    Keras 3's own model fails under MultiWorkerMirroredStrategy: it averages the first batch over the workers to learn
    its shape, and does not support scalar metrics. This one is built already, and returns metrics of shape (1,).

    Attributes:
        stop_requested: this worker's own `tf.Variable`, above 0 when it requests to stop, or None.
        stop_agreed: whether any worker requested to stop in the last step. All workers know it after the same step.

    Example:

    >>> with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
    ...     network = alexnet_tf.build_alexnet("testing", 10)
    ...     model = alexnet_tf.with_color_offset(network, alexnet_tf.DistributedModel)
    """

    stop_requested: tf.Variable | None = None
    stop_agreed: bool = False

    def gather_weights(self) -> None:
        """Called on all workers before one of them saves. Does nothing, except with `fc_parallel`."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass

    def train_step(self, data):
        return self._vectors(super().train_step(data))

    def test_step(self, data):
        return self._vectors(super().test_step(data))

    def _vectors(self, logs):
        """The metrics and the request to stop with shape (1,), which Keras averages over all workers."""
        if self.stop_requested is not None:
            logs = logs | {"stop_requested": self.stop_requested}
        return {name: tf.reshape(value, (1,)) for name, value in logs.items()}

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._reading_stop_requests(self.train_function)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._reading_stop_requests(self.test_function)

    def _reading_stop_requests(self, function):
        def step(iterator):
            logs = {name: tf.reshape(value, ()) for name, value in function(iterator).items()}
            self.stop_agreed = float(logs.pop("stop_requested", 0.0)) > 0
            return logs

        return step


def check_workers_agree(strategy: tf.distribute.Strategy, worker: Worker, values: dict) -> None:
    """Waits for all workers, and compares their settings: otherwise they would diverge silently.

    Args:
        strategy: the distribution strategy of the run.
        worker: this `Worker`.
        values: a dict for JSON that must be equal on every worker.

    Raises:
        ValueError: if a worker's values differ from the chief's.
    """
    fingerprint = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    chiefs, *others = gather_rows(strategy, worker, np.array([fingerprint]))
    different = [f"{number} ({worker.addresses[number]})" for number, each in enumerate(others, 1) if each != chiefs]
    if different:
        raise ValueError(
            "All workers must have the same flags, and a --run_dir on a shared disk, so that they begin with the same "
            f"checkpoint. Worker {', '.join(different)} differs from worker 0. Worker {worker.number} has {values}"
        )


def draw_launch_number(strategy: tf.distribute.Strategy, worker: Worker) -> int:
    """Draws a random number that is equal on all workers and different in each launch.

    Args:
        strategy: the distribution strategy of the run.
        worker: this `Worker`.
    """
    own = random.SystemRandom().getrandbits(62)
    return int(gather_rows(strategy, worker, np.array([own]))[0])


def gather_rows(strategy: tf.distribute.Strategy, worker: Worker, rows: np.ndarray) -> np.ndarray:
    """Gathers the rows that each worker computed, on all workers.

    Args:
        strategy: the distribution strategy of the run.
        worker: this `Worker`.
        rows: array (n, ...); n may differ between workers.

    Returns: array (sum of all n, ...) with the rows in the workers' order.
    """
    if len(worker.addresses) == 1:
        return rows
    local_replicas = strategy.num_replicas_in_sync // len(worker.addresses)

    def of_first_replica(rows):
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        return rows[: tf.where(number % local_replicas == 0, tf.shape(rows)[0], 0)]

    @tf.function
    def gather(rows):
        return strategy.gather(strategy.run(of_first_replica, args=(rows,)), axis=0)

    return gather(tf.constant(rows)).numpy()
