"""alexnet-evaluate: the numbers are those of a plain recomputation, of one model and of several."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
from absl import flags as absl_flags
from PIL import Image
from programs import ENVIRONMENT, run, run_well, train_flags

from alexnet_tf import evaluate
from alexnet_tf.distribution import workers
from alexnet_tf.evaluation import predictions
from alexnet_tf.figures import kernels, plots
from alexnet_tf.model import load_model, weights_checksum
from alexnet_tf.tfrecords import reader, schema
from alexnet_tf.training import initial_kernels


@pytest.fixture(scope="module")
def evaluated(data_dir, run_dir, tmp_path_factory):
    """The folder of an evaluation of two runs, the second of another seed and stopped after an epoch."""
    folder = tmp_path_factory.mktemp("evaluated")
    run_well("train", *train_flags(data_dir, folder / "short", "--epochs=1", "--seed=4"))
    models = f"--model={run_dir},{folder / 'short'}"
    saved = [f"--save_predictions={folder / 'saved'}", f"--output_dir={folder / 'out'}"]
    run_well("evaluate", models, f"--data_dir={data_dir}", *saved)
    return folder


@pytest.fixture(scope="module")
def evaluated_alone(data_dir, run_dir, tmp_path_factory):
    """The output and the folder of an evaluation of one run on one device; its predictions are saved there too."""
    folder = tmp_path_factory.mktemp("alone")
    flags = [f"--model={run_dir}", f"--data_dir={data_dir}", "--batch_size=111", "--strategy=one"]
    return run_well("evaluate", *flags, f"--output_dir={folder}", f"--save_predictions={folder}"), folder


@pytest.mark.slow
class TestEvaluate:
    def test_errors_and_pictures_are_those_of_the_model(self, data_dir, run_dir, evaluated_alone):
        output, folder = evaluated_alone
        result = json.loads((folder / "evaluation.json").read_text())
        model, _ = load_model(run_dir)
        for name, views in (("center_crop", 1), ("ten_views", 10)):
            dataset = reader.make_evaluation_dataset(data_dir, 64, 56, views=views)
            probabilities, labels = [], []
            for pixels, batch_labels in dataset:
                each = [model(pixels[:, v] if views == 10 else pixels).numpy() for v in range(views)]
                probabilities.append(np.mean(each, axis=0))
                labels.append(batch_labels.numpy())
            probabilities, labels = np.concatenate(probabilities), np.concatenate(labels)
            ranks = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
            assert result[name]["top1_error"] == pytest.approx(np.mean(ranks >= 1), abs=0.0015)
            assert result[name]["top5_error"] == pytest.approx(np.mean(ranks >= 5), abs=0.0015)
        assert result["images"] == len(labels) == 1000
        assert result["chance"] == {"top1_error": pytest.approx(0.9), "top5_error": pytest.approx(0.5)}
        assert f"{result['ten_views']['top1_error']:.2%}" in output
        picture = kernels.draw_kernels(model.get_layer("conv1").kernels, initial_kernels.load_initial_kernels(run_dir))
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "conv1_kernels.png")), picture)

    def test_model_of_other_classes_is_refused(self, run_dir, tmp_path):
        for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            (tmp_path / "images" / name).mkdir(parents=True)
            for index in range(8):
                Image.new("RGB", (64, 64), color).save(tmp_path / "images" / name / f"{index}.png")
        build = [f"--source=folder:{tmp_path / 'images'}", f"--data_dir={tmp_path / 'data'}", "--image_px=64"]
        run_well("tfrecords.build", *build, "--num_train_shards=2", "--num_validation_shards=1", "--num_processes=1")
        result = run("evaluate", f"--model={run_dir}", f"--data_dir={tmp_path / 'data'}")
        assert result.returncode != 0
        assert "must have been trained on the classes of the data" in result.stderr
        assert "blue" in result.stderr

    def test_file_that_is_no_model_is_refused(self, data_dir, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"PK no model")
        result = run("evaluate", f"--model={tmp_path}", f"--data_dir={data_dir}")
        assert result.returncode != 0
        assert "is not a complete Keras model" in result.stderr

    def test_several_models_are_measured_alone_and_averaged(self, evaluated):
        result = json.loads((evaluated / "out" / "evaluation.json").read_text())
        members = {}
        for name in ("undisturbed", "short"):
            with np.load(evaluated / "saved" / f"{name}.npz") as arrays:
                members[name] = {key: arrays[key] for key in ("labels", "center_crop", "ten_views")}
        labels = members["short"]["labels"]
        for view in ("center_crop", "ten_views"):
            probabilities = [np.float64(members[name][view]) for name in ("undisturbed", "short")]
            for model, of_model in zip(result["models"], probabilities, strict=True):
                assert model[view]["top1_error"] == np.mean(of_model.argmax(axis=1) != labels)
            mean = (probabilities[0] + probabilities[1]) / 2
            assert result[view]["top1_error"] == np.mean(mean.argmax(axis=1) != labels)
            ranks = (mean > mean[np.arange(len(labels)), labels][:, None]).sum(axis=1)
            assert result[view]["top5_error"] == pytest.approx(np.mean(ranks >= 5), abs=0.0015)
        table = (evaluated / "out" / "evaluation.md").read_text()
        assert "| undisturbed | " in table and "| short | " in table and "| 2 averaged | " in table
        assert f"{100 * result['ten_views']['top1_error']:.2f} (" in table
        diagram = plots.reliability_diagram(result["ten_views"]["calibration"])
        np.testing.assert_array_equal(np.asarray(Image.open(evaluated / "out" / "calibration.png")), diagram)

    def test_saved_predictions_replace_their_models(self, evaluated, data_dir, tmp_path):
        models = ",".join(str(evaluated / "saved" / f"{name}.npz") for name in ("undisturbed", "short"))
        run_well("evaluate", f"--model={models}", f"--data_dir={data_dir}", f"--output_dir={tmp_path}")
        before, after = (
            json.loads((folder / "evaluation.json").read_text()) for folder in (evaluated / "out", tmp_path)
        )
        for key in ("images", "models", "center_crop", "ten_views", "chance"):
            assert after[key] == before[key]
        flags = [f"--model={models}", f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'train'}"]
        wrong = run("evaluate", *flags, "--split=train")
        assert wrong.returncode != 0
        assert "must hold predictions of the split train" in wrong.stderr

    def test_two_devices_predict_as_one_whatever_the_last_batch(self, evaluated_alone, run_dir, data_dir, tmp_path):
        script = textwrap.dedent("""
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            from alexnet_tf import evaluate
            evaluate.run()
        """)
        # 1,000 images in batches of 111: the last has one, which only one of two devices gets.
        flags = [f"--model={run_dir}", f"--data_dir={data_dir}", "--batch_size=111", "--strategy=mirrored"]
        flags += [f"--output_dir={tmp_path}", f"--save_predictions={tmp_path}", "--noten_views"]
        result = subprocess.run(
            [sys.executable, "-c", script, *flags], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        _, folder = evaluated_alone
        one, two = (predictions.Predictions.load(path / "undisturbed.npz") for path in (folder, tmp_path))
        np.testing.assert_allclose(two.views["center_crop"], one.views["center_crop"], atol=1e-6)

    def test_three_workers_predict_as_one_and_the_chief_alone_writes(
        self, evaluated_alone, run_dir, data_dir, tmp_path
    ):
        flags = [f"--model={run_dir}", f"--data_dir={data_dir}", "--batch_size=111", "--num_local_workers=3"]
        output = run_well("evaluate", *flags, f"--output_dir={tmp_path}", f"--save_predictions={tmp_path}")
        _, folder = evaluated_alone
        # 333, 333 and 334 images
        one, three = (predictions.Predictions.load(path / "undisturbed.npz") for path in (folder, tmp_path))
        for view in ("center_crop", "ten_views"):
            np.testing.assert_allclose(three.views[view], one.views[view], atol=1e-6)
        assert output.count("Written: evaluation.json") == 1


class TestSeveralModels:
    """With an untrained network, in this process."""

    @pytest.fixture
    def evaluate_models(self, untrained_dir, data_dir, tmp_path, monkeypatch):
        """A function that evaluates the models with some names: "trained" is a network, "run" has one checkpoint."""
        checkpoint = tmp_path / "run" / "checkpoints" / "00000150"
        checkpoint.mkdir(parents=True)
        shutil.copy(untrained_dir / "model.keras", checkpoint)
        shutil.copy(untrained_dir / "dataset.json", tmp_path / "run")
        shutil.copytree(untrained_dir, tmp_path / "trained")

        def run(*models, **changes):
            values = {"data_dir": data_dir, "split": "validation", "output_dir": tmp_path / "out", "batch_size": 128}
            values |= {"on_bad_record": "fail", "ten_views": False}
            values |= {"save_predictions": tmp_path / "saved", "strategy": "one", "expect": []}
            values |= {"model": [tmp_path / name for name in models]} | changes
            monkeypatch.setattr(absl_flags, "FLAGS", types.SimpleNamespace(**values))
            evaluate._evaluate(workers.Worker())

        return run

    def test_mistake_in_the_last_is_found_before_the_first_predicts(self, evaluate_models, tmp_path, monkeypatch):
        monkeypatch.setattr(predictions, "predict", lambda *arguments: pytest.fail("a model predicted"))
        (tmp_path / "damaged.keras").write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"damaged\.keras is not a complete Keras model"):
            evaluate_models("trained", "damaged.keras")
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            evaluate_models("trained", output_dir=tmp_path / "file")

    def test_checkpoint_is_evaluated_and_saved_before_the_next_model(self, evaluate_models, tmp_path, monkeypatch):
        predict = predictions.predict

        def predict_once(model, name, *arguments):
            if name == "trained":
                raise RuntimeError(f"{name} fails")
            return predict(model, name, *arguments)

        monkeypatch.setattr(predictions, "predict", predict_once)
        with pytest.raises(RuntimeError, match="trained fails"):
            evaluate_models("run/checkpoints/00000150", "trained")
        evaluate_models("saved/run-00000150.npz")
        result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        (of_model,) = result["models"]
        assert of_model["name"] == "run-00000150"
        assert "center_crop" in result and "ten_views" not in result  # as the flag says
        assert of_model["weights"] == weights_checksum(load_model(tmp_path / "trained")[0])
        assert result["images"] == 1000

    def test_expected_errors_are_compared_and_the_status_says_when_one_is_exceeded(
        self, evaluate_models, tmp_path, capsys
    ):
        evaluate_models("trained")
        error = json.loads((tmp_path / "out" / "evaluation.json").read_text())["center_crop"]["top1_error"]
        saved = {"save_predictions": None}
        evaluate_models("saved/trained.npz", expect=[f"top1={100 * error + 0.5:.3f}", "top5=100"], **saved)
        output = capsys.readouterr().out
        assert output.count("  pass\n") == 1 and output.count("  pass, lower than chance explains\n") == 1
        with pytest.raises(SystemExit) as ended:
            evaluate_models("saved/trained.npz", expect=["top1=50"], **saved)
        assert ended.value.code == 1
        (row,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["expected"]
        assert row["expected"] == 0.5 and row["measured"] == error and not row["passed"]
        low, high = row["interval_95"]
        words = ["center", "crop,", "top-1", "50.00%", f"{error:.2%}", f"({low:.2%}", "to", f"{high:.2%})", "FAIL"]
        assert words in [line.split() for line in capsys.readouterr().out.splitlines()]

    def test_published_weights_are_compared_with_their_errors(self):
        flag = types.SimpleNamespace(model=["caffenet"], expect=[], split="validation")
        assert evaluate._expected(flag) == {"top1": 42.6, "top5": 19.6}
        flag.split = "train"
        assert evaluate._expected(flag) == {}
        flag.expect = ["ten_view_top1=41"]
        assert evaluate._expected(flag) == {"ten_view_top1": 41}

    def test_classes_are_the_same_by_their_wordnet_ids_and_another_resizing_is_said(
        self, untrained_dir, data_dir, tmp_path, caplog
    ):
        shutil.copytree(untrained_dir, tmp_path / "run")
        data = schema.load_description(data_dir)
        ids = [f"n{number:08}" for number in range(10)]
        for names, fits in ((ids, True), (ids[::-1], False)):
            named = [f"{name} word" for name in ids]
            settings = {"exif_orientation": True, "resize": "warp"}
            schema.DatasetDescription(tuple(named), 64, False, "png", {}, settings).save(tmp_path / "run")
            described = dataclasses.replace(data, class_names=tuple(names))
            with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="trained on the classes"):
                predictions.load_model_for(tmp_path / "run", data_dir, described)
            assert "alexnet-tfrecords --resize=warp" in caplog.text


class TestFlags:
    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--model=run,run"], "`output_dir` must be given"),
            (["--model=a/run,b/run", "--output_dir=out", "--save_predictions=out"], "runs of different names"),
            (
                ["--model=run", "--expect=top3=4"],
                "names are top1, top5, ten_view_top1, ten_view_top5. Received: 'top3=4'",
            ),
            (["--model=run", "--expect=ten_view_top1=4", "--noten_views"], "`expect` of ten views needs `ten_views`"),
        ],
    )
    def test_flags_that_exclude_one_another_are_refused(self, flags, message):
        result = run("evaluate", *flags, "--data_dir=data")
        assert result.returncode == 2
        assert message in result.stderr

    @pytest.mark.parametrize("program", ["evaluate", "features", "neighbours", "paper_figures", "demo"])
    def test_help_needs_no_tensorflow(self, program):
        command = [sys.executable, "-X", "importtime", "-m", f"alexnet_tf.{program}", "--help"]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert f"alexnet_tf/{program}.py:" in result.stdout
        imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        assert "absl.flags" in imported
        assert not imported & {"tensorflow", "keras", "matplotlib", "numpy"}
