"""Several devices and several machines: the distribution strategy, the model it trains, and the workers' agreement."""

import dataclasses
import json
import os
import random
import re
import zlib

import keras
import tensorflow as tf

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu:NAME")
# Of SLURM's tasks on a machine each listens at a port of its own, from this one on, plus the job's number: two jobs may
# share a machine.
_SLURM_FIRST_PORT = 20_000


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        number: from 0. The worker of number 0 is the chief: it alone writes.
        addresses: "host:port" of each, the chief's first.
    """

    number: int = 0
    addresses: tuple = ("localhost",)

    @property
    def is_chief(self):
        return self.number == 0


def this_worker():
    """The `Worker` that this process is, by TF_CONFIG or, without it, by SLURM.

    Where SLURM started several tasks, TF_CONFIG is set to what TensorFlow's own resolver says of them, in SLURM's
    order: the resolver itself sorts node10 before node9. Each task sees the GPUs that SLURM gave to it
    (`srun --gpus-per-task`).

    Raises:
        ValueError: where TF_CONFIG can't be read, or names parameter servers, or a task that trains nothing.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if "TF_CONFIG" not in os.environ and tasks > 1 and "SLURM_PROCID" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        first_port = _SLURM_FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", 0)) % 10_000
        addresses = [
            f"{host}:{first_port + number}"
            for host, count in resolver._task_configuration.items()
            for number in range(count)
        ]
        task = {"type": "worker", "index": int(os.environ["SLURM_PROCID"])}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        task = (config["task"]["type"], int(config["task"]["index"])) if cluster else None
        unknown = cluster.keys() - {"chief", "worker"}
        tasks = [(kind, index) for kind in ("chief", "worker") for index in range(len(cluster.get(kind, ())))]
        addresses = tuple(cluster[kind][index] for kind, index in tasks)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            'TF_CONFIG must be JSON of the form {"cluster": {"worker": ["host:port", ...]}, '
            f'"task": {{"type": "worker", "index": 0}}}}. Received: {text}'
        ) from error
    if unknown:
        raise ValueError(
            'The cluster of TF_CONFIG must have tasks of type "chief" and "worker" alone: Keras 3 can\'t train with '
            f"parameter servers. Received: {', '.join(sorted(unknown))}"
        )
    if not cluster:
        return Worker()
    if task not in tasks:
        raise ValueError(f"The task of TF_CONFIG must be one of its cluster's. Received: {task[0]} {task[1]}")
    return Worker(tasks.index(task), addresses)


def make_strategy(name, worker=None):
    """The distribution strategy of a name. To be called before TensorFlow runs any operation.

    Args:
        name: "one" (TensorFlow's default: one device); "mirrored" (a replica on each GPU, or on each logical CPU device
            where there is no GPU); "multi_worker" (a replica on each GPU of each worker); "tpu:NAME" (a replica on each
            core of that Cloud TPU, or of this machine's: "tpu:local"); or "auto" (multi_worker where there are several
            workers, mirrored where there are several GPUs).
        worker: None for `this_worker()`.

    Raises:
        ValueError: where the name is another, or workers are missing for "multi_worker", or there are several and
            each would train by itself.
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
                "strategy=multi_worker needs several workers: named in TF_CONFIG, started by SLURM, or on this machine "
                "by --num_local_workers."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if several:
        raise ValueError(
            f"strategy={name} would make each of the {len(worker.addresses)} workers train by itself and write to the "
            "same folder: give multi_worker or auto."
        )
    if name == "mirrored" or (name == "auto" and len(tf.config.list_logical_devices("GPU")) > 1):
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def is_distributed(strategy):
    """Whether a strategy is another than TensorFlow's default, one device."""
    return strategy is not tf.distribute.get_strategy()


