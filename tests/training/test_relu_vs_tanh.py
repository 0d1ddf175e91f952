"""The comparison of ReLU with tanh."""

import pytest

from alexnet_tf.training import relu_vs_tanh


class TestEpochsTo:
    def test_epochs_are_interpolated_linearly(self):
        assert relu_vs_tanh.epochs_to([0.6, 0.4, 0.2], 0.25) == pytest.approx(2.75)
        assert relu_vs_tanh.epochs_to([0.2], 0.6) == pytest.approx(0.5)
        assert relu_vs_tanh.epochs_to([0.6, 0.4], 0.25) is None


class TestCompare:
    def test_best_training_is_the_first_at_the_goal_or_else_the_nearest_to_it(
        self, tiny_data_dir, tmp_path, monkeypatch
    ):
        errors = {
            ("four_layer", 0.1): [0.5, 0.4, 0.3],
            ("four_layer", 0.2): [0.5, 0.2],  # reaches it, and the next need not go on longer
            ("four_layer", 0.3): [0.9, 0.8],
            ("four_layer_tanh", 0.1): [0.6, 0.5, 0.45],
            ("four_layer_tanh", 0.2): [0.6, 0.5, 0.4],
            ("four_layer_tanh", 0.3): [0.7, 0.6, 0.5],
        }
        limits = []

        def train(variant, data_dir, description, rate, goal_error, limit, seed):
            limits.append((variant, rate, limit))
            return errors[variant, rate]

        monkeypatch.setattr(relu_vs_tanh, "_train", train)
        best = relu_vs_tanh.compare(tiny_data_dir, tmp_path, [0.1, 0.2, 0.3], goal_error=0.25, max_epochs=3)
        assert best == {"four_layer": (0.2, [0.5, 0.2]), "four_layer_tanh": (0.2, [0.6, 0.5, 0.4])}
        assert [limit for *_, limit in limits] == [3, 3, 2, 3, 3, 3]
        assert relu_vs_tanh.compare(tiny_data_dir, tmp_path, [0.2, 0.1], goal_error=0.25, max_epochs=3) == best
        assert len(limits) == 6  # nothing is trained again
