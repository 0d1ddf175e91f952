"""Saving a training run so that the same command resumes it.

A run's folder holds

    model.keras          the newest model: pixels in, probabilities out
    best.keras           with --keep_best, the model of the epoch with the lowest validation error
    config.json          the settings that affect the result
    dataset.json         the data it was trained on, with the class names
    checkpoints/00000150/model.keras, training_state.npz, progress.json, config.json, SHA256SUMS
    checkpoints/00000300/...

A checkpoint is written under a temporary name, synced, and renamed when it is complete: a folder whose name is a number
is a complete checkpoint. SHA256SUMS, written last, has the checksums of its files (`sha256sum --check SHA256SUMS`).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from alexnet_tf.files import sync

if TYPE_CHECKING:
    import keras

CHECKPOINTS = "checkpoints"
_MODEL, _STATE, _PROGRESS, _CONFIG = "model.keras", "training_state.npz", "progress.json", "config.json"
_FILES = (_MODEL, _STATE, _PROGRESS, _CONFIG)
_CHECKSUMS = "SHA256SUMS"
# The newest, and the previous one in case the newest is damaged. A checkpoint of the full network takes 488 MB.
_CHECKPOINTS_KEPT = 2
_NUMBER = "checkpoint_number"  # in progress.json


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is: what a checkpoint has besides weights and variables, and where a run begins or resumes.

    Attributes:
        step: number of completed steps; 0 for a new run.
        validation_due: whether the step ended an epoch that was not validated yet.
        is_best: whether the model is to become the run's `best.keras`.
        plateau: state of the plateau schedule, or None.
        best: state of `callbacks.BestEpoch`, or None.
    """

    step: int = 0
    validation_due: bool = False
    is_best: bool = False
    plateau: dict[str, Any] | None = None
    best: dict[str, Any] | None = None


def save(
    run_dir: str | pathlib.Path,
    network: "keras.Model",
    training_model: "keras.Model",
    progress: Progress,
    settings: Mapping[str, Any],
) -> None:
    """Saves a checkpoint, and makes its model the run's `model.keras`.

    Args:
        run_dir: the run's folder.
        network: the model that takes only pixels.
        training_model: the compiled model that trains the same layers.
        progress: what `restore` returns.
        settings: the settings of the run, for config.json.

    Raises:
        FloatingPointError: if a weight is not finite. The loss shows that only one step later, which is too late.
        OSError: if the checkpoint can't be written, for example because the disk is full. The previous one stays.
    """
    for weight in network.weights:
        if not np.all(np.isfinite(weight)):
            raise FloatingPointError(
                f"After step {progress.step} {weight.path} is not finite, so no checkpoint is saved. The newest "
                "checkpoint is older. Try a lower --learning_rate, or inputs of unit variance (--input_scale=0.0125)."
            )
    folder = pathlib.Path(run_dir) / CHECKPOINTS
    try:
        complete = _save(folder, network, training_model, progress, settings)
    except OSError as error:
        for unfinished in folder.glob(".tmp-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(
            error.errno,
            f"The checkpoint of step {progress.step} can't be written to {folder}, where "
            f"{shutil.disk_usage(run_dir).free / 1e6:,.0f} MB are free: {error}. The previous checkpoint is complete",
        ) from error
    _publish(complete)


def _save(folder, network, training_model, progress, settings) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".tmp-*"):
        shutil.rmtree(unfinished)
    complete = folder / f"{progress.step:08d}"
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    network.save(temporary / _MODEL)
    np.savez(temporary / _STATE, **{name: v.numpy() for name, v in _state(training_model).items()})
    number = 1 + max(map(_number, complete_checkpoints(folder.parent)), default=0)
    (temporary / _PROGRESS).write_text(json.dumps(dataclasses.asdict(progress) | {_NUMBER: number}, indent=2))
    (temporary / _CONFIG).write_text(json.dumps(settings, indent=2))
    checksums = [f"{_checksum(temporary / name)}  {name}\n" for name in _FILES]
    (temporary / _CHECKSUMS).write_text("".join(checksums))
    for path in [*temporary.iterdir(), temporary]:
        sync(path)
    temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    if complete.exists():  # it is damaged, or was saved before its validation
        complete.rename(folder / ".tmp-replaced")
    temporary.rename(complete)
    sync(folder)
    shutil.rmtree(folder / ".tmp-replaced", ignore_errors=True)
    for old in complete_checkpoints(folder.parent)[:-_CHECKPOINTS_KEPT]:
        shutil.rmtree(old)
    return complete


