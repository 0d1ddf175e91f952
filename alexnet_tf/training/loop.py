"""What alexnet-train does, in pieces that a program of one's own can call."""

import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from alexnet_tf.distribution import strategies
from alexnet_tf.layers import columns
from alexnet_tf.tfrecords import reader

# Beyond so many classes nobody reads a confusion matrix, and its counts would take more memory than the network.
_MOST_CLASSES_OF_CONFUSION = 1000


class ConfusionMatrix(keras.metrics.Metric):
    """Top-1 accuracy, from counts of how often each class was taken for each.

    Args:
        classes: number of classes.

    Attributes:
        counts: a variable, (classes, classes): rows are true classes, columns the most probable ones.
    """

    def __init__(self, classes, name="top1"):
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


class InputClock:
    """Measures how long training waits for its batches.

    Attributes:
        seconds: how long it has waited so far, in all.
    """

    def __init__(self):
        self.seconds = 0.0

    def wrap(self, train_function):
        """A Keras train function like another, but that takes each batch from the data itself, by the clock.

        Keras would take it inside of its graph, where nobody sees when it came.
        """

        def step(iterator):
            return train_function(self._batch(iterator))

        return step

    def _batch(self, iterator):
        start = time.perf_counter()
        batch = next(iterator)
        self.seconds += time.perf_counter() - start
        yield batch


def usable_column_devices(devices, allow_fewer):
    """The devices for the columns: those asked for, or None where none are.

    Args:
        devices: list of TensorFlow device names, one for each column, or empty.
        allow_fewer: whether to warn and return None where this machine does not have them.

    Raises:
        ValueError: where it does not have them, unless `allow_fewer`.
    """
    if not devices:
        return None
    try:
        columns.check_devices_exist(devices)
    except ValueError as error:
        if not allow_fewer:
            raise ValueError(f"{error} With --allow_fewer_devices the columns share a device.") from error
        logging.warning("THE COLUMNS ARE NOT ON DEVICES OF THEIR OWN: %s", error)
        return None
    return devices


def use_jit(jit, strategy, column_devices=None):
    """Whether XLA is to compile the step.

    Args:
        jit: "true", "false", or "auto": on one GPU alone. On a CPU the step without XLA was measured 1.4 times as
            fast, since XLA's gradient of max-pooling is many times slower there.
        strategy: the distribution strategy of the run.
        column_devices: None, or the devices of the columns.

    Raises:
        ValueError: where "true" is asked of a distribution strategy or of columns on devices of their own, which can't
            be compiled, or these two are asked for together.
    """
    several = strategy is not tf.distribute.get_strategy()
    if several and column_devices:
        raise ValueError(
            "Columns on devices of their own can't be mirrored: fixed devices would send every replica to the same "
            f"ones. Received: column_devices={','.join(column_devices)} and {type(strategy).__name__}"
        )
    if jit == "true" and (several or column_devices):
        raise ValueError(
            "`jit` must not be true under a distribution strategy or `column_devices`, which XLA can't compile."
        )
    one_gpu = not several and not column_devices and bool(tf.config.list_logical_devices("GPU"))
    return jit == "true" or (jit == "auto" and one_gpu)


def freeze(model, name):
    """Makes the weights of a layer stay as they are. To be called before `compile_model`.

    Raises:
        ValueError: where the model has no layer of that name that learns.
    """
    names = [layer.name for layer in model.layers if layer.trainable_weights]
    if name not in names:
        raise ValueError(f"`freeze` must name layers that learn: {', '.join(names)}. Received: {name!r}")
    model.get_layer(name).trainable = False


