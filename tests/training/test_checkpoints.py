"""What is saved, and what is not."""

import json
import os
import pathlib
import time

import keras
import numpy as np
import pytest

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.training import checkpoints, compilation
from alexnet_tf.training.optimizers import PaperMomentum


class TestSave:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite_are_not_saved(self, value, tmp_path):
        alexnet = build_alexnet("testing", 3)
        training_model = with_color_offset(alexnet)
        compilation.compile_model(training_model, PaperMomentum(), jit=False)
        checkpoints.save(tmp_path, alexnet, training_model, {"step": 5})
        kernel = alexnet.get_layer("fc6").kernels[1]
        kernel.assign(np.where(np.arange(32 * 2)[:, None] == 7, value, kernel))
        with pytest.raises(FloatingPointError, match="After step 6 fc6/kernel_2 is not finite"):
            checkpoints.save(tmp_path, alexnet, training_model, {"step": 6})
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000005"]
        published = keras.models.load_model(tmp_path / "model.keras")
        assert np.isfinite(published.get_layer("fc6").kernels[1]).all()

    def test_complete_files_are_on_the_disk_before_they_have_their_names(self, tmp_path, monkeypatch):
        save(tmp_path, 30)
        before = (tmp_path / "model.keras").open("rb")
        content = before.read()
        events = []
        for module, name in ((os, "fsync"), (pathlib.Path, "rename"), (pathlib.Path, "replace")):
            monkeypatch.setattr(module, name, self.recorded(events, name, getattr(module, name)))
        save(tmp_path, 60)
        temporary, folder = events[-3][1], str(tmp_path / "checkpoints")
        files = {f"{temporary}/{name}" for name in ("model.keras", "training_state.npz", "progress.json")}
        renamed = events.index(("rename", temporary))
        assert files | {temporary} <= {path for kind, path in events[:renamed] if kind == "fsync"}
        assert events[renamed:] == [
            ("rename", temporary),
            ("fsync", folder),
            ("replace", str(tmp_path / ".tmp-model.keras")),  # and not written in place
        ]
        with before:
            before.seek(0)
            assert before.read() == content != (tmp_path / "model.keras").read_bytes()

    @staticmethod
    def recorded(events, name, function):
        def call(what, *arguments):
            path = str(pathlib.Path(f"/proc/self/fd/{what}").readlink()) if name == "fsync" else str(what)
            events.append((name, path))
            return function(what, *arguments)

        return call


def save(run_dir, *steps):
    for step in steps:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD())
        checkpoints.save(run_dir, model, model, {"step": step})
    return model


class TestOrder:
    @pytest.mark.parametrize("seconds", [lambda index: 86_400 + index, lambda index: -index, lambda index: 0])
    def test_newest_is_found_and_kept_whatever_the_files_times_say(self, seconds, tmp_path):
        save(tmp_path, 30, 60)
        for index, folder in enumerate(sorted((tmp_path / "checkpoints").iterdir())):
            moment = time.time() + seconds(index)  # a clock that stepped back since, reversed, or a copy without times
            for path in [*folder.iterdir(), folder]:
                os.utime(path, (moment, moment))
        model = save(tmp_path, 45)  # fewer steps than the one before: resumed with a larger batch
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000045", "00000060"]
        assert checkpoints.restore_newest(tmp_path, model, model)["step"] == 45

    def test_checkpoints_without_a_number_are_older_than_those_with_one(self, tmp_path):
        save(tmp_path, 60)
        progress = tmp_path / "checkpoints" / "00000060" / "progress.json"
        progress.write_text(json.dumps({"step": 60}))  # as earlier versions wrote it
        os.utime(progress, (time.time() + 86_400, time.time() + 86_400))
        save(tmp_path, 30)
        newest = checkpoints.complete_checkpoints(tmp_path)[-1]
        assert newest.name == "00000030"
