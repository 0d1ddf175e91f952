"""Results of several models and their report, from random probabilities."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from alexnet_tf.evaluation import metrics, naming, report
from alexnet_tf.evaluation.predictions import Predictions
from alexnet_tf.figures import plots

NAMES = tuple("abcdefg")


@pytest.fixture
def models():
    """Predictions of 400 images by two models, of which the second has no ten views."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 400)
    views = [random.dirichlet(np.ones(7), 400).astype("float32") for _ in range(3)]
    return [
        Predictions("one", NAMES, "validation", "12ab", labels, {"center_crop": views[0], "ten_views": views[2]}),
        Predictions("two", NAMES, "validation", "12ab", labels, {"center_crop": views[1]}),
    ]


class TestEvaluateModels:
    def test_models_and_their_average_in_common_views(self, models):
        result = report.evaluate_models(models, records_skipped=3)
        labels, (one, two) = models[0].labels, (model.views["center_crop"] for model in models)
        assert "ten_views" not in result
        assert [model["center_crop"]["top1_error"] for model in result["models"]] == [
            np.mean(each.argmax(axis=1) != labels) for each in (one, two)
        ]
        mean = (np.float64(one) + np.float64(two)) / 2
        assert result["center_crop"]["top1_error"] == np.mean(mean.argmax(axis=1) != labels)
        assert result["chance"] == {"top1_error": pytest.approx(6 / 7), "top5_error": pytest.approx(2 / 7)}
        assert (result["split"], result["images"], result["records_left_out"]) == ("validation", 400, 3)
        assert sum(row["images"] for row in result["center_crop"]["classes"]) == 400

    def test_one_model_in_both_views(self, models):
        result = report.evaluate_models(models[:1])
        assert result["center_crop"].keys() == result["ten_views"].keys()
        for view, probabilities in models[0].views.items():
            error = np.mean(probabilities.argmax(axis=1) != models[0].labels)
            assert result[view]["top1_error"] == result["models"][0][view]["top1_error"] == error


RESULT = {"center_crop": {"top1_error": 0.4, "top1_error_interval_95": [0.37, 0.43]}}


class TestCompare:
    @pytest.mark.parametrize("percent, passed", [(36.9, False), (37, True), (38, True), (42, True), (50, True)])
    def test_passes_unless_the_interval_is_above_the_expected_error(self, percent, passed):
        (row,) = report.compare(RESULT, {"top1": percent})
        assert row["passed"] is passed
        assert (row["name"], row["expected"], row["measured"]) == ("center crop, top-1", percent / 100, 0.4)

    def test_each_name_is_judged_by_its_view_and_error(self):
        errors = {
            (view, k): (4 * i + 2 * j + 1) / 10
            for i, view in enumerate(("center_crop", "ten_views"))
            for j, k in enumerate(("top1", "top5"))
        }
        result = {}
        for (view, k), error in errors.items():
            result.setdefault(view, {}).update({f"{k}_error": error, f"{k}_error_interval_95": [error, error]})
        rows = report.compare(result, dict.fromkeys(("top1", "top5", "ten_view_top1", "ten_view_top5"), 50.0))
        assert [row["measured"] for row in rows] == [0.1, 0.3, 0.5, 0.7]
        assert [row["passed"] for row in rows] == [True, True, True, False]

    def test_view_that_was_not_measured(self):
        with pytest.raises(ValueError, match="views that were measured"):
            report.compare(RESULT, {"ten_view_top1": 4})


