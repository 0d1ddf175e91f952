"""Metrics of probabilities, beside plain recomputations."""

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
    def test_most_probable_come_first_and_equally_probable_ones_by_label(self):
        probabilities = np.array([[0.1, 0.4, 0.4, 0.1], [0.2, 0.1, 0.3, 0.4]])
        assert metrics.top_k(probabilities, 3).tolist() == [[1, 2, 0], [3, 2, 0]]
        assert metrics.top_k(probabilities[0], 2).tolist() == [1, 2]
        assert metrics.top_k(probabilities, 9).shape == (2, 4)


class TestTopKWrong:
    def test_image_is_wrong_if_its_class_is_not_among_the_most_probable(self):
        probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
        labels = np.array([0, 0, 2, 1])
        assert metrics.top_k_wrong(probabilities, labels, 1).tolist() == [False, True, True, True]
        assert metrics.top_k_wrong(probabilities, labels, 2).tolist() == [False, True, False, False]
        assert not metrics.top_k_wrong(probabilities, labels, 5).any()

    def test_equal_probabilities_are_not_counted_as_correct(self):
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

    def test_it_contains_the_true_share_in_95_of_100_draws(self):
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

    def test_class_without_errors_was_predicted_as_no_other(self):
        rows = metrics.errors_by_class(np.eye(3), np.array([0, 1, 1]), ["a", "b", "c"])
        assert [(row["name"], row["taken_for"]) for row in rows] == [("b", "c"), ("a", None)]


class TestCalibration:
    def test_network_whose_accuracy_equals_its_confidence_has_no_error(self):
        random = np.random.default_rng(3)
        confidences = random.uniform(0.5, 1, 40_000)
        probabilities = np.stack([confidences, 1 - confidences], axis=1)
        labels = (random.random(40_000) > confidences).astype(int)
        result = metrics.calibration(probabilities, labels)
        assert result["expected_calibration_error"] < 0.01
        assert sum(row["images"] for row in result["bins"]) == 40_000
        expected = -np.mean(np.log(probabilities[np.arange(40_000), labels]))
        assert result["negative_log_likelihood"] == pytest.approx(expected)

    def test_network_of_confidence_1_and_accuracy_one_half_has_error_one_half(self):
        probabilities = np.tile([1.0, 0.0], (100, 1))
        result = metrics.calibration(probabilities, np.arange(100) % 2)
        assert result["expected_calibration_error"] == 0.5
        assert result["bins"] == [{"images": 100, "confidence": 1.0, "accuracy": 0.5}]


class TestEnsembles:
    def test_average_is_the_mean_or_the_weighted_mean(self):
        of_models = [random_probabilities(seed)[0] for seed in range(3)]
        np.testing.assert_allclose(metrics.average(of_models), np.mean(np.float64(of_models), axis=0), rtol=1e-12)
        weighted = metrics.average(of_models, [0.5, 0.5, 0])
        np.testing.assert_allclose(weighted, np.mean(np.float64(of_models[:2]), axis=0), rtol=1e-12)

    def test_searched_weights_beat_a_grid_and_rank_models_by_skill(self):
        labels = random_probabilities(0)[1]
        of_models = [random_probabilities(seed, skill=skill)[0] for seed, skill in ((1, 2.0), (2, 1.0), (3, 0.0))]
        weights = metrics.search_weights(of_models, labels)
        assert weights.sum() == pytest.approx(1)
        assert weights[0] > weights[1] > weights[2]

        def likelihood(weights):
            return np.mean(np.log(metrics.average(of_models, weights)[np.arange(400), labels]))

        grid = [(a / 50, b / 50, 1 - a / 50 - b / 50) for a in range(51) for b in range(51 - a)]
        assert likelihood(weights) >= max(map(likelihood, grid)) - 1e-6
