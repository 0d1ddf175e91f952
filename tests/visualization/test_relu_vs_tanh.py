"""The comparison of ReLU with tanh."""

import pytest

from alexnet_tf.visualization import relu_vs_tanh


class TestEpochsTo:
    def test_epochs_are_interpolated_linearly(self):
        assert relu_vs_tanh.epochs_to([0.6, 0.4, 0.2], 0.25) == pytest.approx(2.75)
        assert relu_vs_tanh.epochs_to([0.2], 0.6) == pytest.approx(0.5)
        assert relu_vs_tanh.epochs_to([0.6, 0.4], 0.25) is None
