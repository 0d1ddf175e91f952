"""Training from any step to the end, on one device or several, with a clock on the input."""

import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.tfrecords import reader
from alexnet_tf.training.callbacks import Stopped
from alexnet_tf.training.checkpoints import Progress


class InputWaitTimer:
    """Measures how long training waits for its batches.

    Attributes:
        seconds: the total wait so far.
    """

    def __init__(self):
        self.seconds = 0.0

    def wrap(self, train_function: Callable) -> Callable:
        """The same Keras train function, but the clock measures how long it waits for each batch.

        Keras takes batches inside its graph, where their arrival can't be observed.
        """

        def step(iterator):
            return train_function(self._batch(iterator))

        return step

    def _batch(self, iterator) -> Iterator:
        start = time.perf_counter()
        batch = next(iterator)
        self.seconds += time.perf_counter() - start
        yield batch


class _ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, with the number of epochs of the complete run: of 3 also in a `fit` up to the second."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs_of_run = epochs

    def set_params(self, params):
        super().set_params(params | {"epochs": self.epochs_of_run})


def fit(
    training_model: keras.Model,
    data,
    start: Progress,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback | None],
    worker: Worker,
    input_wait_timer: InputWaitTimer | None = None,
) -> None:
    """Trains from a step to the end of the last epoch, or until a callback sets the model's `stop_training`.

    Args:
        training_model: compiled, from `model.with_color_offset`; in the scope of a strategy of several replicas it
            must be a `strategies.DistributedModel`.
        data: an `inputs.RunData`, or an object that has its `training`, `validation`, `steps_per_epoch` and
            `validation_steps`.
        start: where to begin.
        epochs: number of epochs of the complete run.
        callbacks: as in `keras.Model.fit`, in this order; None is skipped.
        worker: which worker this process is.
        input_wait_timer: measures the wait for batches, or None.

    Raises:
        Stopped: if a signal requested to stop and a callback is a `SaveCheckpoints`.
    """
    strategy = training_model.distribute_strategy
    callbacks = [callback for callback in callbacks if callback is not None]
    steps_per_epoch, validation_steps = data.steps_per_epoch, data.validation_steps(strategy.num_replicas_in_sync)

    def make_validation(share):
        dataset = data.validation(share)
        return dataset.map(_without_noise) if "color_offset" in training_model.input else dataset

    validation_dataset = _distribute(strategy, worker, make_validation)
    if input_wait_timer is not None:
        training_model.make_train_function()
        training_model.train_function = input_wait_timer.wrap(training_model.train_function)

    def fit_epochs(step, end_epoch, steps):
        training_model.fit(
            _distribute(strategy, worker, lambda share: data.training(step, share)),
            initial_epoch=step // steps_per_epoch,
            epochs=end_epoch,
            steps_per_epoch=steps,
            shuffle=False,  # the data set is shuffled
            validation_data=validation_dataset,
            validation_steps=validation_steps,
            callbacks=[*callbacks, _ProgressBar(epochs)],
        )

    epoch, steps_done = divmod(start.step, steps_per_epoch)
    try:
        if start.validation_due:
            logs = training_model.evaluate(
                validation_dataset, steps=validation_steps, callbacks=callbacks, return_dict=True
            )
            for callback in callbacks:
                callback.on_epoch_end(epoch - 1, {f"val_{name}": value for name, value in logs.items()})
        if steps_done and not training_model.stop_training:
            # The rest of an interrupted epoch is a separate `fit`, which has the same number of steps in each epoch.
            fit_epochs(start.step, epoch + 1, steps_per_epoch - steps_done)
            epoch += 1
        if epoch < epochs and not training_model.stop_training:
            fit_epochs(epoch * steps_per_epoch, epochs, steps_per_epoch)
    except Stopped as stopped:
        if stopped.on_all_workers:  # they wait for the chief, which saves
            strategies.check_workers_agree(strategy, worker, {"stopped": True})
        raise


def _distribute(strategy, worker, make_dataset):
    """The data set of the single device, or of this worker's replicas."""
    if strategy.num_replicas_in_sync == 1:
        return make_dataset(reader.Share())
    workers = len(worker.addresses)
    share = reader.Share(worker.number, workers, strategy.num_replicas_in_sync // workers)
    return strategy.distribute_datasets_from_function(lambda context: make_dataset(share))


def _without_noise(images, labels):
    return {"image": images, "color_offset": tf.zeros([tf.shape(images)[0], 3])}, labels
