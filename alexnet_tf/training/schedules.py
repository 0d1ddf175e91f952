"""The learning rate over a run: the paper's, the original program's, and later ones."""

from typing import TYPE_CHECKING, Any

import keras

from alexnet_tf.training import phases
from alexnet_tf.training.config import TrainConfig

if TYPE_CHECKING:  # see the list of modules in registration.py
    from alexnet_tf.training.optimizers import PaperMomentum


def make_learning_rate(
    config: TrainConfig, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each step; or the first one, if the callback from `start_schedule` changes it."""
    rate, warmup_steps = config.scaled_learning_rate, config.warmup_steps
    delay = 0 if config.warmup_overlaps else warmup_steps
    decay_steps = max(1, config.epochs * steps_per_epoch - delay)
    if config.schedule in ("cosine", "poly"):
        if config.schedule == "cosine":
            decay = keras.optimizers.schedules.CosineDecay(rate, decay_steps)
        else:
            decay = keras.optimizers.schedules.PolynomialDecay(rate, decay_steps, end_learning_rate=0.0, power=2)
        if not warmup_steps:
            return decay
        return WarmUp(decay, warmup_steps, config.warmup_rate, delay)
    if config.schedule == "step":
        steps = config.step_epochs * steps_per_epoch
        return keras.optimizers.schedules.ExponentialDecay(rate, steps, 0.1, staircase=True)
    return rate


@keras.saving.register_keras_serializable(package="alexnet_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, followed by another schedule.

    Args:
        schedule: the `LearningRateSchedule` that follows. The warm-up rises to its first rate.
        steps: number of warm-up steps.
        first_rate: the rate of the first step.
        delay: the step from which `schedule` counts: `steps`, or 0 if it counts during the warm-up too.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        steps: int,
        first_rate: float,
        delay: int,
    ):
        self.schedule = schedule
        self.steps = steps
        self.first_rate = first_rate
        self.delay = delay

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rising = self.first_rate + (self.schedule(0) - self.first_rate) * step / self.steps
        return keras.ops.where(step < self.steps, rising, self.schedule(keras.ops.maximum(step - self.delay, 0.0)))

    def get_config(self):
        own = {name: getattr(self, name) for name in ("steps", "first_rate", "delay")}
        return own | {"schedule": keras.saving.serialize_keras_object(self.schedule)}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"schedule": keras.saving.deserialize_keras_object(config["schedule"])})


def start_schedule(
    config: TrainConfig,
    optimizer: "PaperMomentum",
    steps_per_epoch: int,
    step: int = 0,
    plateau: dict[str, Any] | None = None,
) -> "DivideRateOnPlateau | FollowPhases | None":
    """Sets an optimizer's rates to those of the configuration, which may differ from the checkpoint's.

    Args:
        config: the run's configuration.
        optimizer: the update rule, built.
        steps_per_epoch: number of steps in an epoch.
        step: number of completed steps.
        plateau: the state with which the plateau schedule resumes, or None.

    Returns: the callback that changes the rates during training, or None if the schedule needs none.

    Raises:
        ValueError: if a rate is for a layer that does not exist or is not trained, or is negative.
    """
    if not isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        optimizer.learning_rate = config.scaled_learning_rate
    if config.schedule == "phases":
        return FollowPhases(config, optimizer, steps_per_epoch, step)
    optimizer.set_rate_multipliers({"bias": config.bias_rate, **config.layer_rates})
    if config.schedule != "plateau":
        return None
    callback = DivideRateOnPlateau(config.plateau_patience)
    if plateau:
        callback.restore(plateau, optimizer)
    return callback


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
        config: the run's configuration, with its phases.
        optimizer: the update rule, built.
        steps_per_epoch: number of steps in an epoch.
        initial_step: number of completed steps.

    Raises:
        ValueError: if a phase names a layer that is not trained.
    """

    def __init__(self, config: TrainConfig, optimizer: "PaperMomentum", steps_per_epoch: int, initial_step: int):
        super().__init__()
        self.optimizer = optimizer
        self.phases = phases.parse_phases(config.phase)
        self.factor = config.scaled_learning_rate / config.learning_rate
        self.steps_per_epoch = steps_per_epoch
        self.step = initial_step
        self.phase: phases.Phase | None = None
        for phase in self.phases:  # raises now instead of in a later epoch
            optimizer.set_rate_multipliers(phase.multipliers())

    def on_train_batch_begin(self, batch, logs=None):
        phase = phases.phase_at(self.phases, 1 + self.step / self.steps_per_epoch)
        if phase is not self.phase:
            self.phase = phase
            self.optimizer.learning_rate = self.factor * phase.weights
            self.optimizer.set_rate_multipliers(phase.multipliers())

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
