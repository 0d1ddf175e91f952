"""Callbacks that act on training: the schedules of the learning rate, and the checkpoints."""

import pathlib
import signal
from typing import Any

import keras
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.training import checkpoints, schedules
from alexnet_tf.training.optimizers import PaperMomentum


class DivideRateOnPlateau(keras.callbacks.Callback):
    """Divides the learning rate by 10 when the validation error has stopped improving.

    Unlike `keras.callbacks.ReduceLROnPlateau` it can be resumed: its state is in every checkpoint.

    Args:
        patience: epochs without improvement before the rate is divided.
        max_divisions: how many times the rate is divided at most.
        monitor: name of a validation metric that is higher the better; None for "val_top1" or, if that is not logged,
            "val_accuracy".

    Raises:
        ValueError: at the end of an epoch, if the metric is not logged.

    Source: section 5: "divide the learning rate by 10 when the validation error rate stopped improving with the
    current learning rate", three times. How long to wait is not in the paper.
    """

    def __init__(self, patience: int, max_divisions: int = 3, monitor: str | None = None):
        super().__init__()
        self.patience = patience
        self.max_divisions = max_divisions
        self.monitored = ("val_top1", "val_accuracy") if monitor is None else (monitor,)
        self.state = {"best_top1": -1.0, "epochs_without_improvement": 0, "divisions": 0}

    def restore(self, state: dict[str, Any], optimizer: keras.optimizers.Optimizer) -> None:
        """Resumes from a saved state, with an optimizer that has the first rate."""
        self.state = state
        for _ in range(state["divisions"]):
            _divide_rate(optimizer)

    def on_epoch_end(self, epoch, logs: Any = None):
        state, logged = self.state, [name for name in self.monitored if name in (logs or {})]
        if not logged:
            raise ValueError(
                f"`DivideRateOnPlateau` must find {' or '.join(self.monitored)} in the logs: give `fit` "
                f"`validation_data`, and `compile` the metric. Received: {', '.join(logs or ())}"
            )
        value = float(logs[logged[0]])
        if value > state["best_top1"]:
            state["best_top1"] = value
            state["epochs_without_improvement"] = 0
            return
        state["epochs_without_improvement"] += 1
        if state["epochs_without_improvement"] >= self.patience and state["divisions"] < self.max_divisions:
            state["divisions"] += 1
            state["epochs_without_improvement"] = 0
            rate = _divide_rate(self.model.optimizer)
            print(
                f"\nEpoch {epoch + 1}: the validation error stopped improving at {1 - state['best_top1']:.2%}; "
                f"the learning rate is now {rate:g}."
            )


class FollowOriginalSchedule(keras.callbacks.Callback):
    """Sets the rates that the original program had in each epoch.

    They follow from the number of the epoch alone, so a run that was stopped resumes with the right ones.

    Args:
        optimizer: the `optimizers.PaperMomentum` that trains.
        learning_rate: the first rate, 0.01 in the original program.

    Source: the original program's notes; see `schedules.ORIGINAL_PHASES`.
    """

    def __init__(self, optimizer: PaperMomentum, learning_rate: float):
        super().__init__()
        self.optimizer = optimizer
        self.first_learning_rate = learning_rate

    def on_epoch_begin(self, epoch, logs=None):
        phase = schedules.original_phase(epoch)
        self.optimizer.learning_rate = self.first_learning_rate * phase.weights
        self.optimizer.set_rate_multipliers(
            {
                "bias": phase.biases / phase.weights,
                "conv1/kernel": phase.conv1_weights / phase.weights,
                "conv1/bias": phase.conv1_biases / phase.biases,
            }
        )


class Stopped(Exception):
    """Training was requested to stop; the same command resumes it.

    Args:
        on_all_workers: whether all workers stop after the same step, or this one alone before its first.
    """

    def __init__(self, on_all_workers: bool):
        super().__init__("Training was requested to stop.")
        self.on_all_workers = on_all_workers


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint every `every_steps` steps, at the end of every epoch, and when a signal requests to stop.

    A machine that is to be switched off gets SIGTERM some seconds before; Ctrl-C is SIGINT. Then `Stopped` is raised
    after the current step, on all workers after the same, or within the validation, which is done again on resuming;
    before the first step, at once. This object handles both signals as soon as it is made.

    Args:
        run_dir: the run's folder.
        model: the model that takes pixels alone, whose layers the trained model shares.
        every_steps: steps between checkpoints within an epoch.
        settings: what a resumed run must have in common with this one, a dict that JSON can hold.
        first_step: steps done before this start. (Not the optimizer's count, which excludes the steps whose gradients
            overflowed in half precision.)
        schedule: None or the callback of the schedule. A plateau's state is saved: it must come earlier in the list of
            callbacks, so that the checkpoint of an epoch holds what the epoch's validation error changed.
        writes: whether this process writes, or another worker.
    """

    def __init__(
        self,
        run_dir: str | pathlib.Path,
        model: keras.Model,
        every_steps: int,
        settings: dict,
        first_step: int = 0,
        schedule: DivideRateOnPlateau | FollowOriginalSchedule | None = None,
        writes: bool = True,
    ):
        super().__init__()
        self.run_dir = run_dir
        self.inference_model = model
        self.every_steps = every_steps
        self.settings = settings
        self.step = first_step
        self.schedule = schedule
        self.writes = writes
        self.has_begun = False
        self.stop_signaled = False
        # This worker's own: a strategy would mirror a variable made in its scope.
        self.stop_requested = tf.Variable(tf.zeros(()), trainable=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number, frame):
        if number == signal.SIGINT and self.stop_signaled:
            raise KeyboardInterrupt  # the second Ctrl-C: stop at once
        if not self.has_begun:
            raise Stopped(on_all_workers=False)
        self.stop_signaled = True  # and not the variable: the signal may come while TensorFlow traces a graph

    def set_model(self, model):
        super().set_model(model)
        if isinstance(model, strategies.DistributedModel):
            model.stop_requested = self.stop_requested

    def _stop_agreed(self):
        if isinstance(self.model, strategies.DistributedModel):
            return self.model.stop_agreed
        return self.stop_signaled

    def _request_stop(self):
        self.has_begun = True
        if self.stop_signaled:
            self.stop_requested.assign(1.0)

    def _save(self, validation_due=False):
        if isinstance(self.model, strategies.DistributedModel):
            self.model.gather_weights()
        if not self.writes:
            return
        progress = {"step": self.step, "settings": self.settings, "validation_due": validation_due}
        if isinstance(self.schedule, DivideRateOnPlateau):
            progress["schedule"] = self.schedule.state
        checkpoints.save(self.run_dir, self.inference_model, self.model, progress)

    def on_train_batch_begin(self, batch, logs=None):
        self._request_stop()

    def on_test_batch_begin(self, batch, logs=None):
        self._request_stop()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        # The last step of an epoch is left to the validation, which comes after it, and to on_epoch_end.
        if batch + 1 == self.params["steps"]:
            return
        stop = self._stop_agreed()
        if stop or (batch + 1) % self.every_steps == 0:
            self._save()
        if stop:
            raise Stopped(on_all_workers=True)

    def on_test_batch_end(self, batch, logs=None):
        if self._stop_agreed():
            self._save(validation_due=True)
            raise Stopped(on_all_workers=True)

    def on_epoch_end(self, epoch, logs=None):
        self._save()
        if self._stop_agreed():
            raise Stopped(on_all_workers=True)


def _divide_rate(optimizer) -> float:
    # Not float(...), which a mirrored variable refuses.
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate)) / 10
    optimizer.learning_rate = rate
    return rate