class TestReport:
    def test_table_has_the_20_worst_of_many_classes(self):
        random = np.random.default_rng(0)
        labels, names = np.arange(400) % 25, tuple(f"class {number}" for number in range(25))
        views = {"center_crop": random.dirichlet(np.ones(25), 400).astype("float32")}
        result = report.evaluate_models([Predictions("one", names, "validation", "12ab", labels, views)])
        page = report.as_markdown(result)
        rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| class ")]
        assert rows[1:] == [row["name"] for row in result["center_crop"]["classes"][:20]]
        assert "The 20 worst of 25 classes; all are in evaluation.json." in page

    def test_files(self, models, tmp_path):
        result = report.evaluate_models(models)
        report.write(tmp_path / "new", result, models)
        assert {path.name for path in (tmp_path / "new").iterdir()} == set(naming.REPORT)
        assert json.loads((tmp_path / "new" / "evaluation.json").read_text()) == result
        mean = (np.float64(models[0].views["center_crop"]) + models[1].views["center_crop"]) / 2
        expected = {
            "calibration.png": plots.reliability_diagram(metrics.calibration(mean, models[0].labels)),
            "confusion_matrix.png": plots.confusion_matrix(models[0].labels, mean.argmax(axis=1), NAMES),
        }
        for name, picture in expected.items():
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / name)), picture)
        table = (tmp_path / "new" / "evaluation.md").read_text()
        errors = result["center_crop"]
        assert f"| 2 averaged | {100 * errors['top1_error']:.2f} (" in table
        assert f" | {100 * errors['class_mean_error']:.2f} |\n| chance | 85.71 | 28.57 |  |\n| most frequent" in table

    def test_classes_and_calibration_are_of_the_last_view(self, models):
        result = report.evaluate_models(models[:1])
        page = report.as_markdown(result)
        for view, shown in (("ten_views", True), ("center_crop", False)):
            calibration = result[view]["calibration"]
            words = f"calibration error {100 * calibration['expected_calibration_error']:.2f}%, negative log-likelihood"
            assert (f"For {view.replace('_', ' ')}: expected {words}" in page) == shown
            worst = result[view]["classes"][0]
            assert (f"| {worst['name']} | {worst['images']:,} | {100 * worst['top1_error']:.2f} |" in page) == shown

    def test_special_characters_in_names(self, models):
        names = ("a|b", "<img src=x>", "R&D", *"defg")
        renamed = [dataclasses.replace(model, name="two\nlines|", class_names=names) for model in models]
        lines = report.as_markdown(report.evaluate_models(renamed)).splitlines()
        rows = [line for line in lines if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5, 6}  # two tables
        assert any(row.startswith("| &lt;img src=x> |") for row in rows)
        assert any(row.startswith("| a\\|b |") for row in rows)
        assert any(row.startswith("| two lines\\| |") for row in rows)

    def test_two_imbalanced_classes_have_no_top5_error(self):
        labels = np.repeat([0, 1], [97, 3])
        always_first = Predictions("", ("a", "b"), "train", "", labels, {"center_crop": np.float32([[0.9, 0.1]] * 100)})
        result = report.evaluate_models([always_first])
        heading, *rows = report.as_text(result).splitlines()
        assert "100 images of train" in heading and heading.endswith("class-mean error")
        assert rows[0].split() == ["center", "crop", "3.00%", "(1.03%", "to", "8.45%)", "50.00%"]
        assert rows[1].split() == ["chance", "50.00%"]
        assert rows[2].split() == ["most", "frequent", "class", "3.00%"]
        assert "top-5" not in heading + report.as_markdown(result)


class TestNaming:
    def test_model_is_named_by_its_runs_folder(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "model.keras").touch()
        for path in (tmp_path / "run", tmp_path / "run" / "model.keras", tmp_path / "run" / "model.h5"):
            assert naming.model_name(path) == "run"
            assert naming.run_folder(path) == tmp_path / "run"
        assert naming.model_name(tmp_path / "run" / "checkpoints" / "00000150") == "run-00000150"
        assert naming.is_saved("run.npz") and not naming.is_saved("run")

    @pytest.mark.parametrize(
        "items, message",
        [
            (["top3=4"], "names are top1, top5, ten_view_top1, ten_view_top5. Received: top3=4"),
            (["top1=x"], "Received: 'top1=x'"),
            (["top1=nan"], "Received: 'top1=nan'"),
            (["top1=101"], "Received: top1=101"),
        ],
    )
    def test_wrong_expected_errors(self, items, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            naming.parse_expected(items)
