"""Files from elsewhere are data: none runs code, and no program overwrites a file without --overwrite."""

import pathlib
import pickle
import re

import numpy as np
import pytest
from PIL import Image
from programs import call, image_files

from alexnet_tf.evaluation import features, predictions


class Evil:
    """An object for which pickle would call a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


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


class TestOutputs:
    """Programs overwrite nothing that they did not make, and refuse before they open models and data."""

    def refused(self, words, program, *arguments):
        with pytest.raises(ValueError, match=re.escape(words)):
            call(program, *arguments)

    @pytest.mark.parametrize("program", ["predict", "client"])
    def test_panel_overwrites_no_file(self, program, tmp_path):
        (path,) = image_files(tmp_path, 1)
        model = "--model=nowhere" if program == "predict" else "--server=http://localhost:1"
        before = path.read_bytes()
        self.refused("`panel` must not overwrite a file that is read", program, model, f"--panel={path}", path)
        self.refused("that is read", program, model, f"--panel={path}", "--overwrite", path)
        (tmp_path / "mine.png").write_text("mine")
        self.refused("unless with --overwrite", program, model, f"--panel={tmp_path / 'mine.png'}", path)
        assert (path.read_bytes(), (tmp_path / "mine.png").read_text()) == (before, "mine")
        assert sorted(each.name for each in tmp_path.iterdir()) == ["image-0.png", "mine.png"]

    def test_panel_is_replaced_with_overwrite(self, untrained_dir, tmp_path):
        (path,) = image_files(tmp_path, 1)
        (tmp_path / "panel.png").write_text("an earlier one")
        call("predict", f"--model={untrained_dir}", f"--panel={tmp_path / 'panel.png'}", "--overwrite", path)
        assert Image.open(tmp_path / "panel.png").size[0] > 100

    @pytest.mark.parametrize(
        ("program", "flag", "name"),
        [
            ("evaluate", "--output_dir={}", "evaluation.json"),
            ("evaluate", "--save_predictions={}", "nowhere.npz"),
            ("paper_figures", "--output_dir={}", "strongest_conv3.png"),
            ("extract_features", "--output={}/vectors.npz", "vectors.npz"),
            ("describe", "--picture={}/picture.svg", "picture.svg"),
            ("predict", "--csv={}/table.csv", "table.csv"),
        ],
    )
    def test_no_program_overwrites_a_file(self, program, flag, name, tmp_path):
        (tmp_path / name).write_text("mine")
        arguments = {"describe": [], "predict": ["--model=nowhere", "image.png"]}
        others = arguments.get(program, ["--model=nowhere", "--data_dir=nowhere"])
        self.refused("unless with --overwrite", program, flag.format(tmp_path), *others)
        assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "mine")]

    def test_neighbours_never_overwrite_their_features(self, tmp_path):
        (tmp_path / "n.npz").write_text("features")
        flags = [f"--features={tmp_path / 'n.npz'}", f"--queries={tmp_path / 'n.npz'}", "--data_dir=nowhere"]
        self.refused("that is read", "neighbours", *flags, f"--output={tmp_path / 'n.png'}", "--overwrite")
        assert (tmp_path / "n.npz").read_text() == "features"

    @pytest.mark.parametrize(
        "name, reason", [("dataset.json", "dataset.json"), ("statistics.npz", "must not contain other files")]
    )
    def test_building_takes_no_folder_that_holds_its_files(self, name, reason, tmp_path):
        (tmp_path / name).write_text("mine")
        build = ["--source=fashion_mnist", f"--data_dir={tmp_path}", "--image_px=64"]
        self.refused(reason, "tfrecords.build", *build)
        assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(name, "mine")]
