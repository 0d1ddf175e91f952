"""alexnet-evaluate: the numbers are those of a plain re-computation, of one model and of several."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from programs import ENVIRONMENT, run, run_well, train_flags

from alexnet_tf.evaluation import metrics, predictions
from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import reader


def random_probabilities(seed, images=400, classes=7, skill=1.0):
    """Probabilities that know the labels a little."""
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, classes, images)
    logits = random.normal(size=(images, classes)) + skill * np.eye(classes)[labels]
    exponents = np.exp(logits)
    return np.float32(exponents / exponents.sum(axis=1, keepdims=True)), labels


class TestTopKWrong:
    def test_images_are_wrong_whose_class_is_not_among_the_best(self):
        probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
        labels = np.array([0, 0, 2, 1])
        assert metrics.top_k_wrong(probabilities, labels, 1).tolist() == [False, True, True, True]
        assert metrics.top_k_wrong(probabilities, labels, 2).tolist() == [False, True, False, False]
        assert not metrics.top_k_wrong(probabilities, labels, 5).any()

    def test_equal_probabilities_are_no_free_hits(self):
        assert metrics.top_k_wrong(np.full((10, 10), 0.1), np.arange(10), 1).mean() == 0.9


class TestInterval95:
    @pytest.mark.parametrize("wrong, count", [(0, 20), (3, 20), (407, 1000), (20, 20)])
    def test_bounds_are_where_a_test_at_5_percent_turns(self, wrong, count):
        low, high = metrics.interval_95(np.arange(count) < wrong)
        assert 0 <= low <= wrong / count <= high <= 1
        for bound in (low, high):  # the share whose own deviation just reaches the one measured
            if 0 < bound < 1:
                deviations = abs(wrong / count - bound) / np.sqrt(bound * (1 - bound) / count)
                assert deviations == pytest.approx(1.959964, rel=1e-6)

    def test_it_holds_the_true_share_in_95_of_100_draws(self):
        draws = np.random.default_rng(0).random((4000, 150)) < 0.1
        held = [low <= 0.1 <= high for low, high in map(metrics.interval_95, draws)]
        assert 0.93 < np.mean(held) < 0.97


class TestErrorsByClass:
    def test_rows_are_counted_class_by_class(self):
        probabilities, labels = random_probabilities(1)
        names = [f"class {label}" for label in range(7)]
        rows = metrics.errors_by_class(probabilities, labels, names)
        assert [row["top1_error"] for row in rows] == sorted((row["top1_error"] for row in rows), reverse=True)
        assert sum(row["images"] for row in rows) == 400
        for row in rows:
            own = [i for i in range(400) if labels[i] == int(row["name"].split()[1])]
            wrong = [int(np.argmax(probabilities[i])) for i in own if np.argmax(probabilities[i]) != labels[i]]
            assert row["images"] == len(own)
            assert row["top1_error"] == pytest.approx(len(wrong) / len(own))
            most = max(wrong.count(label) for label in range(7))
            assert wrong.count(int(row["taken_for"].split()[1])) == most

    def test_class_without_errors_is_taken_for_nothing(self):
        rows = metrics.errors_by_class(np.eye(3), np.array([0, 1, 1]), ["a", "b", "c"])
        assert [(row["name"], row["taken_for"]) for row in rows] == [("b", "c"), ("a", None)]


class TestCalibration:
    def test_network_that_is_as_right_as_sure_has_no_error(self):
        random = np.random.default_rng(3)
        sure = random.uniform(0.5, 1, 40_000)
        probabilities = np.stack([sure, 1 - sure], axis=1)
        labels = (random.random(40_000) > sure).astype(int)
        result = metrics.calibration(probabilities, labels)
        assert result["expected_calibration_error"] < 0.01
        assert sum(row["images"] for row in result["bins"]) == 40_000
        expected = -np.mean(np.log(probabilities[np.arange(40_000), labels]))
        assert result["negative_log_likelihood"] == pytest.approx(expected)

    def test_network_that_is_always_sure_and_half_right_is_half_off(self):
        probabilities = np.tile([1.0, 0.0], (100, 1))
        result = metrics.calibration(probabilities, np.arange(100) % 2)
        assert result["expected_calibration_error"] == 0.5
        assert result["bins"] == [{"images": 100, "confidence": 1.0, "accuracy": 0.5}]


class TestEnsembles:
    def test_average_is_the_mean_or_the_weighted_one(self):
        of_models = [random_probabilities(seed)[0] for seed in range(3)]
        np.testing.assert_allclose(metrics.average(of_models), np.mean(np.float64(of_models), axis=0), rtol=1e-12)
        weighted = metrics.average(of_models, [0.5, 0.5, 0])
        np.testing.assert_allclose(weighted, np.mean(np.float64(of_models[:2]), axis=0), rtol=1e-12)

    def test_searched_weights_are_the_best_of_a_grid_and_drop_the_useless(self):
        labels = random_probabilities(0)[1]
        of_models = [random_probabilities(seed, skill=skill)[0] for seed, skill in ((1, 2.0), (2, 1.0), (3, 0.0))]
        weights = metrics.search_weights(of_models, labels)
        assert weights.sum() == pytest.approx(1)
        assert weights[0] > weights[1] > weights[2]

        def likelihood(weights):
            return np.mean(np.log(metrics.average(of_models, weights)[np.arange(400), labels]))

        grid = [(a / 50, b / 50, 1 - a / 50 - b / 50) for a in range(51) for b in range(51 - a)]
        assert likelihood(weights) >= max(map(likelihood, grid)) - 1e-6


class TestPredictions:
    def test_saved_ones_come_back_equal(self, tmp_path):
        probabilities, labels = random_probabilities(1)
        saved = predictions.Predictions(
            "a/b", tuple("abcdefg"), "train", "12ab", labels, {"center_crop": probabilities}
        )
        saved.save(tmp_path / "a.npz")
        loaded = predictions.Predictions.load(tmp_path / "a.npz")
        assert (loaded.name, loaded.class_names, loaded.split, loaded.images) == (
            "a/b",
            tuple("abcdefg"),
            "train",
            "12ab",
        )
        np.testing.assert_array_equal(loaded.labels, labels)
        np.testing.assert_array_equal(loaded.views["center_crop"], probabilities)
        assert loaded.views.keys() == {"center_crop"}

    def test_damaged_file_is_named(self, tmp_path):
        (tmp_path / "a.npz").write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"a\.npz must hold predictions"):
            predictions.Predictions.load(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def evaluated(data_dir, run_dir, tmp_path_factory):
    """The folder of an evaluation of two runs, the second of another seed and cut off after an epoch."""
    folder = tmp_path_factory.mktemp("evaluated")
    run_well("train", *train_flags(data_dir, folder / "short", "--epochs=1", "--seed=4"))
    models = f"--model={run_dir},{folder / 'short'}"
    saved = [f"--save_predictions={folder / 'saved'}", f"--output_dir={folder / 'out'}", "--search_weights"]
    run_well("evaluate", models, f"--data_dir={data_dir}", *saved)
    return folder


@pytest.mark.slow
class TestEvaluate:
    def test_errors_and_pictures_are_those_of_the_model(self, data_dir, run_dir, tmp_path):
        output = run_well("evaluate", f"--model={run_dir}", f"--data_dir={data_dir}", f"--output_dir={tmp_path}")
        result = json.loads((tmp_path / "evaluation.json").read_text())
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
        for picture in ("confusion_matrix.png", "conv1_kernels.png"):
            assert np.asarray(Image.open(tmp_path / picture)).std() > 10

    def test_model_of_other_classes_is_refused(self, run_dir, tmp_path):
        for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            (tmp_path / "images" / name).mkdir(parents=True)
            for index in range(8):
                Image.new("RGB", (64, 64), color).save(tmp_path / "images" / name / f"{index}.png")
        build = [f"--source=folder:{tmp_path / 'images'}", f"--data_dir={tmp_path / 'data'}", "--image_px=64"]
        run_well("tfrecords.build", *build, "--num_train_shards=2", "--num_validation_shards=1", "--num_processes=1")
        result = run("evaluate", f"--model={run_dir}", f"--data_dir={tmp_path / 'data'}")
        assert result.returncode != 0
        assert "must have learned the classes of the data" in result.stderr
        assert "blue" in result.stderr

    def test_file_that_is_no_model_is_refused(self, data_dir, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"PK no model")
        result = run("evaluate", f"--model={tmp_path}", f"--data_dir={data_dir}")
        assert result.returncode != 0
        assert "is not a whole Keras model" in result.stderr

    def test_several_models_are_scored_alone_and_averaged(self, evaluated):
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
            searched = result["searched"][view]
            assert searched["images"] == 500
            weighted = searched["weights"][0] * probabilities[0] + searched["weights"][1] * probabilities[1]
            expected = np.mean(weighted[1::2].argmax(axis=1) != labels[1::2])
            assert searched["searched_weights"]["top1_error"] == expected
            assert searched["equal_weights"]["top1_error"] == np.mean(mean[1::2].argmax(axis=1) != labels[1::2])
        table = (evaluated / "out" / "evaluation.md").read_text()
        assert "| undisturbed | " in table and "| short | " in table and "| 2 averaged | " in table
        assert f"{100 * result['ten_views']['top1_error']:.2f} (" in table
        assert np.asarray(Image.open(evaluated / "out" / "calibration.png")).std() > 10

    def test_saved_predictions_stand_for_their_models(self, evaluated, data_dir, tmp_path):
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

    def test_flags_that_can_not_be_together_are_refused(self, run_dir, data_dir):
        one, two = f"--model={run_dir}", f"--model={run_dir},{run_dir}"
        for flags, message in (
            ((one, "--search_weights"), "`search_weights` needs several models"),
            ((two,), "`output_dir` must be given"),
        ):
            result = run("evaluate", *flags, f"--data_dir={data_dir}")
            assert result.returncode != 0
            assert message in result.stderr

    @pytest.mark.slow
    def test_two_devices_say_what_one_says_whatever_the_last_batch(self, run_dir, data_dir, tmp_path):
        script = textwrap.dedent("""
            import tensorflow as tf
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            from alexnet_tf import evaluate
            evaluate.run()
        """)
        for strategy in ("one", "mirrored"):
            # 1,000 images in batches of 111: the last has one, which only one of two devices gets.
            flags = [f"--model={run_dir}", f"--data_dir={data_dir}", "--batch_size=111", f"--strategy={strategy}"]
            flags += [
                f"--output_dir={tmp_path / strategy}",
                f"--save_predictions={tmp_path / strategy}",
                "--noten_views",
            ]
            result = subprocess.run(
                [sys.executable, "-c", script, *flags], env=ENVIRONMENT, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
        one, two = (predictions.Predictions.load(tmp_path / name / "undisturbed.npz") for name in ("one", "mirrored"))
        np.testing.assert_allclose(two.views["center_crop"], one.views["center_crop"], atol=1e-6)

    @pytest.mark.slow
    def test_three_workers_say_what_one_says_and_the_chief_alone_writes(self, run_dir, data_dir, tmp_path):
        flags = [f"--model={run_dir}", f"--data_dir={data_dir}", "--batch_size=111"]
        said = {}
        for name, workers in (("one", 1), ("three", 3)):  # 333, 333 and 334 images
            own = [f"--output_dir={tmp_path / name}", f"--save_predictions={tmp_path / name}"]
            said[name] = run_well("evaluate", *flags, *own, f"--num_local_workers={workers}")
        one, three = (predictions.Predictions.load(tmp_path / name / "undisturbed.npz") for name in ("one", "three"))
        for view in ("center_crop", "ten_views"):
            np.testing.assert_allclose(three.views[view], one.views[view], atol=1e-6)
        assert said["three"].count("Written: evaluation.json") == 1
