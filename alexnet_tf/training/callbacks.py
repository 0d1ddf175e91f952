"""Callbacks that act on training: learning rate schedules and checkpoints."""

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.training import checkpoints, phases
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.training.optimizers import PaperMomentum

if TYPE_CHECKING:
    from alexnet_tf.training.build import Training


class DivideRateOnPlateau(keras.callbacks.Callback):
    """Divides the learning rate by 10 when the validation error stops improving.

    Unlike `keras.callbacks.ReduceLROnPlateau` it can be resumed: every checkpoint has its state.

    Args:
        patience: number of epochs without improvement before the rate is divided.
        max_divisions: maximum number of divisions.
        monitor: a validation metric for which higher is better; None for "val_top1" or, if that is not logged,
            "val_accuracy".

    Raises:
        ValueError: at the end of an epoch, if the metric is not logged.

    Source: section 5: "divide the learning rate by 10 when the validation error rate stopped improving with the
    current learning rate", three times. The paper does not say how long to wait.
    """

    def __init__(self, patience: int, max_divisions: int = 3, monitor: str | None = None):
        super().__init__()
        self.patience = patience
        self.max_divisions = max_divisions
        self.monitored = ("val_top1", "val_accuracy") if monitor is None else (monitor,)
        self.state = {"best_top1": -1.0, "epochs_without_improvement": 0, "divisions": 0}

    def restore(self, state: dict[str, Any], optimizer: keras.optimizers.Optimizer) -> None:
        """Resumes from a saved state, with an optimizer that has the initial rate."""
        self.state = state
        for _ in range(state["divisions"]):
            _divide_rate(optimizer)

    def on_epoch_end(self, epoch, logs: Any = None):
        state, logged = self.state, [name for name in self.monitored if name in (logs or {})]
        if not logged:
            raise ValueError(
                f"`DivideRateOnPlateau` needs {' or '.join(self.monitored)} in the logs: pass `validation_data` to "
                f"`fit` and the metric to `compile`. Received: {', '.join(logs or ())}"
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
                f"\nEpoch {epoch + 1}: the validation error stopped improving at {1 - state['best_top1']:.2%}. "
                f"The learning rate is now {rate:g}."
            )


def _divide_rate(optimizer) -> float:
    # float(...) fails for a mirrored variable.
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate)) / 10
    optimizer.learning_rate = rate
    return rate


class FollowPhases(keras.callbacks.Callback):
    """Sets the learning rates of each phase before the phase's first step.

    They depend only on the step, so a run resumes with the right ones.

    Args:
        optimizer: the built `optimizers.PaperMomentum` that trains.
        schedule: the phases.
        steps_per_epoch: number of steps in an epoch.
        initial_step: number of completed steps.
        factor: factor of all rates.

    Raises:
        ValueError: if a phase names a layer that is not trained.
    """

    def __init__(
        self,
        optimizer: PaperMomentum,
        schedule: Sequence[phases.Phase],
        steps_per_epoch: int,
        initial_step: int = 0,
        factor: float = 1.0,
    ):
        super().__init__()
        self.optimizer = optimizer
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.step = initial_step
        self.factor = factor
        self.phase: phases.Phase | None = None
        for phase in schedule:  # raises now instead of in a later epoch
            optimizer.set_rate_multipliers(phase.multipliers())

    def on_train_batch_begin(self, batch, logs=None):
        phase = phases.phase_at(self.schedule, 1 + self.step / self.steps_per_epoch)
        if phase is not self.phase:
            self.phase = phase
            self.optimizer.learning_rate = self.factor * phase.weights
            self.optimizer.set_rate_multipliers(phase.multipliers())

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1


def make_schedule_callback(
    config: TrainConfig, optimizer: PaperMomentum, plateau: dict[str, Any] | None, steps_per_epoch: int, step: int
) -> DivideRateOnPlateau | FollowPhases | None:
    """Makes the callback of the schedules that have one.

    Args:
        config: the run's configuration.
        optimizer: the update rule, with its initial rate.
        plateau: the state with which the plateau schedule resumes, or None.
        steps_per_epoch: number of steps in an epoch.
        step: number of completed steps.
    """
    if config.schedule == "phases":
        factor = config.scaled_learning_rate / config.learning_rate
        return FollowPhases(optimizer, phases.parse_phases(config.phase), steps_per_epoch, step, factor)
    if config.schedule != "plateau":
        return None
    callback = DivideRateOnPlateau(config.plateau_patience)
    if plateau:
        callback.restore(plateau, optimizer)
    return callback


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
        training: what is trained.
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
        training: "Training",
        settings: dict[str, Any],
        initial_step: int,
        best: BestEpoch,
        schedule: DivideRateOnPlateau | FollowPhases | None = None,
        writes: bool = True,
    ):
        super().__init__()
        self.config = config
        self.training = training
        self.settings = settings
        self.step = initial_step
        self.best = best
        self.schedule = schedule
        self.writes = writes
        self.has_begun = False
        self.stop_signaled = False
        # This worker's own variable: a strategy would mirror one made in its scope.
        self.stop_requested = tf.Variable(tf.zeros(()), trainable=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number, frame):
        if number == signal.SIGINT and self.stop_signaled:
            raise KeyboardInterrupt  # the second Ctrl-C: stop at once
        if not self.has_begun:
            raise Stopped(on_all_workers=False)
        # Not the variable: the signal may come while TensorFlow traces a graph.
        self.stop_signaled = True

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

    def _save(self, validation_due=False, is_best=False):
        if isinstance(self.model, strategies.DistributedModel):
            self.model.gather_weights()
        if not self.writes:
            return
        progress = {"step": self.step, "validation_due": validation_due, "is_best": is_best, "best": self.best.state}
        if isinstance(self.schedule, DivideRateOnPlateau):
            progress["plateau"] = self.schedule.state
        checkpoints.save(self.config.run_dir, self.training.network, self.model, progress, self.settings)

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
