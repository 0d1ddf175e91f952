"""Which of the processes that train together this one is. TensorFlow is imported only if SLURM started several."""

import dataclasses
import json
import os
import re

# Of SLURM's tasks on a machine each listens on a port of its own, from this one on, plus the job's number: two jobs may
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
    addresses: tuple[str, ...] = ("localhost",)

    @property
    def is_chief(self) -> bool:
        return self.number == 0


def this_worker() -> Worker:
    """The `Worker` that this process is, by TF_CONFIG or, without it, by SLURM.

    Where SLURM started several tasks, TF_CONFIG is set to what TensorFlow's own resolver reports of them, in SLURM's
    order: the resolver itself sorts node10 before node9. Each task sees the GPUs that SLURM gave to it
    (`srun --gpus-per-task`).

    Raises:
        ValueError: if TF_CONFIG can't be read, or names parameter servers, or a task that trains nothing.
    """
    num_tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if "TF_CONFIG" not in os.environ and num_tasks > 1 and "SLURM_PROCID" in os.environ:
        os.environ["TF_CONFIG"] = json.dumps(_slurm_cluster(num_tasks))
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        task = (config["task"]["type"], int(config["task"]["index"])) if cluster else None
        unknown = cluster.keys() - {"chief", "worker"}
        tasks = [(kind, index) for kind in ("chief", "worker") for index in range(len(cluster.get(kind, ())))]
        addresses = tuple(cluster[kind][index] for kind, index in tasks)
        if not all(isinstance(each, list) for each in cluster.values()):
            raise TypeError("tasks must be in lists")
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
    wrong = [each for each in addresses if not re.fullmatch(r"\S+:\d+", str(each)) or addresses.count(each) > 1]
    if wrong:
        raise ValueError(f"The tasks of TF_CONFIG must each have a host:port of its own. Received: {wrong[0]}")
    if task is None:
        return Worker()
    if task not in tasks:
        raise ValueError(f"The task of TF_CONFIG must be one of its cluster's. Received: {task[0]} {task[1]}")
    return Worker(tasks.index(task), addresses)


def _slurm_cluster(num_tasks: int) -> dict:
    import tensorflow as tf  # only here: it takes seconds

    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=num_tasks, gpus_per_task=1, auto_set_gpu=False
    )
    first_port = _SLURM_FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", 0)) % 10_000
    addresses = [
        f"{host}:{first_port + number}"
        for host, count in resolver._task_configuration.items()
        for number in range(count)
    ]
    task = {"type": "worker", "index": int(os.environ["SLURM_PROCID"])}
    return {"cluster": {"worker": addresses}, "task": task}


def lost_workers(error: Exception, worker: Worker) -> list[str]:
    """The workers that an error of TensorFlow reports as gone.

    Args:
        error: a `tf.errors.OpError`.
        worker: this `Worker`.

    Returns: descriptions such as "worker 1 (10.0.0.2:2222)".
    """
    kinds_and_indices = re.findall(r"/job:(chief|worker)/(?:replica:0/)?task:(\d+)", str(error))
    has_chief_task = '"chief"' in os.environ.get("TF_CONFIG", "")
    numbers = {int(index) + (kind == "worker" and has_chief_task) for kind, index in kinds_and_indices}
    others = sorted(numbers - {worker.number}) or ([] if worker.is_chief else [0])
    return [f"worker {number} ({worker.addresses[number]})" for number in others]
