"""Compiles a network for training: its loss and metrics."""

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf.training.optimizers import AgreedLossScale

# Nobody reads a larger confusion matrix, and its counts would take more memory than the network.
_MAX_CLASSES_OF_CONFUSION = 1000


class ConfusionMatrix(keras.metrics.Metric):
    """Top-1 accuracy, computed from a confusion matrix.

    Args:
        classes: number of classes.

    Attributes:
        counts: variable (classes, classes): rows are true classes, columns are predictions.
    """

    def __init__(self, classes: int):
        super().__init__(name="top1")
        self.classes = classes
        self.counts = self.add_weight(shape=(classes, classes), initializer="zeros", name="counts")

    def update_state(self, labels, probabilities, sample_weight=None):
        labels = tf.cast(tf.reshape(labels, (-1,)), tf.int32)
        positions = tf.stack([labels, tf.argmax(probabilities, axis=-1, output_type=tf.int32)], axis=1)
        # tf.math.confusion_matrix checks the labels, which makes a GPU wait.
        self.counts.assign_add(tf.scatter_nd(positions, tf.ones_like(labels, self.dtype), self.counts.shape))

    def result(self):
        return tf.math.divide_no_nan(tf.linalg.trace(self.counts.value), tf.reduce_sum(self.counts.value))


def compile_model(
    training_model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    jit: bool,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> ConfusionMatrix | None:
    """Compiles a model from `model.with_color_offset` with the paper's loss and two metrics.

    The metrics are "top1" and "top5", the top-1 and top-5 accuracy. (With fewer than five classes, top5 counts all.)

    Args:
        training_model: from `model.with_color_offset`.
        optimizer: the update rule. It is built here, so that a checkpoint can be restored before the first step. For a
            model in float16 the loss is scaled.
        jit: whether XLA compiles the step.
        label_smoothing: in [0, 1). The paper has none.
        class_weights: float32 (classes,), factors of the loss of each class's images; None for equal weights.

    Returns: the metric "top1" as a `ConfusionMatrix`, or None if there are too many classes.

    Source: section 2.
    """
    classes = training_model.output_shape[-1]
    if training_model.dtype_policy.name == "mixed_float16":
        optimizer = AgreedLossScale(optimizer)
    optimizer.build(training_model.trainable_variables)

    def crossentropy(labels, probabilities):
        labels = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")  # Keras passes floats
        one_hot = keras.ops.one_hot(labels, classes)
        losses = keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=label_smoothing)
        return losses if class_weights is None else losses * keras.ops.take(class_weights, labels)

    confusion_matrix = ConfusionMatrix(classes) if classes <= _MAX_CLASSES_OF_CONFUSION else None
    training_model.compile(
        optimizer,
        loss="sparse_categorical_crossentropy" if not label_smoothing and class_weights is None else crossentropy,
        metrics=[
            confusion_matrix or keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(min(5, classes), name="top5"),
        ],
        jit_compile=jit,
    )
    return confusion_matrix
