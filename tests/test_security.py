"""Files that came from elsewhere are data: none of them runs code, writes beside itself, or is overwritten unasked."""

import json
import pathlib
import pickle
import shutil
import zipfile

import keras
import numpy as np
import pytest
from programs import image_files, run

from alexnet_tf import checkpoint, features, predictions


class Evil:
    """What pickle would call a function for."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


@pytest.fixture
def evil_run(run_dir, tmp_path):
    """A run's folder for a damaged model.keras, and the file that it would make."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run_dir / "dataset.json", folder)
    return folder, tmp_path / "made by it"


class TestKerasFiles:
    def test_lambda_layer_is_refused(self, evil_run):
        folder, made = evil_run
        name = str(made)
        image = keras.Input((56, 56, 3))
        x = keras.layers.Lambda(lambda x: (__import__("pathlib").Path(name).touch(), x)[1], output_shape=(56, 56, 3))(
            image
        )
        keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x))).save(folder / "model.keras")
        made.unlink(missing_ok=True)  # of building it
        with pytest.raises(ValueError, match=r"(?i)lambda"):
            checkpoint.load_model(folder)
        assert not made.exists()

    def test_configuration_that_names_other_functions_is_refused(self, evil_run, run_dir):
        folder, made = evil_run
        with zipfile.ZipFile(run_dir / "model.keras") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(members["config.json"])
        call = {"module": "os", "class_name": "system", "config": f"touch '{made}'", "registered_name": "system"}
        for replaced in (call, config | {"config": config["config"] | {"layers": [call]}}):
            with zipfile.ZipFile(folder / "model.keras", "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, json.dumps(replaced) if name == "config.json" else content)
            with pytest.raises((ValueError, TypeError)):
                checkpoint.load_model(folder)
            assert not made.exists()

    def test_members_that_name_other_folders_write_nothing_there(self, evil_run, run_dir, tmp_path):
        folder, _ = evil_run
        with zipfile.ZipFile(run_dir / "model.keras") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            for name in ("../outside", "assets/../../outside", f"{tmp_path}/outside", "assets/inside"):
                archive.writestr(name, b"evil")
        before = set(tmp_path.parent.rglob("*"))
        checkpoint.load_model(folder)
        assert set(tmp_path.parent.rglob("*")) == before
        assert not any(path.exists() for path in (folder.parent / "outside", pathlib.Path("../outside")))


class TestArrays:
    @pytest.mark.parametrize("load", [predictions.Predictions.load, features.Features.load])
    def test_pickled_arrays_are_refused(self, load, tmp_path):
        made = tmp_path / "made"
        evil = np.array([Evil(made)], object)
        np.savez(tmp_path / "evil.npz", labels=evil, vectors=evil, center_crop=evil, about=evil)
        with pytest.raises(ValueError, match=r"(?i)allow_pickle"):
            load(tmp_path / "evil.npz")
        assert not made.exists()
        pickle.loads(pickle.dumps(Evil(made)))
        assert made.exists()  # so it would have


class TestPanel:
    @pytest.mark.parametrize("program", ["predict", "client"])
    def test_panel_overwrites_no_other_file(self, program, run_dir, tmp_path):
        (path,) = image_files(tmp_path, 1)
        (tmp_path / "notes.txt").write_text("mine")
        model = f"--model={run_dir}" if program == "predict" else "--server=http://localhost:1"
        for panel, content in ((path, path.read_bytes()), (tmp_path / "notes.txt", b"mine")):
            result = run(program, model, f"--panel={panel}", path)
            assert result.returncode != 0
            assert "`panel` must be a new file" in result.stderr
            assert panel.read_bytes() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["image-0.png", "notes.txt"]
