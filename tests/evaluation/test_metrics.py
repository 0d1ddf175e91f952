"""Metrics of probabilities, compared with plain recomputations."""

import numpy as np
import pytest

from alexnet_tf.evaluation import metrics


def random_probabilities(seed, images=400, classes=7, skill=1.0):
    """Random probabilities whose logits of the true classes are raised by `skill`."""
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, classes, images)
    logits = random.normal(size=(images, classes)) + skill * np.eye(classes)[labels]
    exponents = np.exp(logits)
    return np.float32(exponents / exponents.sum(axis=1, keepdims=True)), labels


class TestTopK:
    def test_order_and_ties(self):
        probabilities = np.array([[0.1, 0.4, 0.4, 0.1], [0.2, 0.1, 0.3, 0.4]])
        assert metrics.top_k(probabilities, 3).tolist() == [[1, 2, 0], [3, 2, 0]]
        assert metrics.top_k(probabilities[0], 2).tolist() == [1, 2]
        assert metrics.top_k(probabilities, 9).shape == (2, 4)


class TestTopKWrong:
    def test_wrong_unless_among_the_k_most_probable(self):
        probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
        labels = np.array([0, 0, 2, 1])
        assert metrics.top_k_wrong(probabilities, labels, 1).tolist() == [False, True, True, True]
        assert metrics.top_k_wrong(probabilities, labels, 2).tolist() == [False, True, False, False]
        assert not metrics.top_k_wrong(probabilities, labels, 5).any()

    def test_ties_are_not_counted_as_correct(self):
        assert metrics.top_k_wrong(np.full((10, 10), 0.1), np.arange(10), 1).mean() == 0.9


class TestInterval95:
    @pytest.mark.parametrize("wrong, count", [(0, 20), (3, 20), (407, 1000), (20, 20)])
    def test_bounds_solve_wilsons_equation(self, wrong, count):
        low, high = metrics.interval_95(np.arange(count) < wrong)
        assert 0 <= low <= wrong / count <= high <= 1
        for bound in (low, high):  # the rate whose deviation is just the one measured
            if 0 < bound < 1:
                deviations = abs(wrong / count - bound) / np.sqrt(bound * (1 - bound) / count)
                assert deviations == pytest.approx(1.959964, rel=1e-6)


class TestErrors:
    def test_top_1_top_5_and_intervals(self):
        # The true class is the most probable in 6 of 10 images, the fifth in 2, and the sixth of seven in 2.
        order = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
        probabilities = np.stack([np.roll(order, -place) for place in [0] * 6 + [4] * 2 + [5] * 2])
        result = metrics.errors(probabilities, np.zeros(10, int))
        assert (result["top1_error"], result["top5_error"]) == (0.4, 0.2)
        assert result["top1_error_interval_95"] == metrics.interval_95(np.arange(10) < 4)
        assert result["top5_error_interval_95"] == metrics.interval_95(np.arange(10) < 2)

    def test_class_mean_counts_each_class_the_same(self):
        labels = np.repeat([0, 1, 3], [90, 8, 2])
        predicted = np.eye(4)[np.where(labels == 3, 0, labels)]
        predicted[:9] = np.eye(4)[2]
        result = metrics.errors(predicted, labels)
        assert result["top1_error"] == pytest.approx(0.11)
        assert result["class_mean_error"] == pytest.approx((0.1 + 0 + 1) / 3)


class TestBaselines:
    def test_chance_and_most_frequent_class(self):
        labels = np.repeat([0, 1, 2, 3, 4, 5, 6], [5, 60, 10, 10, 10, 3, 2])
        result = metrics.baselines(labels, 10)
        assert result["chance"] == {"top1_error": 0.9, "top5_error": 0.5}
        assert result["most_frequent_class"] == {"top1_error": pytest.approx(0.4), "top5_error": pytest.approx(0.05)}
        few = metrics.baselines(labels[labels < 3], 3)
        assert few["chance"]["top5_error"] == few["most_frequent_class"]["top5_error"] == 0


class TestErrorsByClass:
    def test_counts_of_each_class(self):
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
            ranks = [int((probabilities[i] > probabilities[i, labels[i]]).sum()) for i in own]
            assert row["top5_error"] == pytest.approx(np.mean(np.array(ranks) >= 5))
            assert 0 < row["top5_error"] < row["top1_error"]
            most = max(wrong.count(label) for label in range(7))
            assert wrong.count(int(row["taken_for"].split()[1])) == most

    def test_class_without_errors_is_not_taken_for_another(self):
        rows = metrics.errors_by_class(np.eye(3), np.array([0, 1, 1]), ["a", "b", "c"])
        assert [(row["name"], row["taken_for"]) for row in rows] == [("b", "c"), ("a", None)]


class TestCalibration:
    def test_bins_and_weights(self):
        confidences = np.array([0.61, 0.62, 0.65, 0.79, 0.81, 1.0, 0.99, 0.98])
        correct = np.array([True, False, False, True, True, True, True, False])
        probabilities = np.stack([confidences, 1 - confidences], axis=1)
        result = metrics.calibration(probabilities, (~correct).astype(int), bins=5)
        assert [row["images"] for row in result["bins"]] == [4, 4]  # from 0.6 to 0.8 and from there to 1
        assert [row["accuracy"] for row in result["bins"]] == [0.5, 0.75]
        assert result["bins"][1]["accuracy_interval_95"] == metrics.interval_95(correct[4:])
        assert [row["confidence"] for row in result["bins"]] == pytest.approx([0.6675, 0.945])
        expected = -np.mean(np.log(np.where(correct, confidences, np.maximum(1 - confidences, 1e-30))))
        assert result["negative_log_likelihood"] == pytest.approx(expected)
        result = metrics.calibration(probabilities[:5], (~correct[:5]).astype(int), bins=5)
        expected = (4 * abs(0.5 - 0.6675) + 1 * abs(1 - 0.81)) / 5
        assert result["expected_calibration_error"] == pytest.approx(expected)
        assert len(metrics.calibration(probabilities, (~correct).astype(int))["bins"]) == 4  # of 15


class TestAverage:
    def test_mean_in_float64(self):
        of_models = [random_probabilities(seed)[0] for seed in range(3)]
        np.testing.assert_allclose(metrics.average(of_models), np.mean(np.float64(of_models), axis=0), rtol=1e-12)
