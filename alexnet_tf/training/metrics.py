"""What is measured of a batch besides the loss."""

import keras
import tensorflow as tf


class ConfusionMatrix(keras.metrics.Metric):
    """Top-1 accuracy, from counts of how often each class was predicted for each.

    Args:
        classes: number of classes.

    Attributes:
        counts: a variable, (classes, classes): rows are true classes, columns predicted ones.
    """

    def __init__(self, classes: int, name: str = "top1"):
        super().__init__(name=name)
        self.classes = classes
        self.counts = self.add_weight(shape=(classes, classes), initializer="zeros", name="counts")

    def update_state(self, labels, probabilities, sample_weight=None):
        labels = tf.cast(tf.reshape(labels, (-1,)), tf.int32)
        places = tf.stack([labels, tf.argmax(probabilities, axis=-1, output_type=tf.int32)], axis=1)
        # Not tf.math.confusion_matrix, whose checks of the labels would have a GPU wait.
        self.counts.assign_add(tf.scatter_nd(places, tf.ones_like(labels, self.dtype), self.counts.shape))

    def result(self):
        return tf.math.divide_no_nan(tf.linalg.trace(self.counts.value), tf.reduce_sum(self.counts.value))
