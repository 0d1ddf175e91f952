"""Callbacks that remember the best epoch, save checkpoints and stop training."""

import signal
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.training import checkpoints
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.training.schedules import DivideRateOnPlateau, FollowPhases

if TYPE_CHECKING:
    from alexnet_tf.training.build import CompiledNetwork


class BestEpoch(keras.callbacks.Callback):
    """Remembers the epoch with the lowest validation error, and stops training after epochs without improvement.

    Args:
        early_stopping_epochs: number of epochs without improvement after which training stops, or None.
        state: the state with which the run resumes, or None.
    """

    def __init__(self, early_stopping_epochs: int | None = None, state: dict[str, Any] | None = None):
        super().__init__()
        self.early_stopping_epochs = early_stopping_epochs
        self.state = state or {"epoch": 0, "top1": -1.0}

    def on_epoch_end(self, epoch, logs: Any = None):
        if logs["val_top1"] > self.state["top1"]:
            self.state = {"epoch": epoch + 1, "top1": float(logs["val_top1"])}
        if self.stops_after(epoch + 1):
            self.model.stop_training = True

    def stops_after(self, epoch: int) -> bool:
        """Whether training stops early after an epoch, counted from 1."""
        return self.early_stopping_epochs is not None and epoch - self.state["epoch"] >= self.early_stopping_epochs

    def describe(self) -> str:
        return f"Lowest validation error: {1 - self.state['top1']:.2%}, in epoch {self.state['epoch']}."


class Stopped(Exception):
    """A signal requested to stop training; the same command resumes it.

    Args:
        on_all_workers: whether all workers stop after the same step, or only this one before its first step.
    """

    def __init__(self, on_all_workers: bool):
        super().__init__("Training was requested to stop.")
        self.on_all_workers = on_all_workers


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint every `checkpoint_every_steps` steps, after every epoch, and when a signal requests to stop.

    On SIGTERM or SIGINT (Ctrl-C), training stops with `Stopped` after the current step, which is the same on all
    workers, or immediately if no step has begun. A validation in progress is repeated on resume. The signal handlers
    are installed by the constructor.

    Args:
        config: the run's configuration.
        compiled: what is trained.
        settings: the settings of the run, for config.json.
        initial_step: number of completed steps. (The optimizer does not count steps whose gradients overflowed.)
        best: remembers the best epoch.
        schedule: the callback of the schedule, or None. Both must come before this one in the list of callbacks, so
            that an epoch's checkpoint has their state after the epoch's validation.
        writes: whether this process writes; only one worker should.
    """

    def __init__(
        self,
        config: TrainConfig,
        compiled: "CompiledNetwork",
        settings: dict[str, Any],
        initial_step: int,
        best: BestEpoch,
        schedule: DivideRateOnPlateau | FollowPhases | None = None,
        writes: bool = True,
    ):
        super().__init__()
        self.config = config
        self.compiled = compiled
        self.settings = settings
        self.step = initial_step
        self.best = best
        self.schedule = schedule
        self.writes = writes
        self.has_begun = False
        self.stop_signaled = False
        model = compiled.training_model
        self.distributed = model if isinstance(model, strategies.DistributedModel) else None
        if self.distributed:
            # This worker's own variable: a strategy would mirror one made in its scope.
            self.distributed.stop_requested = tf.Variable(tf.zeros(()), trainable=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number, frame):
        if number == signal.SIGINT and self.stop_signaled:
            raise KeyboardInterrupt  # the second Ctrl-C: stop at once
        if not self.has_begun:
            raise Stopped(on_all_workers=False)
        # Not the variable: the signal may come while TensorFlow traces a graph.
        self.stop_signaled = True

    def _stop_agreed(self):
        return self.distributed.stop_agreed if self.distributed else self.stop_signaled

    def _request_stop(self):
        self.has_begun = True
        if self.distributed and self.stop_signaled:
            self.distributed.stop_requested.assign(1.0)

    def _save(self, validation_due=False, is_best=False):
        if self.distributed:
            self.distributed.gather_weights()
        if not self.writes:
            return
        plateau = self.schedule.state if isinstance(self.schedule, DivideRateOnPlateau) else None
        progress = checkpoints.Progress(self.step, validation_due, is_best, plateau, self.best.state)
        network, training_model = self.compiled.network, self.compiled.training_model
        checkpoints.save(self.config.run_dir, network, training_model, progress, self.settings)

    def on_train_batch_begin(self, batch, logs=None):
        self._request_stop()

    def on_test_batch_begin(self, batch, logs=None):
        self._request_stop()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if batch + 1 == self.params["steps"]:
            return  # after the epoch's last step come the validation and on_epoch_end
        stop = self._stop_agreed()
        if stop or (batch + 1) % self.config.checkpoint_every_steps == 0:
            self._save()
        if stop:
            raise Stopped(on_all_workers=True)

    def on_test_batch_end(self, batch, logs=None):
        if self._stop_agreed():
            self._save(validation_due=True)
            raise Stopped(on_all_workers=True)

    def on_epoch_end(self, epoch, logs=None):
        self._save(is_best=self.config.keep_best and self.best.state["epoch"] == epoch + 1)
        if self._stop_agreed():
            raise Stopped(on_all_workers=True)
