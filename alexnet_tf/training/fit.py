"""Training from any step to the end, on one device or several, with a clock on the input."""

import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.tfrecords import reader
from alexnet_tf.training.callbacks import Stopped


class InputClock:
    """Measures how long training waits for its batches.

    Attributes:
        seconds: how long it has waited so far, in total.
    """

    def __init__(self):
        self.seconds = 0.0

    def wrap(self, train_function: Callable) -> Callable:
        """A Keras train function that does the same, but takes each batch from the data itself, by the clock.

        Keras would take it inside of its graph, where its arrival can't be observed.
        """

        def step(iterator):
            return train_function(self._batch(iterator))

        return step

    def _batch(self, iterator) -> Iterator:
        start = time.perf_counter()
        batch = next(iterator)
        self.seconds += time.perf_counter() - start
        yield batch


def fit(
    training_model: keras.Model,
    training_data: Callable[[int, reader.Share], tf.data.Dataset],
    validation_data: Callable[[reader.Share], tf.data.Dataset],
    first_step: int,
    steps_per_epoch: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback | None],
    *,
    validation_steps: int | None = None,
    validation_due: bool = False,
    worker: Worker | None = None,
    input_clock: InputClock | None = None,
) -> None:
    """Trains from a step to the end of the last epoch.

    Args:
        training_model: compiled, from `model.with_color_offset`; made in the scope of a strategy of several replicas
            it must be a `strategies.DistributedModel`.
        training_data: a function from a step, counted from the beginning of the run, and a `reader.Share` to the
            endless `tf.data.Dataset` that begins with that step's batch.
        validation_data: a function from a `reader.Share` to the `tf.data.Dataset` of (images, labels) that is run
            through after each epoch.
        first_step: steps that are done already.
        steps_per_epoch: steps in an epoch.
        epochs: epochs in the complete run.
        callbacks: those of `keras.Model.fit`, in their order; None stands for none.
        validation_steps: batches of each replica in a validation; needed with several replicas.
        validation_due: whether `first_step` ended an epoch whose validation is still to be done.
        worker: which worker this process is; None if it is the only one.
        input_clock: None, or the `InputClock` that measures the wait for batches.

    Raises:
        Stopped: if a signal requested to stop and a callback is a `SaveCheckpoints`.
    """
    strategy, worker = training_model.distribute_strategy, worker or Worker()
    callbacks = [callback for callback in callbacks if callback is not None]

    validation_dataset = _distribute(strategy, worker, lambda share: validation_data(share).map(_without_noise))
    if input_clock is not None:
        training_model.make_train_function()
        training_model.train_function = input_clock.wrap(training_model.train_function)

    def fit_epochs(step, end_epoch, steps):
        training_model.fit(
            _distribute(strategy, worker, lambda share: training_data(step, share)),
            initial_epoch=step // steps_per_epoch,
            epochs=end_epoch,
            steps_per_epoch=steps,
            shuffle=False,  # the data sets have done so
            validation_data=validation_dataset,
            validation_steps=validation_steps,
            callbacks=callbacks,
        )

    epoch, steps_done = divmod(first_step, steps_per_epoch)
    try:
        if validation_due:
            logs = training_model.evaluate(
                validation_dataset, steps=validation_steps, callbacks=callbacks, return_dict=True
            )
            for callback in callbacks:
                callback.on_epoch_end(epoch - 1, {f"val_{name}": value for name, value in logs.items()})
        if steps_done:
            # The rest of an interrupted epoch is a fit of its own: `fit` counts the same steps for each epoch.
            fit_epochs(first_step, epoch + 1, steps_per_epoch - steps_done)
            epoch += 1
        if epoch < epochs:
            fit_epochs(epoch * steps_per_epoch, epochs, steps_per_epoch)
    except Stopped as stopped:
        if stopped.on_all_workers:  # they wait for the chief, which saves
            strategies.check_workers_agree(strategy, worker, {"stopped": True})
        raise


def _distribute(strategy, worker, make_dataset):
    """The data set of the one device, or of this worker's replicas."""
    if strategy.num_replicas_in_sync == 1:
        return make_dataset(reader.Share())
    workers = len(worker.addresses)
    share = reader.Share(worker.number, workers, strategy.num_replicas_in_sync // workers)
    return strategy.distribute_datasets_from_function(lambda context: make_dataset(share))


def _without_noise(images, labels):
    return {"image": images, "color_offset": tf.zeros([tf.shape(images)[0], 3])}, labels