class DistributedModel(keras.Model):
    """A `keras.Model` whose `fit` works under every strategy, and in which each worker can ask all to stop.

    Keras 3's own fails under MultiWorkerMirroredStrategy: to learn the shape of a batch it averages the first over the
    workers, and it gives up on metrics that are scalars. This one is built already, and hands on metrics of shape (1,).

    Attributes:
        stop_requested: None, or a `tf.Variable` of this worker's own that is above 0 when it wants to stop.
        stop_agreed: whether any worker wanted to stop in the last step. All workers know it after the same step.
    """

    stop_requested = None
    stop_agreed = False

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass

    def train_step(self, data):
        return self._of_all_workers(super().train_step(data))

    def test_step(self, data):
        return self._of_all_workers(super().test_step(data))

    def _of_all_workers(self, logs):
        if self.stop_requested is not None:
            logs = logs | {"stop_requested": self.stop_requested}
        return {name: tf.reshape(value, (1,)) for name, value in logs.items()}  # which Keras averages over all workers

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._taking_votes(self.train_function)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._taking_votes(self.test_function)

    def _taking_votes(self, function):
        def step(iterator):
            logs = {name: tf.reshape(value, ()) for name, value in function(iterator).items()}
            self.stop_agreed = float(logs.pop("stop_requested", 0.0)) > 0
            return logs

        return step


@keras.saving.register_keras_serializable(package="alexnet_tf")
class AgreedLossScale(keras.optimizers.LossScaleOptimizer):
    """A `keras.optimizers.LossScaleOptimizer` that leaves a step out on all replicas or on none.

    Keras's own looks at each worker's gradients by themselves: where one overflows on one worker alone, that one leaves
    the step out while the others wait for its gradients for ever.
    """

    def check_finite(self, grads):
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        overflows = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(finite), tf.float32))
        return tf.equal(overflows, 0.0)


def check_workers_agree(strategy, worker, values):
    """Waits until all workers are here.

    Args:
        strategy: the distribution strategy of the run.
        worker: this `Worker`.
        values: a dict that JSON can hold, which must be the same on every worker. Two that train from unlike weights
            or flags would diverge without a word.

    Raises:
        ValueError: where a worker's values differ from the chief's.
    """
    if len(worker.addresses) == 1:
        return
    fingerprint = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    chiefs, *others = _of_all_workers(strategy, worker, fingerprint)
    unlike = [f"{number} ({worker.addresses[number]})" for number, each in enumerate(others, 1) if each != chiefs]
    if unlike:
        raise ValueError(
            "All workers must have the same flags, and a --run_dir on a disk that they share, so that they begin with "
            f"the same checkpoint. Worker {', '.join(unlike)} differs from worker 0. "
            f"Worker {worker.number} has {values}"
        )


def number_of_this_start(strategy, worker):
    """A random number that all workers have in common, and another in each start of a run.

    Args:
        strategy: the distribution strategy of the run.
        worker: this `Worker`.
    """
    own = random.SystemRandom().getrandbits(62)
    return int(own if len(worker.addresses) == 1 else _of_all_workers(strategy, worker, own)[0])


def _of_all_workers(strategy, worker, number):
    """An int64 of each worker, in their order, as an array."""

    @tf.function
    def gather():
        return strategy.gather(strategy.run(lambda: tf.constant([number], tf.int64)), axis=0)

    return gather().numpy()[:: strategy.num_replicas_in_sync // len(worker.addresses)]


def gather_rows(strategy, worker, rows):
    """What all workers computed, on each of them.

    Args:
        strategy: the distribution strategy of the run.
        worker: this `Worker`.
        rows: array (n, ...) of this worker; n may be another on each.

    Returns: array (sum of all n, ...), the workers' rows in their order.
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


def lost_workers(error, worker):
    """The workers that an error of TensorFlow says are gone: a list such as ["worker 1 (10.0.0.2:2222)"].

    Args:
        error: a `tf.errors.OpError`.
        worker: this `Worker`.
    """
    kinds_and_indices = re.findall(r"/job:(chief|worker)/(?:replica:0/)?task:(\d+)", str(error))
    has_chief_task = '"chief"' in os.environ.get("TF_CONFIG", "")
    numbers = {int(index) + (kind == "worker" and has_chief_task) for kind, index in kinds_and_indices}
    others = sorted(numbers - {worker.number}) or ([] if worker.is_chief else [0])
    return [f"worker {number} ({worker.addresses[number]})" for number in others]
