"""The folder of a run: whether a run may begin or resume in it, and what is written there first."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import logging

from alexnet_tf import files
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.tfrecords import schema, statistics
from alexnet_tf.training import checkpoints
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.training.inputs import RunData

_LOCK = ".lock"
_FILES_OF_A_RUN = (
    *("model.keras", "best.keras", "config.json", "training.json"),
    *(schema.DATASET_FILE, statistics.STATISTICS_FILE),
)


def settings(config: TrainConfig, data: RunData, worker: Worker) -> dict[str, Any]:
    """What config.json holds, and what is compared on resume: configuration, data, and the number of workers."""
    compared = config.compared() | data.settings | {"workers": len(worker.addresses)}
    return json.loads(json.dumps(compared))


def check(config: TrainConfig, settings: dict[str, Any]) -> None:
    """Checks that a run with these settings can begin in its folder, or resume the one that is there.

    Raises:
        ValueError: if the folder holds a file that a run would overwrite, but no run; or if its newest checkpoint has
            other settings that must not differ, each of which is named.
    """
    run_dir = pathlib.Path(config.run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"`run_dir` must be a folder. Received the file {run_dir}")
    found = [name for name in _FILES_OF_A_RUN if (run_dir / name).exists()]
    # Checked in this order, because another worker of this run makes the lock before the files.
    if found and not any((run_dir / name).exists() for name in (_LOCK, checkpoints.CHECKPOINTS)):
        raise ValueError(
            "`run_dir` must be a new folder or the folder of a run. "
            f"Received: {run_dir}, which holds {found[0]} but no run"
        )
    before = checkpoints.newest_settings(run_dir)
    changed = {
        name: f"{name} was {before.get(name)!r} and is now {value!r}"
        for name, value in settings.items()
        if before and before.get(name) != value
    }
    rules = {_on_resume(config, name) for name in changed}
    if "never" not in rules and (config.allow_changed or "refuse" not in rules):
        if changed:
            logging.warning("Resuming with other settings: %s.", "; ".join(changed.values()))
        return
    other_ways = "" if "never" in rules else ", --allow_changed to resume nevertheless,"
    raise ValueError(
        f"{run_dir} holds a run with other settings: {'; '.join(changed.values())}. "
        f"Use the same settings to resume it{other_ways} or another --run_dir to start from the beginning."
    )


def _on_resume(config, name):
    rules = {"workers": "warn", "classes": "never"}
    return config.on_resume(name) if name in config.compared() else rules.get(name, "refuse")


@contextlib.contextmanager
def opened(run_dir: str | pathlib.Path, data: RunData, writes: bool) -> Iterator[None]:
    """Makes and locks the run's folder and describes the data in it. Does nothing if this process does not write.

    Raises:
        ValueError: if another process is training in the folder.
    """
    if not writes:
        yield
        return
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    message = f"Another process is training in `run_dir` {run_dir}. Wait for it, or choose another."
    with files.sole_user(run_dir / _LOCK, message):
        data.description.save(run_dir)
        data.statistics.save(run_dir)  # the mean image and the color noise of the model are from there
        yield
