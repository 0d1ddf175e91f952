"""The programs after training, as a user runs them: prediction, and every program's help."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from programs import ENVIRONMENT, image_files, program, run, run_well


class TestPredict:
    def test_trained_and_served_model_say_the_same(self, run_dir, export_dir, tmp_path):
        paths = image_files(tmp_path, 3)
        trained = run_well("predict", f"--model={run_dir}", f"--panel={tmp_path / 'panel.png'}", *paths)
        served = run_well("predict", f"--model={export_dir / '1'}", *paths)
        assert trained.splitlines()[:18] == served.splitlines()[:18]
        assert trained.splitlines()[0] == str(paths[0])
        assert np.asarray(Image.open(tmp_path / "panel.png")).shape[2] == 3

    def test_file_that_is_no_image_is_named_and_the_others_answered(self, run_dir, tmp_path):
        (good,) = image_files(tmp_path, 1)
        cut = tmp_path / "cut.jpg"
        Image.effect_noise((100, 100), 50).save(cut)
        cut.write_bytes(cut.read_bytes()[:500])
        empty = tmp_path / "empty.png"
        empty.touch()
        result = run("predict", f"--model={run_dir}", cut, tmp_path / "missing.png", empty, good)
        assert result.returncode == 1
        assert [line for line in result.stdout.splitlines() if line.endswith(".png")] == [str(good)]
        for path in (cut, tmp_path / "missing.png", empty):
            assert f"{path}: not an image that can be read" in result.stderr


@pytest.mark.parametrize(
    "name, module, flags",
    [
        ("client", "client", ["--deadline", "--[no]overwrite"]),
        ("describe", "describe", ["--against", "--[no]overwrite"]),
        *(
            pytest.param(*program, marks=pytest.mark.slow)
            for program in (
                ("tfrecords", "tfrecords.build", ["--max_bad_fraction"]),
                ("data-service", "tfrecords.service", ["--dispatcher"]),
                ("train", "train", ["--learning_rate"]),
                ("convert", "convert", ["--class_names"]),
                ("evaluate", "evaluate", ["--[no]ten_views", "--[no]overwrite"]),
                ("features", "features", ["--layer", "--[no]overwrite"]),
                ("neighbours", "neighbours", ["--[no]approximate", "--[no]overwrite"]),
                ("figures", "paper_figures", ["--goal_error", "--[no]overwrite"]),
                ("export", "export", ["--version"]),
                ("predict", "predict", ["--panel", "--[no]overwrite"]),
            )
        ),
    ],
)
def test_console_script_and_module_help_with_every_flag(name, module, flags):
    script = pathlib.Path(sys.executable).with_name(f"alexnet-{name}")
    commands = [[script, "--help"], program(module, "--help")]
    # Side by side: most of the time goes by while one or the other imports.
    started = [subprocess.Popen(c, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for c in commands]
    for process in started:
        output, _ = process.communicate()
        assert all(flag in output for flag in flags), output
