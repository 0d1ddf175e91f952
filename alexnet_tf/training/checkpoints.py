"""Saving a training run so that the same command resumes it.

A run's folder holds

    model.keras          the newest model: pixels in, probabilities out
    dataset.json         the data it was trained on, with the names of its classes
    checkpoints/00000150/model.keras, training_state.npz, progress.json
    checkpoints/00000300/...

Each checkpoint is written under a temporary name, synced, and renamed when it is complete: a folder whose name is a
number is a complete checkpoint.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from alexnet_tf.files import sync
from alexnet_tf.tfrecords import schema, statistics

if TYPE_CHECKING:
    import keras

_LOCK, _CHECKPOINTS = ".lock", "checkpoints"
_FILES_OF_A_RUN = ("model.keras", "training.json", schema.DATASET_FILE, statistics.STATISTICS_FILE)
# The newest, and the previous one in case the newest is damaged. One of the full network takes 488 MB.
_CHECKPOINTS_KEPT = 2
_NUMBER = "checkpoint_number"  # in progress.json
_NEVER_CHANGED = ("variant", "classes", "optimizer")


def save(
    run_dir: str | pathlib.Path, model: "keras.Model", training_model: "keras.Model", progress: dict[str, Any]
) -> None:
    """Saves a checkpoint and makes its model the run's `model.keras`.

    Args:
        run_dir: the run's folder.
        model: the model that takes pixels alone.
        training_model: the compiled model that trains the same layers.
        progress: a dict that JSON can hold, with the number of steps done under "step".

    Raises:
        FloatingPointError: if a weight is not finite. The loss shows it only in the step after the update that broke
            it, which is too late.
        OSError: if it can't be written, for example to a full disk. What was there before stays as it was.
    """
    for weight in model.weights:
        if not np.all(np.isfinite(weight)):
            raise FloatingPointError(
                f"After step {progress['step']} {weight.path} is not finite, so no checkpoint is saved. The newest is "
                "from before it. A lower --learning_rate, or inputs of unit variance (--input_scale=0.0125), may help."
            )
    folder = pathlib.Path(run_dir) / _CHECKPOINTS
    try:
        _save(folder, model, training_model, progress)
    except OSError as error:
        for unfinished in folder.glob(".tmp-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(
            error.errno,
            f"The checkpoint of step {progress['step']} can't be written to {folder}, where "
            f"{shutil.disk_usage(run_dir).free / 1e6:,.0f} MB are free: {error}. The previous checkpoint is complete",
        ) from error
    _publish(folder / _name(progress) / "model.keras", pathlib.Path(run_dir) / "model.keras")


def _name(progress) -> str:
    return f"{progress['step']:08d}"


def _save(folder, model, training_model, progress):
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".tmp-*"):
        shutil.rmtree(unfinished)
    complete = folder / _name(progress)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    model.save(temporary / "model.keras")
    np.savez(temporary / "training_state.npz", **{name: v.numpy() for name, v in _state(training_model).items()})
    number = 1 + max(map(_number, complete_checkpoints(folder.parent)), default=0)
    (temporary / "progress.json").write_text(json.dumps(progress | {_NUMBER: number}, indent=2))
    for path in [*temporary.iterdir(), temporary]:
        sync(path)
    temporary.chmod(0o755)  # mkdtemp's folders are for their owner alone
    if complete.exists():  # damaged, or saved with its validation still due
        complete.rename(folder / ".tmp-replaced")
    temporary.rename(complete)
    sync(folder)
    shutil.rmtree(folder / ".tmp-replaced", ignore_errors=True)
    for old in complete_checkpoints(folder.parent)[:-_CHECKPOINTS_KEPT]:
        shutil.rmtree(old)


@contextlib.contextmanager
def sole_writer(run_dir: str | pathlib.Path) -> Iterator[None]:
    """Locks a run's folder for this process: two that write to it would delete each other's work.

    Raises:
        ValueError: if another process has locked it.
    """
    with (pathlib.Path(run_dir) / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Another process trains in `run_dir` {run_dir}. Wait for it, or give another.") from error
        except OSError as error:  # some shared disks have no locks
            logging.warning("Whether another process trains in %s can't be found out: %s", run_dir, error)
        yield


def restore_newest(
    run_dir: str | pathlib.Path,
    model: "keras.Model",
    training_model: "keras.Model",
    publish: bool = True,
    allow_changed: bool = False,
) -> dict[str, Any] | None:
    """Sets weights, optimizer and random generators to those of the newest checkpoint that can be read.

    Args:
        run_dir: the run's folder.
        model, training_model: as in `save`.
        publish: whether its model becomes the run's `model.keras`: only one worker should do that.
        allow_changed: whether it may lack variables, as after a change of the schedule, the precision or the frozen
            layers: these then keep their values, with a warning.

    Returns:
        Its progress, or None if there is no checkpoint.

    Raises:
        ValueError: if there are checkpoints and none can be read.
    """
    problems = []
    for folder in reversed(complete_checkpoints(run_dir)):
        try:
            progress = json.loads((folder / "progress.json").read_text())
            with np.load(folder / "training_state.npz", allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            state = _state(training_model)
            if values.keys() != state.keys():
                differing = f"its variables are not this run's: {sorted(values.keys() ^ state.keys())[:4]}"
                if not allow_changed:
                    raise ValueError(differing)
                logging.warning("%s: %s, ... The rest is initialized again.", folder, differing)
                values = _matching(values, state)
            model.load_weights(folder / "model.keras")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logging.warning("The checkpoint %s can't be read (%s): trying the previous one.", folder, error)
            problems.append(error)
            continue
        for name, value in values.items():
            state[name].assign(value)
        if publish:  # the run may have been stopped between the checkpoint and this
            _publish(folder / "model.keras", pathlib.Path(run_dir) / "model.keras")
        return progress
    if problems:
        raise ValueError(
            f"None of the checkpoints in {pathlib.Path(run_dir) / _CHECKPOINTS} can be read. Of the newest: "
            f"{problems[0]}. Give another --run_dir to start from the beginning."
        )
    return None


def check_run_dir(
    run_dir: str | pathlib.Path,
    settings: dict[str, Any],
    may_change: Collection[str] = (),
    allow_changed: bool = False,
) -> None:
    """Checks that a run with these settings can begin in a folder, or resume the one that is there.

    Warns of settings that have changed and may. Those that the checkpoint does not name are not compared: an earlier
    version saved it.

    Args:
        run_dir: the folder, which need not exist.
        settings: what JSON can hold, by name.
        may_change: names of settings that may differ from those of the newest checkpoint.
        allow_changed: whether all may, except the network and the optimizer, which the saved weights must fit.

    Raises:
        ValueError: if it is not a run's folder but holds a file that a run would overwrite, or its newest checkpoint
            has other settings, each of which is named.
    """
    run_dir = pathlib.Path(run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"`run_dir` must be a folder. Received the file {run_dir}")
    found = [name for name in _FILES_OF_A_RUN if (run_dir / name).exists()]
    # Looked for after them: another worker of this run may just be writing, and makes these first.
    if found and not any((run_dir / name).exists() for name in (_LOCK, _CHECKPOINTS)):
        raise ValueError(
            "`run_dir` must be a new folder or an earlier run's. "
            f"Received: {run_dir}, which holds {found[0]} and no run"
        )
    before = _newest_settings(run_dir)
    changed = {
        name: f"{name} was {before[name]!r} and is now {value!r}"
        for name, value in settings.items()
        if name in before and before[name] != value
    }
    fits = not any(name in changed for name in _NEVER_CHANGED)
    if fits and (allow_changed or changed.keys() <= set(may_change)):
        if changed:
            logging.warning("Resuming with other settings: %s.", "; ".join(changed.values()))
        return
    other_ways = ", --allow_changed to resume nevertheless," if fits else ""
    raise ValueError(
        f"{run_dir} holds a run with other settings: {'; '.join(changed.values())}. "
        f"Give the same settings to resume it{other_ways} or another --run_dir to start from the beginning."
    )


def _newest_settings(run_dir) -> dict[str, Any]:
    """The settings of the newest checkpoint that names them; `restore_newest` reports damaged ones."""
    for folder in reversed(complete_checkpoints(run_dir)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return json.loads((folder / "progress.json").read_text())["settings"]
    return {}


def _state(training_model) -> dict[str, Any]:
    """What training needs besides the weights: optimizer variables and the state of random generators, by name."""
    generators = [
        variable
        for layer in training_model.layers
        for variable in layer.variables
        if not any(variable is weight for weight in layer.weights)
    ]
    # A number distinguishes variables of the same name. ("/" in an .npz name would make folders in the archive.)
    variables = enumerate([*training_model.optimizer.variables, *generators])
    return {f"{index:03d} {variable.path.replace('/', '.')}": variable for index, variable in variables}


def _matching(saved: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The saved values of those variables that had the same name and shape, whatever their numbers."""
    unused: dict[Any, list[Any]] = {}
    for name, value in saved.items():
        unused.setdefault((name[4:], value.shape), []).append(value)
    found = {name: unused.get((name[4:], tuple(variable.shape)), []) for name, variable in state.items()}
    return {name: same.pop(0) for name, same in found.items() if same}


def complete_checkpoints(run_dir: str | pathlib.Path) -> list[pathlib.Path]:
    """The folders of complete checkpoints, the newest last: by the numbers that they contain, which clocks and copies
    don't change. (Not by step: the newer has the lower step if a run was resumed with a larger batch.)"""

    def age(folder):
        number = _number(folder)
        progress = folder / "progress.json"
        # Checkpoints of earlier versions have no number: they are older than those with one, and by their files' times.
        modified = 0 if number or not progress.exists() else progress.stat().st_mtime_ns
        return number, modified, int(folder.name)

    folder = pathlib.Path(run_dir) / _CHECKPOINTS
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=age)


def _number(folder: pathlib.Path) -> int:
    """How many checkpoints the run had saved with this one; 0 if it does not say or is damaged."""
    try:
        return int(json.loads((folder / "progress.json").read_text())[_NUMBER])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _publish(source: pathlib.Path, target: pathlib.Path) -> None:
    """Makes `target` another name of `source`, in one step. (A copy if the file system has no hard links.)"""
    temporary = target.with_name(f".tmp-{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
