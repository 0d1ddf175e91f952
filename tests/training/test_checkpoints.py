"""Which files a checkpoint has, which checkpoint is restored, and what damage does."""

import os
import pathlib
import shutil
import time

import keras
import numpy as np
import pytest

from alexnet_tf.distribution.workers import Worker
from alexnet_tf.training import build, checkpoints, inputs
from alexnet_tf.training.devices import choose_devices
from alexnet_tf.training.optimizers import PaperMomentum

SETTINGS = {"steps_per_epoch": 4}
FILES = {"model.keras", "training_state.npz", "progress.json", "config.json", "SHA256SUMS"}


def small_model(value=0.0):
    keras.utils.clear_session()  # variables then have the same names as in a new process
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD())
    model.set_weights([np.full((2, 1), value), np.full(1, value)])
    return model


def save(run_dir, *steps):
    """Saves a checkpoint per step, whose weights are the number of the step."""
    for step in steps:
        model = small_model(step)
        checkpoints.save(run_dir, model, model, checkpoints.Progress(step), SETTINGS)


def restore(run_dir):
    """The step of the restored checkpoint, and its weight."""
    model = small_model()
    start = checkpoints.restore(run_dir, model, model, SETTINGS)
    return start.step, float(model.get_weights()[0][0, 0])


class TestSave:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite_are_not_saved(self, value, tmp_path):
        save(tmp_path, 5)
        with pytest.raises(FloatingPointError, match=r"After step 6 .*kernel is not finite"):
            checkpoints.save(tmp_path, small_model(value), small_model(), checkpoints.Progress(6), SETTINGS)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000005"]
        assert np.all(keras.models.load_model(tmp_path / "model.keras").get_weights()[0] == 5)

    def test_newest_model_and_settings_are_in_the_runs_folder(self, tmp_path):
        save(tmp_path, 30, 60)
        newest = tmp_path / "checkpoints" / "00000060"
        assert {path.name for path in newest.iterdir()} == FILES
        for name in ("model.keras", "config.json"):
            assert (tmp_path / name).read_bytes() == (newest / name).read_bytes()

    def test_best_model_stays_until_a_better_one(self, tmp_path):
        for step, is_best in ((30, True), (60, False)):
            model = small_model(step)
            checkpoints.save(tmp_path, model, model, checkpoints.Progress(step, is_best=is_best), SETTINGS)
        assert np.all(keras.models.load_model(tmp_path / "best.keras").get_weights()[0] == 30)

    def test_files_are_on_the_disk_before_they_have_their_names(self, tmp_path, monkeypatch):
        save(tmp_path, 30)
        before = (tmp_path / "model.keras").open("rb")
        content = before.read()
        events = []
        for module, name in ((os, "fsync"), (pathlib.Path, "rename"), (pathlib.Path, "replace")):
            monkeypatch.setattr(module, name, self.recorded(events, name, getattr(module, name)))
        save(tmp_path, 60)
        (renamed,) = [index for index, (kind, _) in enumerate(events) if kind == "rename"]
        temporary = events[renamed][1]
        assert {temporary, *(f"{temporary}/{name}" for name in FILES)} <= {
            path for kind, path in events[:renamed] if kind == "fsync"
        }
        assert events[renamed + 1 :] == [
            ("fsync", str(tmp_path / "checkpoints")),
            *(("replace", str(tmp_path / f".tmp-{name}")) for name in ("model.keras", "config.json")),
        ]
        with before:  # the old file was not overwritten
            before.seek(0)
            assert before.read() == content != (tmp_path / "model.keras").read_bytes()

    @staticmethod
    def recorded(events, name, function):
        def call(what, *arguments):
            path = str(pathlib.Path(f"/proc/self/fd/{what}").readlink()) if name == "fsync" else str(what)
            events.append((name, path))
            return function(what, *arguments)

        return call

    @pytest.mark.parametrize("seconds", [lambda index: 86_400 + index, lambda index: -index, lambda index: 0])
    def test_two_newest_are_kept_whatever_their_times_and_steps(self, seconds, tmp_path):
        save(tmp_path, 30, 60)
        for index, folder in enumerate(sorted((tmp_path / "checkpoints").iterdir())):
            moment = time.time() + seconds(index)  # a clock that was set back, or a copy without times
            for path in [*folder.iterdir(), folder]:
                os.utime(path, (moment, moment))
        save(tmp_path, 45)  # fewer steps than the one before: resumed with a larger batch
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000045", "00000060"]
        assert restore(tmp_path) == (45, 45)