def restore(
    run_dir: str | pathlib.Path,
    network: "keras.Model",
    training_model: "keras.Model",
    settings: Mapping[str, Any],
    publish: bool = True,
    allow_changed: bool = False,
) -> Progress:
    """Sets weights, optimizer and random generators to those of the newest checkpoint that is not damaged.

    Args:
        run_dir: the run's folder.
        network, training_model: as in `save`.
        settings: the settings of the run now. If their steps per epoch are not the checkpoint's, the run resumes after
            the same fraction of its epochs.
        publish: whether to make its model the run's `model.keras`. Only one worker should.
        allow_changed: whether the checkpoint may lack variables, as after a change of the schedule, the precision or
            the frozen layers. These keep their initial values, with a warning.

    Raises:
        ValueError: if there are checkpoints and none can be read.
    """
    problems = []
    for folder in _newest_first(run_dir):
        try:
            _check(folder, _FILES)
            saved, before = (json.loads((folder / name).read_text()) for name in (_PROGRESS, _CONFIG))
            with np.load(folder / _STATE, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            state = _state(training_model)
            if values.keys() != state.keys():
                differing = f"its variables are not this run's: {sorted(values.keys() ^ state.keys())[:4]}"
                if not allow_changed:
                    raise ValueError(differing)
                logging.warning("%s: %s, ... The other variables keep their initial values.", folder, differing)
                values = _matching(values, state)
            network.load_weights(folder / _MODEL)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logging.warning("The checkpoint %s can't be used (%s). Trying the previous one.", folder, error)
            problems.append(error)
            continue
        for name, value in values.items():
            state[name].assign(value)
        if publish:  # the run may have been stopped between saving and publishing
            _publish(folder)
        del saved[_NUMBER]
        progress, steps_before, steps_now = Progress(**saved), before["steps_per_epoch"], settings["steps_per_epoch"]
        if steps_before != steps_now:
            progress = dataclasses.replace(progress, step=progress.step * steps_now // steps_before)
            training_model.optimizer.iterations.assign(progress.step)
        return progress
    if problems:
        raise ValueError(
            f"None of the checkpoints in {pathlib.Path(run_dir) / CHECKPOINTS} can be used. The newest: "
            f"{problems[0]}. Choose another --run_dir to start from the beginning."
        )
    return Progress()


def newest_settings(run_dir: str | pathlib.Path) -> dict[str, Any]:
    """The settings of the newest checkpoint in which they are undamaged; empty if there is none."""
    for folder in _newest_first(run_dir):
        try:
            _check(folder, [_CONFIG])
            return json.loads((folder / _CONFIG).read_text())
        except (OSError, ValueError):
            continue
    return {}


def complete_checkpoints(run_dir: str | pathlib.Path) -> list[pathlib.Path]:
    """Lists the folders of checkpoints, the newest last. Those whose progress.json is damaged come first.

    They are ordered by the numbers in progress.json, which don't depend on clocks and copies. (The newer one has the
    lower step if a run was resumed with a larger batch.)
    """
    folder = pathlib.Path(run_dir) / CHECKPOINTS
    folders = [path for path in folder.glob("*") if path.name.isdigit()]
    return sorted(folders, key=lambda path: (_number(path), int(path.name)))


def _newest_first(run_dir) -> Iterator[pathlib.Path]:
    """Yields checkpoints, newest first, but before them those with a damaged progress.json, which is reported."""
    folders = complete_checkpoints(run_dir)
    return reversed(sorted(folders, key=lambda path: _number(path) == 0))


def _number(folder: pathlib.Path) -> int:
    """The checkpoint's number in the run, from 1; 0 if progress.json is damaged."""
    try:
        _check(folder, [_PROGRESS])
        return int(json.loads((folder / _PROGRESS).read_text())[_NUMBER])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _check(folder, names) -> None:
    """Raises OSError or ValueError if one of the files does not have its checksum."""
    lines = (folder / _CHECKSUMS).read_text().split("\n")  # splitlines accepts other characters than a newline
    checksums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        if checksums.get(name) != _checksum(folder / name):
            raise ValueError(f"{name} is damaged: its checksum is not that in {_CHECKSUMS}")


def _checksum(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _publish(checkpoint: pathlib.Path) -> None:
    """Gives a checkpoint's files a second name in the run's folder, each in one step: a copy if links don't work."""
    names = {_MODEL: _MODEL, _CONFIG: _CONFIG}
    if json.loads((checkpoint / _PROGRESS).read_text()).get("is_best"):
        names["best.keras"] = _MODEL
    for name, source in names.items():
        target = checkpoint.parents[1] / name
        temporary = target.with_name(f".tmp-{name}")
        temporary.unlink(missing_ok=True)
        try:
            os.link(checkpoint / source, temporary)
        except OSError:
            shutil.copyfile(checkpoint / source, temporary)
        temporary.replace(target)
