"""Files from elsewhere are data: none runs code or writes elsewhere, and none is overwritten without --overwrite."""

import json
import pathlib
import pickle
import shutil
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image
from programs import image_files, run, run_well

from alexnet_tf.evaluation import features, predictions
from alexnet_tf.model import load_model


class Evil:
    """An object for which pickle would call a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


@pytest.fixture
def evil_run(run_dir, tmp_path):
    """A run's folder for a malicious model.keras, and the file that it would create."""
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
            load_model(folder)
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
                load_model(folder)
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
        load_model(folder)
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


@pytest.mark.slow
class TestOutputs:
    """Programs overwrite nothing that they did not make, and refuse before they start to work."""

    def refused(self, words, program, *arguments):
        result = run(program, *arguments)
        assert result.returncode != 0
        assert words in result.stderr

    @pytest.mark.parametrize("program", ["predict", "client"])
    def test_panel_overwrites_no_file(self, program, run_dir, tmp_path):
        (path,) = image_files(tmp_path, 1)
        model = f"--model={run_dir}" if program == "predict" else "--server=http://localhost:1"
        before = path.read_bytes()
        self.refused("`panel` must not overwrite a file that is read", program, model, f"--panel={path}", path)
        self.refused("that is read", program, model, f"--panel={path}", "--overwrite", path)
        (tmp_path / "mine.png").write_text("mine")
        self.refused("unless with --overwrite", program, model, f"--panel={tmp_path / 'mine.png'}", path)
        assert (path.read_bytes(), (tmp_path / "mine.png").read_text()) == (before, "mine")
        assert sorted(each.name for each in tmp_path.iterdir()) == ["image-0.png", "mine.png"]

    def test_panel_is_replaced_where_it_may_be(self, run_dir, tmp_path):
        (path,) = image_files(tmp_path, 1)
        (tmp_path / "panel.png").write_text("an earlier one")
        run_well("predict", f"--model={run_dir}", f"--panel={tmp_path / 'panel.png'}", "--overwrite", path)
        assert Image.open(tmp_path / "panel.png").size[0] > 100

    @pytest.mark.parametrize(
        ("program", "flag", "name"),
        [
            ("evaluate", "--output_dir={}", "evaluation.json"),
            ("evaluate", "--save_predictions={}", "run.npz"),
            ("paper_figures", "--output_dir={}", "strongest_conv3.png"),
            ("extract_features", "--output={}/vectors.npz", "vectors.npz"),
            ("describe", "--picture={}/picture.svg", "picture.svg"),
        ],
    )
    def test_no_program_overwrites_a_file(self, program, flag, name, run_dir, data_dir, tmp_path):
        (tmp_path / "run").symlink_to(run_dir)
        (tmp_path / name).write_text("mine")
        arguments = [] if program == "describe" else [f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}"]
        self.refused("unless with --overwrite", program, flag.format(tmp_path), *arguments)
        assert (tmp_path / name).read_text() == "mine"
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["run", name])

    def test_neighbours_overwrite_no_features_even_when_asked_to(self, data_dir, tmp_path):
        (tmp_path / "n.npz").write_text("features")
        flags = [f"--features={tmp_path / 'n.npz'}", f"--queries={tmp_path / 'n.npz'}", f"--data_dir={data_dir}"]
        self.refused("that is read", "neighbours", *flags, f"--output={tmp_path / 'n.png'}", "--overwrite")
        assert (tmp_path / "n.npz").read_text() == "features"

    def test_training_takes_no_folder_that_holds_something_else(self, data_dir, tmp_path):
        (tmp_path / "dataset.json").write_text("mine")
        recipe = ["--variant=testing", "--epochs=1", "--batch_size=50"]
        self.refused(
            "which holds dataset.json but no run", "train", f"--data_dir={data_dir}", f"--run_dir={tmp_path}", *recipe
        )
        assert [each.name for each in tmp_path.iterdir()] == ["dataset.json"]

    @pytest.mark.parametrize(
        "name, reason", [("dataset.json", "dataset.json"), ("statistics.npz", "must not contain other files")]
    )
    def test_building_takes_no_folder_that_holds_its_files(self, name, reason, tmp_path):
        (tmp_path / name).write_text("mine")
        build = ["--source=fashion_mnist", f"--data_dir={tmp_path}", "--image_px=64"]
        self.refused(reason, "tfrecords.build", *build)
        assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "mine")]