def compile_model(training_model, optimizer, jit, label_smoothing=0.0):
    """Compiles a model from `model.with_color_offset` with the paper's loss and its two measures.

    The measures are "top1" and "top5": the share of images whose class is the most probable, or among the five most
    probable. (With fewer than five classes, among all.)

    Args:
        training_model: from `model.with_color_offset`.
        optimizer: a `keras.optimizers.Optimizer`.
        jit: whether XLA compiles the step.
        label_smoothing: in [0, 1): the share of each label's weight that is spread evenly over all classes. The paper
            has none.

    Returns: the `ConfusionMatrix` that counts, or None where the classes are too many.

    Raises:
        ValueError: where `label_smoothing` is outside [0, 1).

    Source: section 2.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"`label_smoothing` must be in [0, 1). Received: label_smoothing={label_smoothing}")
    classes = training_model.output_shape[-1]
    if training_model.dtype_policy.name == "mixed_float16":
        optimizer = strategies.AgreedLossScale(optimizer)
    optimizer.build(training_model.trainable_variables)  # so that a checkpoint can be restored before the first step

    def smoothed_crossentropy(labels, probabilities):
        one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes)
        return keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=label_smoothing)

    confusion = ConfusionMatrix(classes) if classes <= _MOST_CLASSES_OF_CONFUSION else None
    training_model.compile(
        optimizer,
        loss=smoothed_crossentropy if label_smoothing else "sparse_categorical_crossentropy",
        metrics=[
            confusion or keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(min(5, classes), name="top5"),
        ],
        jit_compile=jit,
    )
    return confusion


def fit(
    training_model,
    training_data,
    validation_data,
    first_step,
    steps_per_epoch,
    epochs,
    callbacks,
    *,
    validation_steps=None,
    validation_due=False,
    worker=None,
    input_clock=None,
):
    """Trains from a step to the end of the last epoch.

    Args:
        training_model: compiled, from `model.with_color_offset`; made in the scope of a strategy of several replicas
            it must be a `strategies.DistributedModel`.
        training_data: a function from a step, counted from the beginning of the run, and a `reader.Share` to the
            endless `tf.data.Dataset` that begins with that step's batch.
        validation_data: a function from a `reader.Share` to the `tf.data.Dataset` of (images, labels) that is run
            through after each epoch.
        first_step: steps done already.
        steps_per_epoch: steps in an epoch.
        epochs: epochs in the whole run.
        callbacks: list of `keras.callbacks.Callback`.
        validation_steps: batches of each replica in a validation; needed where there are several replicas.
        validation_due: whether `first_step` ended an epoch whose validation is still to be done.
        worker: None, or the `strategies.Worker` that this process is.
        input_clock: None, or the `InputClock` that is to measure the wait for batches.
    """
    strategy = training_model.distribute_strategy
    worker = worker or strategies.Worker()

    def distributed(make_dataset):
        if strategy.num_replicas_in_sync == 1:
            return make_dataset(reader.Share())
        workers = len(worker.addresses)
        share = reader.Share(worker.number, workers, strategy.num_replicas_in_sync // workers)
        return strategy.distribute_datasets_from_function(lambda context: make_dataset(share))

    def with_no_offset(images, labels):
        return {"image": images, "color_offset": tf.zeros([tf.shape(images)[0], 3])}, labels

    validation_dataset = distributed(lambda share: validation_data(share).map(with_no_offset))
    if input_clock is not None:
        training_model.make_train_function()
        training_model.train_function = input_clock.wrap(training_model.train_function)

    def fit_epochs(step, end_epoch, steps):
        training_model.fit(
            distributed(lambda share: training_data(step, share)),
            initial_epoch=step // steps_per_epoch,
            epochs=end_epoch,
            steps_per_epoch=steps,
            shuffle=False,  # the data sets have done so
            validation_data=validation_dataset,
            validation_steps=validation_steps,
            callbacks=callbacks,
        )

    epoch, done = divmod(first_step, steps_per_epoch)
    if validation_due:
        logs = training_model.evaluate(
            validation_dataset, steps=validation_steps, callbacks=callbacks, return_dict=True
        )
        for callback in callbacks:
            callback.on_epoch_end(epoch - 1, {f"val_{name}": value for name, value in logs.items()})
    if done:
        # The rest of an epoch that was broken off is a fit of its own: `fit` counts the same steps for each epoch.
        fit_epochs(first_step, epoch + 1, steps_per_epoch - done)
        epoch += 1
    if epoch < epochs:
        fit_epochs(epoch * steps_per_epoch, epochs, steps_per_epoch)


def network_inputs(dataset, count):
    """The first images of a training set as the network sees them, color noise added, mean not subtracted.

    Returns: uint8 (count or less, rows, columns, 3).
    """
    inputs, _ = next(iter(dataset))
    pixels = np.float32(inputs["image"][:count]) + np.asarray(inputs["color_offset"][:count])[:, None, None, :]
    return np.uint8(np.clip(np.round(pixels), 0, 255))


def describe_run(description, left_out, flags):
    """What is trained on what, as Markdown for TensorBoard's text page.

    Args:
        description: the `schema.DatasetDescription` of the data.
        left_out: how many of its records are not read, since they are damaged.
        flags: list of absl's flags.

    Returns: a dict from titles to texts.
    """
    settings = "\n".join(f"* {name}: {value}" for name, value in description.settings.items())
    counts = "\n".join(f"* {name}: {split.count:,} images" for name, split in description.splits.items())
    names = ", ".join(description.class_names[:20]) + (", ..." if len(description.class_names) > 20 else "")
    data = f"{counts}\n* records left out: {left_out}\n* {len(description.class_names)} classes: {names}\n{settings}"
    return {"data": data, "flags": "\n".join(f"    {flag.serialize()}" for flag in flags if flag.value is not None)}
