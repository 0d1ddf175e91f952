"""alexnet-evaluate, compared with plain recomputations, for one model and for several."""

import json
import shutil
import subprocess
import sys
import textwrap
import types

import keras
import numpy as np
import pytest
from PIL import Image
from programs import ENVIRONMENT, call, run_well

from alexnet_tf import evaluate
from alexnet_tf.evaluation import predictions
from alexnet_tf.figures import kernels, plots
from alexnet_tf.model import build_alexnet, load_model, weights_checksum
from alexnet_tf.tfrecords import reader, verify
from alexnet_tf.training import initial_kernels


@pytest.fixture(scope="module")
def models(untrained_dir, tmp_path_factory):
    """A folder with a run, "trained", and another run's checkpoint with other weights, of small networks."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(untrained_dir, folder / "trained")
    initial = [kernel + 0.1 for kernel in kernels.first_kernels(load_model(untrained_dir))]
    initial_kernels.save_initial_kernels(folder / "trained", initial)
    (folder / "run" / "checkpoints" / "00000150").mkdir(parents=True)
    shutil.copy(untrained_dir / "dataset.json", folder / "run")
    keras.utils.set_random_seed(1)
    other = build_alexnet("testing", 10, initializer="he_normal", input_scale=1 / 20)
    other.save(folder / "run" / "checkpoints" / "00000150" / "model.keras")
    return folder


@pytest.fixture(scope="module")
def evaluated(data_dir, models, tmp_path_factory):
    """The stdout and the folder of an evaluation of that run on one device; its predictions are saved there too."""
    folder = tmp_path_factory.mktemp("evaluated")
    flags = [f"--model={models / 'trained'}", f"--data_dir={data_dir}", "--batch_size=111", "--strategy=one"]
    return call("evaluate", *flags, f"--output_dir={folder}", f"--save_predictions={folder}"), folder


@pytest.mark.slow
class TestEvaluate:
    def test_errors_and_pictures_of_a_run(self, data_dir, models, evaluated):
        output, folder = evaluated
        result = json.loads((folder / "evaluation.json").read_text())
        model, saved = load_model(models / "trained"), predictions.Predictions.load(folder / "trained.npz")
        for name, views in (("center_crop", 1), ("ten_views", 10)):
            probabilities, labels = [], []
            for pixels, batch_labels in reader.make_evaluation_dataset(data_dir, 100, 56, views=views):
                each = model(pixels.numpy().reshape(-1, 56, 56, 3)).numpy().reshape(-1, views, 10)
                probabilities.append(each.mean(axis=1))
                labels.append(batch_labels.numpy())
            probabilities, labels = np.concatenate(probabilities), np.concatenate(labels)
            np.testing.assert_allclose(saved.views[name], probabilities, atol=1e-4)
            ranks = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
            assert result[name]["top1_error"] == pytest.approx(np.mean(ranks >= 1), abs=0.0015)
            assert result[name]["top5_error"] == pytest.approx(np.mean(ranks >= 5), abs=0.0015)
        assert result["images"] == len(labels) == 1000
        assert result["chance"] == {"top1_error": pytest.approx(0.9), "top5_error": pytest.approx(0.5)}
        assert f"{result['ten_views']['top1_error']:.2%}" in output
        initial = initial_kernels.load_initial_kernels(models / "trained")
        picture = kernels.draw_kernels(kernels.first_kernels(model), initial)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "conv1_kernels.png")), picture)

    def test_saved_predictions_and_checkpoint_are_averaged(self, evaluated, models, data_dir, tmp_path):
        _, folder = evaluated
        flags = [f"--model={folder / 'trained.npz'},{models / 'run/checkpoints/00000150'}", f"--data_dir={data_dir}"]
        call("evaluate", *flags, f"--output_dir={tmp_path}", f"--save_predictions={tmp_path}")
        result = json.loads((tmp_path / "evaluation.json").read_text())
        first = json.loads((folder / "evaluation.json").read_text())["models"][0]
        assert [model["name"] for model in result["models"]] == ["trained", "run-00000150"]
        assert result["models"][0] == first
        loaded = predictions.Predictions.load(folder / "trained.npz")
        other = predictions.Predictions.load(tmp_path / "run-00000150.npz")
        for view in ("center_crop", "ten_views"):
            mean = (np.float64(loaded.views[view]) + np.float64(other.views[view])) / 2
            assert result[view]["top1_error"] == np.mean(mean.argmax(axis=1) != loaded.labels)
        table = (tmp_path / "evaluation.md").read_text()
        assert "| trained | " in table and "| 2 averaged | " in table
        with pytest.raises(ValueError, match="must hold predictions of the split train"):
            call("evaluate", *flags, f"--output_dir={tmp_path / 'new'}", "--split=train")

    @pytest.mark.long
    def test_two_devices_equal_one_with_an_uneven_last_batch(self, evaluated, models, data_dir, tmp_path):
        script = textwrap.dedent("""
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            from alexnet_tf import evaluate
            evaluate.run()
        """)
        # 1,000 images in batches of 111: the last has one, which only one of two devices gets.
        flags = [f"--model={models / 'trained'}", f"--data_dir={data_dir}", "--batch_size=111", "--strategy=mirrored"]
        flags += [f"--output_dir={tmp_path}", f"--save_predictions={tmp_path}", "--noten_views"]
        result = subprocess.run(
            [sys.executable, "-c", script, *flags], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        one, two = (predictions.Predictions.load(path / "trained.npz") for path in (evaluated[1], tmp_path))
        np.testing.assert_allclose(two.views["center_crop"], one.views["center_crop"], atol=1e-6)

    @pytest.mark.long
    def test_three_workers_equal_one_and_only_the_chief_reports(self, evaluated, models, data_dir, tmp_path):
        flags = [f"--model={models / 'trained'}", f"--data_dir={data_dir}", "--batch_size=111", "--num_local_workers=3"]
        output = run_well("evaluate", *flags, f"--output_dir={tmp_path}", f"--save_predictions={tmp_path}")
        # 333, 333 and 334 images
        one, three = (predictions.Predictions.load(path / "trained.npz") for path in (evaluated[1], tmp_path))
        for view in ("center_crop", "ten_views"):
            np.testing.assert_allclose(three.views[view], one.views[view], atol=1e-6)
        assert output.count("Written: evaluation.json") == 1


class TestCenterCrop:
    """Evaluations without ten views."""

    @pytest.fixture
    def evaluate_models(self, models, data_dir, tmp_path):
        """A function that evaluates models by their names in `models`, or saved predictions by their paths."""

        def evaluate_models(*names, save=True, output="out", flags=()):
            folders = [f"--output_dir={tmp_path / output}", "--overwrite"]
            folders += [f"--save_predictions={tmp_path / 'saved'}"] if save else []
            paths = ",".join(str(models / name) for name in names)
            return call(
                "evaluate",
                f"--model={paths}",
                f"--data_dir={data_dir}",
                "--noten_views",
                "--strategy=one",
                *folders,
                *flags,
            )

        return evaluate_models

    def test_mistake_in_the_last_model_is_found_before_the_first_predicts(self, evaluate_models, tmp_path, monkeypatch):
        monkeypatch.setattr(predictions, "predict", lambda *arguments: pytest.fail("a model predicted"))
        (tmp_path / "damaged.keras").write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"damaged\.keras is not a complete Keras model"):
            evaluate_models("trained", tmp_path / "damaged.keras")
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            evaluate_models("trained", output="file")

    def test_checkpoint_is_saved_before_the_next_model_fails(self, evaluate_models, models, tmp_path, monkeypatch):
        predict = predictions.predict

        def predict_once(model, name, *arguments):
            if name == "trained":
                raise RuntimeError(f"{name} fails")
            return predict(model, name, *arguments)

        monkeypatch.setattr(predictions, "predict", predict_once)
        with pytest.raises(RuntimeError, match="trained fails"):
            evaluate_models("run/checkpoints/00000150", "trained")
        evaluate_models(tmp_path / "saved/run-00000150.npz", save=False)
        result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        (of_model,) = result["models"]
        assert of_model["name"] == "run-00000150"
        assert "center_crop" in result and "ten_views" not in result
        assert of_model["weights"] == weights_checksum(load_model(models / "run/checkpoints/00000150"))

    def test_number_of_skipped_records_is_bounded_by_its_flag(self, data_dir, models, monkeypatch):
        def skip(*arguments):
            raise ConnectionError(arguments)

        monkeypatch.setattr(verify, "skip_damaged_records", skip)
        flags = ["--on_bad_record=skip", "--max_bad_records=7", "--split=train", "--strategy=one"]
        with pytest.raises(ConnectionError) as raised:
            call("evaluate", f"--model={models / 'trained'}", f"--data_dir={data_dir}", *flags)
        (_, _, most, splits) = raised.value.args[0]
        assert (most, splits) == (7, ("train",))

    @pytest.mark.parametrize("name", ["calibration.png", "conv1_kernels.png"])
    def test_evaluation_json_is_written_last(self, name, evaluate_models, tmp_path, monkeypatch):
        save_png = plots.save_png
        monkeypatch.setattr(
            plots, "save_png", lambda path, image: 1 / 0 if path.name == name else save_png(path, image)
        )
        with pytest.raises(ZeroDivisionError):
            evaluate_models("trained")
        assert not (tmp_path / "out" / "evaluation.json").exists()

    @pytest.mark.slow
    def test_expected_errors_and_exit_status(self, evaluate_models, tmp_path):
        evaluate_models("trained")
        error = json.loads((tmp_path / "out" / "evaluation.json").read_text())["center_crop"]["top1_error"]
        flags = [f"--expect=top1={100 * error + 0.5:.3f},top5=100"]
        output = evaluate_models(tmp_path / "saved/trained.npz", save=False, flags=flags)
        assert output.count("  pass\n") == 1 and output.count("  pass, significantly lower\n") == 1
        with pytest.raises(SystemExit) as ended:
            evaluate_models(tmp_path / "saved/trained.npz", save=False, flags=["--expect=top1=50,top5=100"])
        assert ended.value.code == 1
        row, other = json.loads((tmp_path / "out" / "evaluation.json").read_text())["expected"]
        assert row["expected"] == 0.5 and row["measured"] == error and not row["passed"] and other["passed"]

    def test_weights_that_are_not_finite(self, evaluate_models, untrained_dir, tmp_path):
        shutil.copytree(untrained_dir, tmp_path / "broken")
        model = load_model(tmp_path / "broken")
        bias = model.get_layer("fc8").biases[0]
        bias.assign(np.full(bias.shape, np.nan))
        model.save(tmp_path / "broken" / "model.keras")
        with pytest.raises(ValueError, match=r"NaN or infinity from broken for 1,000 of 1,000 images"):
            evaluate_models(tmp_path / "broken", flags=["--expect=top1=95"])
        assert not (tmp_path / "saved" / "broken.npz").exists()


class TestFlags:
    @pytest.mark.parametrize(
        "flags, message",
        [
            (["--model=run,run2"], "`output_dir` is required"),
            (["--model=run,run"], "`model` must not name anything twice"),
            (["--model=a/run,b/run", "--output_dir=out", "--save_predictions=out"], "runs with different names"),
            (["--model=run", "--expect=top1=5,top1=90"], "`expect` must have each name only once"),
            (["--model=run", "--expect=ten_view_top1=4", "--noten_views"], "`expect` of ten views requires"),
        ],
    )
    def test_contradicting_flags(self, flags, message):
        with pytest.raises(ValueError, match=message):
            call("evaluate", *flags, "--data_dir=data")


@pytest.mark.parametrize(
    ("changes", "num_images", "expected"),
    [
        ({}, 50_000, {"top1": 42.9, "top5": 19.8}),
        ({"split": "train"}, 50_000, {}),
        ({}, 49_999, {}),
        ({"model": ["caffe", "caffenet"]}, 50_000, {}),
        ({"expect": ["ten_view_top1=41"]}, 50_000, {"ten_view_top1": 41.0}),
    ],
)
def test_published_errors_are_expected_on_imagenets_validation_images(changes, num_images, expected):
    flag = types.SimpleNamespace(**{"model": ["caffe"], "split": "validation", "expect": []} | changes)
    assert evaluate._expected(flag, num_images) == expected
