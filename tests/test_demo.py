"""The parts of `make demo` that are not programs of their own."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from programs import ENVIRONMENT

from alexnet_tf import demo
from alexnet_tf.tfrecords import reader, schema


def test_latest_version_is_the_highest_number(tmp_path):
    assert demo._latest_version(tmp_path) is None
    for name in ("2", "10", ".tmp-11"):
        (tmp_path / name).mkdir()
    assert demo._latest_version(tmp_path).name == "10"


def test_result_is_newer_only_if_it_was_written_after(tmp_path):
    for name, seconds in (("model", 2), ("old", 1), ("new", 3)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    assert demo._is_newer(tmp_path / "new", tmp_path / "model")
    assert not demo._is_newer(tmp_path / "old", tmp_path / "model")
    assert not demo._is_newer(tmp_path / "missing", tmp_path / "model")
    assert not demo._is_newer(None, tmp_path / "model")


def test_sample_images_are_of_their_classes_and_named_by_them(data_dir, tmp_path):
    paths = demo._write_sample_images(data_dir, tmp_path / "images", count=3)
    assert [path.name for path in paths] == ["T-shirt_top.png", "Trouser.png", "Pullover.png"]
    description = schema.load_description(data_dir)
    for label, path in enumerate(paths):
        numbers = np.flatnonzero(reader.read_labels(data_dir, description, "validation") == label)
        expected = reader.read_images(data_dir, description, "validation", numbers[:1])[0]
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


@pytest.mark.parametrize(
    "source, data, run",
    [
        ("fashion_mnist", "fashion_mnist_sample", "demo"),
        ("tfds:imagenette/160px-v2", "160px_v2", "demo_160px_v2"),
        ("folder:/my/photos/", "photos", "demo_photos"),
    ],
)
def test_each_source_has_folders_of_its_own(source, data, run):
    assert demo._folders(source) == (pathlib.Path("data") / data, pathlib.Path("runs") / run)
    run = run.replace("demo", "demo_transfer")
    assert demo._folders(source, transfer=True) == (pathlib.Path("data") / data, pathlib.Path("runs") / run)


class TestSteps:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        """Runs the demo with programs that write only their results, in 2 seconds each; returns those that ran."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(demo, "_write_sample_images", lambda data_dir, folder: [])

        def run(error, **arguments):
            started = []

            def run_program(module, *flags):
                run_dir = demo._folders("fashion_mnist", **arguments)[1]
                started.append(module)
                if module == "train" and not run_dir.exists():
                    run_dir.mkdir(parents=True)
                    (run_dir / "training.json").write_text('{"images_per_second": 17.5}')
                    (run_dir / "model.keras").touch()
                    os.utime(run_dir / "model.keras", (1, 1))
                    return 20.0
                if module == "evaluate":
                    errors = {"top1_error": error, "top5_error": 0.125}
                    evaluation = {"images": 1000} | {key: errors for key in ("center_crop", "ten_views", "chance")}
                    (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
                if module == "export":
                    (run_dir / "export" / "1").mkdir(parents=True)
                return 2.0

            monkeypatch.setattr(demo, "_run_program", run_program)
            demo._run_all("fashion_mnist", **arguments)
            return started

        return run

    def test_only_missing_steps_are_run_and_the_summary_holds_their_results(self, run):
        assert run(0.25) == ["tfrecords.build", "train", "evaluate", "export", "predict"]
        summary = json.loads(pathlib.Path("runs/demo/summary.json").read_text())
        assert summary["val_top1_error"] == 0.25
        assert summary["seconds_per_step"] == {"tfrecords": 2, "train": 20, "evaluate": 2, "export": 2, "predict": 2}
        assert summary["export"] == "runs/demo/export/1"
        assert run(0.5) == ["tfrecords.build", "train", "predict"]
        assert json.loads(pathlib.Path("runs/demo/summary.json").read_text()) == summary  # with the first start's times

    def test_table_has_both_ways_of_training(self, run, capsys):
        run(0.25)
        assert "fine-tuned" not in capsys.readouterr().out.partition("Pictures")[0]
        run(0.125, transfer=True)
        table = capsys.readouterr().out.partition("Pictures")[0]
        assert "paper, from scratch                25.0%      25.0%       20 s       28 s" in table
        assert "published weights, fine-tuned      12.5%      12.5%       20 s       28 s" in table


@pytest.mark.slow
@pytest.mark.long  # the full network is trained, if only for some steps
def test_folder_of_photographs_goes_all_the_way(tmp_path):
    random = np.random.default_rng(0)
    for name, color in (("dandelion", (230, 200, 40)), ("daisy", (240, 240, 240)), ("rose", (190, 20, 30))):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for number in range(100):
            rows, columns = random.integers(160, 300, 2)
            y, x = np.ogrid[:rows, :columns]
            flower = (y - rows / 2) ** 2 + (x - columns / 2) ** 2 < random.integers(40, 75) ** 2
            green = random.integers(20, 90, (rows, columns, 1)) * np.array([0.4, 1.0, 0.3])
            pixels = np.where(flower[..., None], color + random.integers(-20, 20, 3), green)
            picture = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
            picture.save(tmp_path / "flowers" / name / f"{number}.jpg")
    command = [sys.executable, "-m", "alexnet_tf.demo", "--source=folder:flowers"]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "runs" / "demo_flowers" / "summary.json").read_text())
    assert summary["val_top1_error"] < 0.4  # chance is 0.67
    assert all((tmp_path / picture).exists() for picture in summary["pictures"])
    assert "validation images of folder:flowers" in result.stdout
