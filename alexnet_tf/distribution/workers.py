"""Which worker this process is. TensorFlow is imported only if SLURM started several."""

import dataclasses
import json
import os
import re

# Each SLURM task on a machine listens on its own port, counted from this one plus the job's number: two jobs may share
# a machine.
_SLURM_FIRST_PORT = 20_000


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        number: from 0. Worker 0 is the chief, the only one that writes.
        addresses: "host:port" of each worker, the chief's first.
    """

    number: int = 0
    addresses: tuple[str, ...] = ("localhost",)

    @property
    def is_chief(self) -> bool:
        return self.number == 0


def this_worker() -> Worker:
    """The `Worker` that this process is, according to TF_CONFIG or SLURM.

    If SLURM started several tasks, TF_CONFIG is set to what TensorFlow's resolver reports, but in SLURM's order: the
    resolver sorts node10 before node9. Each task sees the GPUs that SLURM gave to it (`srun --gpus-per-task`).

    Raises:
        ValueError: if TF_CONFIG is malformed, names parameter servers, or a task that does not train.
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
            raise TypeError("the tasks of a type must be a list")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            'TF_CONFIG must be JSON of the form {"cluster": {"worker": ["host:port", ...]}, '
            f'"task": {{"type": "worker", "index": 0}}}}. Received: {text[:200]}'
        ) from error
    if unknown:
        raise ValueError(
            'The tasks of TF_CONFIG must be of type "chief" or "worker": Keras 3 can\'t train with parameter servers. '
            f"Received: {', '.join(sorted(unknown))}"
        )
    if len(cluster.get("chief", ())) > 1:
        raise ValueError(f"TF_CONFIG must have only one chief. Received: {', '.join(map(str, cluster['chief']))}")
    wrong = [each for each in addresses if not _is_address(each) or addresses.count(each) > 1]
    if wrong:
        raise ValueError(f"Each task of TF_CONFIG must have its own host:port. Received: {wrong[0]}")
    if task is None:
        return Worker()
    if task not in tasks:
        raise ValueError(f"The task of TF_CONFIG must be in its cluster. Received: {task[0]} {task[1]}")
    return Worker(tasks.index(task), addresses)


def _is_address(text) -> bool:
    found = re.fullmatch(r"\S+:(\d{1,5})", text) if isinstance(text, str) else None
    return found is not None and 1 <= int(found[1]) <= 65_535


def _slurm_cluster(num_tasks: int) -> dict:
    import tensorflow as tf  # takes seconds

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
    """The workers that TensorFlow's error reports as lost.

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
