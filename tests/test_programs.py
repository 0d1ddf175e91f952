"""The programs as a user runs them: prediction, and every program's help."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from programs import ENVIRONMENT, call, image_files, run

import alexnet_tf
from alexnet_tf.serving import classifier, prediction_panel


class TestPanel:
    @pytest.mark.parametrize("panel, expected", [(None, []), ("panel.png", [f"{number:02d}" for number in range(40)])])
    def test_first_40_images_are_kept_only_for_a_panel(self, panel, expected, tmp_path, monkeypatch):
        paths = [tmp_path / f"{number:02d}.png" for number in range(45)]
        for path in paths:
            path.write_bytes(path.stem.encode())
        shown = []
        monkeypatch.setattr(classifier, "open_classifier", lambda *_, **__: lambda encoded: ([encoded.decode()], [1.0]))
        monkeypatch.setattr(prediction_panel, "write_panel", lambda path, images: shown.extend(images))
        flags = [f"--panel={tmp_path / panel}"] if panel else []
        assert call("predict", "--model=run", *flags, *paths).count("100.00%") == 45
        assert [title for title, *_ in shown] == [encoded.decode() for _, encoded, *_ in shown] == expected


class TestCsv:
    @pytest.mark.parametrize("exported", [False, True])
    def test_probabilities_of_all_classes_for_a_folder(self, exported, untrained, untrained_dir, export_dir, tmp_path):
        model, description = untrained
        (tmp_path / "images").mkdir()
        paths = image_files(tmp_path / "images", 3)
        folder = export_dir / "1" if exported else untrained_dir
        output = call("predict", f"--model={folder}", f"--csv={tmp_path / 'all.csv'}", tmp_path / "images")
        with (tmp_path / "all.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["file", *description.class_names]
        assert [row[0] for row in rows] == sorted(map(str, paths))
        expected = model.predict(alexnet_tf.preprocess(sorted(paths), model), verbose=0)
        np.testing.assert_allclose(np.float64([row[1:] for row in rows]), expected, rtol=0.02)
        best = [line.split("%  ")[1] for line in output.splitlines() if line.startswith("  ")]
        assert best[:5] == [description.class_names[index] for index in np.argsort(-expected[0])[:5]]


class TestPredict:
    def test_saved_and_exported_network_predict_the_same_and_bad_files_are_named(
        self, untrained_dir, export_dir, tmp_path, capsys
    ):
        paths = image_files(tmp_path, 3)
        cut = tmp_path / "cut.jpg"
        Image.effect_noise((100, 100), 50).save(cut)
        cut.write_bytes(cut.read_bytes()[:500])
        empty = tmp_path / "empty.png"
        empty.touch()
        arguments = [f"--panel={tmp_path / 'panel.png'}", cut, *paths[:2], tmp_path / "missing.png", empty, paths[2]]
        results = []
        for folder in (untrained_dir, export_dir / "1"):
            with pytest.raises(SystemExit) as ending:
                call("predict", f"--model={folder}", *arguments, "--overwrite")
            printed = capsys.readouterr()
            results.append(printed.out.splitlines()[:18])
            assert ending.value.code == 1
            assert results[-1][0:18:6] == [str(path) for path in paths]
            assert f"{tmp_path / 'missing.png'}: does not exist\n" in printed.err
            for path in (cut, empty):
                assert f"{path}: not an image that can be read" in printed.err
            assert np.asarray(Image.open(tmp_path / "panel.png")).shape[2] == 3
        assert results[0] == results[1]


PROGRAMS = {
    "client": ("client", ["--deadline", "--[no]overwrite"]),
    "convert": ("convert", ["--class_names"]),
    "data-service": ("tfrecords.service", ["--dispatcher"]),
    "describe": ("describe", ["--against", "--[no]overwrite"]),
    "evaluate": ("evaluate", ["--[no]ten_views", "--[no]overwrite"]),
    "export": ("export", ["--version", "--model=... --export_dir=... [FLAGS]", "(torchvision, caffe, caffenet,"]),
    "features": ("extract_features", ["--layers", "--[no]overwrite"]),
    "figures": ("paper_figures", ["--goal_error", "--[no]overwrite"]),
    "neighbours": ("neighbours", ["--queries", "--[no]overwrite"]),
    "predict": ("predict", ["--panel", "--[no]overwrite", "IMAGE|FOLDER ..."]),
    "tfrecords": ("tfrecords.build", ["--max_bad_fraction"]),
    "train": ("train", ["\nOptimizer:\n  --learning_rate", "\nThird-party TFRecords:\n  --label_offset"]),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def helps(request):
    """What --help must show of a program, and its output and imports, by its console script and by its module."""
    module, flags = PROGRAMS[request.param]
    python = [sys.executable, "-X", "importtime"]
    script = pathlib.Path(sys.executable).with_name(f"alexnet-{request.param}")
    started = [
        subprocess.Popen(
            [*python, *program, "--help"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for program in ([script], ["-m", f"alexnet_tf.{module}"])
    ]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [*flags, "Usage: ", f"\n    alexnet-{request.param} ", "\nMessages:\n  --[no]debug"], outputs


class TestHelp:
    def test_console_script_and_module_show_examples_and_flags(self, helps):
        shown, outputs = helps
        for output, _ in outputs:
            assert all(text in output for text in shown), output

    def test_help_imports_no_tensorflow(self, helps):
        for _, imports in helps[1]:
            imported = {line.rpartition("|")[2].strip() for line in imports.splitlines() if "import time:" in line}
            assert "absl.flags" in imported
            assert not imported & {"tensorflow", "keras", "matplotlib", "torch"}


@pytest.mark.parametrize(
    "program, flags, named",
    [
        ("train", ["--data_dir=folder:gs://bucket/photos", "--run_dir=run"], "`data_dir` must be on a disk"),
        ("train", ["--data_dir=data", "--run_dir=s3://bucket/run"], "`run_dir` must be on a disk"),
        ("tfrecords.build", ["--source=folder:hdfs://host/photos", "--data_dir=data"], "`source` must be on a disk"),
        ("tfrecords.build", ["--source=fashion_mnist", "--data_dir=gs://bucket/data"], "`data_dir` must be on a disk"),
        ("evaluate", ["--model=a,gs://bucket/run", "--data_dir=data"], "`model` must be on a disk"),
    ],
)
def test_object_stores_are_refused_with_the_way_to_mount_them(program, flags, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(program, *flags)
    assert result.returncode == 2
    assert named in result.stderr and "gcsfuse" in result.stderr and "Received: " in result.stderr
    assert not list(tmp_path.iterdir())  # in particular no folder "gs:"


@pytest.mark.parametrize(
    "program, flags, message",
    [
        ("predict", ["--model=nothing", "photo.jpg"], "No model found: nothing does not exist"),
        ("predict", ["--model=torchvision", "nosuch.jpg"], "nosuch.jpg does not exist."),
        ("extract_features", ["--model=torchvision", "--output=f.npz", "empty"], "There are no files in empty."),
        (
            "paper_figures",
            ["--model=caffe", "--output_dir=o", "--figure=occlusion", "--image=no"],
            "no does not exist.",
        ),
        ("neighbours", ["--features=no.npz", "--output=n.png"], "no.npz does not exist."),
        ("describe", ["no.pth"], "no.pth does not exist."),
        ("convert", ["--input=no.pth", "--output_dir=o"], "No model found: no.pth does not exist"),
        ("export", ["--model=nothing", "--export_dir=e"], "No model found: nothing does not exist"),
        ("evaluate", ["--model=nothing", "--data_dir=d"], "No model found: nothing does not exist"),
        ("evaluate", ["--model=no.npz", "--data_dir=d", "--output_dir=o"], "no.npz does not exist."),
        ("tfrecords.build", ["--source=folder:no", "--data_dir=d"], "no does not exist."),
        ("tfrecords.build", ["--source=ilsvrc2012:no", "--data_dir=d"], "no does not exist."),
    ],
)
def test_missing_paths_are_named_before_tensorflow_is_imported(program, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("empty").mkdir()
    pathlib.Path("photo.jpg").touch()
    for name in ("alexnet_tf.model", "alexnet_tf.tfrecords.dataset_builder"):  # which import TensorFlow
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=message):
        call(program, *flags)


def test_records_in_an_object_store_are_left_to_tensorflow_which_names_its_file_systems(tmp_path):
    with pytest.raises(OSError, match="s3://bucket/records can't be read: TensorFlow reads"):
        call("tfrecords.build", "--source=tfrecords:s3://bucket/records", f"--data_dir={tmp_path / 'made'}")
