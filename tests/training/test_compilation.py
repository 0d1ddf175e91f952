"""The confusion matrix against counts by hand."""

import keras
import numpy as np

from alexnet_tf.training import compilation


class TestConfusionMatrix:
    def test_counts_and_accuracy_are_right_over_batches(self):
        rng = np.random.default_rng(2)
        labels, probabilities = rng.integers(0, 7, 100), rng.random((100, 7), "float32")
        metric, accuracy = compilation.ConfusionMatrix(7), keras.metrics.SparseCategoricalAccuracy()
        for part in (slice(0, 64), slice(64, 100)):
            for each in (metric, accuracy):
                each.update_state(labels[part], probabilities[part])
        expected = np.zeros((7, 7))
        for label, predicted in zip(labels, probabilities.argmax(axis=1), strict=True):
            expected[label, predicted] += 1
        np.testing.assert_array_equal(metric.counts, expected)
        np.testing.assert_allclose(metric.result(), accuracy.result())
