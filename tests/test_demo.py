"""The parts of `make demo` that are not programs of their own."""

import json
import os

from PIL import Image

from alexnet_tf import demo


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


def test_sample_images_are_named_by_their_classes(tmp_path):
    paths = demo._write_sample_images(tmp_path / "images", count=3)
    assert [path.name for path in paths] == ["T-shirt_top.png", "Trouser.png", "Pullover.png"]
    assert all(Image.open(path).size == (28, 28) for path in paths)


def test_only_missing_steps_are_run_and_the_summary_holds_their_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "runs" / "demo"
    started = []

    def run_program(module, *arguments):
        started.append(module)
        if module == "train":
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "training.json").write_text('{"images_per_second": 17.5}')
            (run_dir / "model.keras").touch()
            os.utime(run_dir / "model.keras", (1, 1))
        if module == "evaluate":
            errors = {"top1_error": 0.25, "top5_error": 0.125}
            evaluation = {"images": 1000} | {key: errors for key in ("center_crop", "ten_views", "chance")}
            (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
        if module == "export":
            (run_dir / "export" / "1").mkdir(parents=True)
        return 2.0

    monkeypatch.setattr(demo, "_run_program", run_program)
    demo.main([])
    assert started == ["tfrecords.build", "train", "evaluate", "export", "predict"]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["val_top1_error"] == 0.25
    assert summary["seconds_per_step"] == dict.fromkeys(["tfrecords", "train", "evaluate", "export", "predict"], 2.0)
    assert summary["export"] == "runs/demo/export/1"
    assert "top-1 error            25.0%       25.0%       25.0%" in capsys.readouterr().out
    started.clear()
    demo.main([])
    assert started == ["tfrecords.build", "train", "predict"]
