"""A network made ready to train: which layers learn, its loss and its metrics."""

import keras

from alexnet_tf.training.metrics import ConfusionMatrix
from alexnet_tf.training.optimizers import AgreedLossScale

# Nobody reads a larger confusion matrix, and its counts would take more memory than the network.
_MAX_CLASSES_OF_CONFUSION = 1000


def freeze(model: keras.Model, name: str) -> None:
    """Keeps the weights of a layer as they are. To be called before `compile_model`.

    Raises:
        ValueError: if the model has no layer of that name that learns.
    """
    names = [layer.name for layer in model.layers if layer.trainable_weights]
    if name not in names:
        raise ValueError(f"`freeze` must name layers that learn: {', '.join(names)}. Received: {name!r}")
    model.get_layer(name).trainable = False


def compile_model(
    training_model: keras.Model, optimizer: keras.optimizers.Optimizer, jit: bool, label_smoothing: float = 0.0
) -> ConfusionMatrix | None:
    """Compiles a model from `model.with_color_offset` with the paper's loss and its two metrics.

    The metrics are "top1" and "top5": the fraction of images whose class is the most probable, or among the five most
    probable. (With fewer than five classes, among all.)

    Args:
        training_model: from `model.with_color_offset`.
        optimizer: the update rule. It is built here, so that a checkpoint can be restored before the first step. For a
            model in float16 the loss is scaled.
        jit: whether XLA compiles the step.
        label_smoothing: in [0, 1): the fraction of each label's weight that is spread evenly over all classes. The
            paper has none.

    Returns: the `ConfusionMatrix` that counts, or None if there are too many classes.

    Raises:
        ValueError: if `label_smoothing` is outside [0, 1).

    Source: section 2.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"`label_smoothing` must be in [0, 1). Received: label_smoothing={label_smoothing}")
    classes = training_model.output_shape[-1]
    if training_model.dtype_policy.name == "mixed_float16":
        optimizer = AgreedLossScale(optimizer)
    optimizer.build(training_model.trainable_variables)

    def smoothed_crossentropy(labels, probabilities):
        one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes)
        return keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=label_smoothing)

    confusion_matrix = ConfusionMatrix(classes) if classes <= _MAX_CLASSES_OF_CONFUSION else None
    training_model.compile(
        optimizer,
        loss=smoothed_crossentropy if label_smoothing else "sparse_categorical_crossentropy",
        metrics=[
            confusion_matrix or keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(min(5, classes), name="top5"),
        ],
        jit_compile=jit,
    )
    return confusion_matrix