class TestDamage:
    @pytest.fixture(scope="class")
    @classmethod
    def saved(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("saved")
        save(folder, 30, 60)
        return folder

    @pytest.fixture
    def run_dir(self, saved, tmp_path):
        return shutil.copytree(saved, tmp_path / "run")

    @pytest.mark.parametrize("name", sorted(FILES))
    @pytest.mark.parametrize("damage", ["empty", "missing", "bit"])
    def test_damaged_newest_checkpoint_falls_back_to_the_previous_one(self, name, damage, run_dir, caplog):
        path = run_dir / "checkpoints" / "00000060" / name
        content = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        else:
            content[len(content) // 2] ^= 1
            path.write_bytes(content if damage == "bit" else b"")
        assert restore(run_dir) == (30, 30)
        assert "00000060 can't be used" in caplog.text

    def test_nothing_is_restored_if_all_are_damaged(self, run_dir):
        for path in run_dir.glob("checkpoints/*/progress.json"):
            path.write_text("")
        with pytest.raises(ValueError, match=r"None of the checkpoints .*Choose another --run_dir"):
            restore(run_dir)

    def test_settings_are_those_of_the_newest_undamaged_file(self, run_dir):
        (run_dir / "checkpoints" / "00000060" / "config.json").write_text('{"steps_per_epoch": 5}')
        assert checkpoints.newest_settings(run_dir) == SETTINGS

    def test_damaged_checkpoint_is_replaced_and_the_previous_one_kept(self, run_dir):
        (run_dir / "checkpoints" / "00000060" / "progress.json").write_text("")
        save(run_dir, 45)
        assert [path.name for path in checkpoints.complete_checkpoints(run_dir)] == ["00000030", "00000045"]


class TestRestore:
    @pytest.fixture(scope="class")
    @classmethod
    def trainings(cls, make_config):
        """Two trainings with different weights."""
        made, devices = [], choose_devices(make_config(), Worker())
        for name in ("he_normal", "variant"):
            keras.utils.clear_session()
            config = make_config(initializer=name)
            made.append(build.compile_network(config, inputs.open_data(config), devices))
        return made

    def test_run_without_a_checkpoint_starts_at_the_beginning(self, trainings, tmp_path):
        _, compiled = trainings
        assert (
            checkpoints.restore(tmp_path, compiled.network, compiled.training_model, SETTINGS) == checkpoints.Progress()
        )

    def test_weights_step_and_plateau_come_back(self, trainings, tmp_path):
        saved, compiled = trainings
        state = {"best_top1": 0.5, "epochs_without_improvement": 1, "divisions": 2}
        progress = checkpoints.Progress(8, validation_due=True, plateau=state, best={"epoch": 1, "top1": 0.5})
        checkpoints.save(tmp_path, saved.network, saved.training_model, progress, SETTINGS)
        assert checkpoints.restore(tmp_path, compiled.network, compiled.training_model, SETTINGS) == progress
        for weight, expected in zip(compiled.network.get_weights(), saved.network.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_other_number_of_steps_per_epoch_keeps_the_fraction_of_the_run(self, trainings, tmp_path):
        saved, compiled = trainings
        checkpoints.save(tmp_path, saved.network, saved.training_model, checkpoints.Progress(8), SETTINGS)
        start = checkpoints.restore(tmp_path, compiled.network, compiled.training_model, {"steps_per_epoch": 2})
        assert start.step == int(compiled.optimizer.iterations) == 4

    def test_checkpoint_with_other_variables_is_refused_with_the_reason(self, tmp_path):
        save(tmp_path, 8)
        model = small_model()
        model.compile(PaperMomentum())
        model.optimizer.build(model.trainable_variables)
        with pytest.raises(ValueError, match=r"The newest: its variables are not this run's: .*momentum"):
            checkpoints.restore(tmp_path, model, model, SETTINGS)
