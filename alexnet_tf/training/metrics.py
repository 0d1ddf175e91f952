"""The top-1 accuracy with a confusion matrix."""

import keras
import tensorflow as tf


class ConfusionMatrix(keras.metrics.Metric):
    """Top-1 accuracy, computed from a confusion matrix.

    Args:
        classes: number of classes.

    Attributes:
        counts: variable (classes, classes): rows are true classes, columns are predictions.
    """

    def __init__(self, classes: int, name: str = "top1"):
        super().__init__(name=name)
        self.classes = classes
        self.counts = self.add_weight(shape=(classes, classes), initializer="zeros", name="counts")

    def update_state(self, labels, probabilities, sample_weight=None):
        labels = tf.cast(tf.reshape(labels, (-1,)), tf.int32)
        positions = tf.stack([labels, tf.argmax(probabilities, axis=-1, output_type=tf.int32)], axis=1)
        # tf.math.confusion_matrix checks the labels, which makes a GPU wait.
        self.counts.assign_add(tf.scatter_nd(positions, tf.ones_like(labels, self.dtype), self.counts.shape))

    def result(self):
        return tf.math.divide_no_nan(tf.linalg.trace(self.counts.value), tf.reduce_sum(self.counts.value))
