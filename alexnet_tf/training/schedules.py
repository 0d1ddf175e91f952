"""The learning rate over a run: the paper's, the original program's, and later ones."""

import dataclasses

import keras

from alexnet_tf.training.config import TrainConfig


def make_learning_rate(
    config: TrainConfig, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each step, or the first one, which `callbacks` change, if the schedule is by epoch."""
    rate, warmup_steps = config.scaled_learning_rate, config.warmup_steps
    decay_steps = max(1, config.epochs * steps_per_epoch - warmup_steps)
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else rate,
            decay_steps=decay_steps,
            warmup_target=rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if config.schedule == "poly":
        parabola = keras.optimizers.schedules.PolynomialDecay(rate, decay_steps, end_learning_rate=0.0, power=2)
        return WarmUp(parabola, warmup_steps) if warmup_steps else parabola
    if config.schedule == "step":
        steps = config.step_epochs * steps_per_epoch
        return keras.optimizers.schedules.ExponentialDecay(rate, steps, 0.1, staircase=True)
    return rate


@keras.saving.register_keras_serializable(package="alexnet_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, followed by another schedule.

    Args:
        schedule: the `LearningRateSchedule` that follows, which counts its steps from the end of the warm-up.
        steps: number of warm-up steps.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int):
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rising = self.schedule(0) * step / self.steps
        return keras.ops.where(step < self.steps, rising, self.schedule(keras.ops.maximum(step - self.steps, 0.0)))

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


@dataclasses.dataclass(frozen=True)
class OriginalPhase:
    """Learning rates of the original program from an epoch on, as multiples of the run's first one.

    Attributes:
        first_epoch: counted from 1.
        weights, biases: of all layers except conv1.
        conv1_weights, conv1_biases: of conv1.
    """

    first_epoch: int
    weights: float
    biases: float
    conv1_weights: float
    conv1_biases: float


# From the notes in the original program's layer-params-145.cfg, where epsW began at 0.01. At the end epsB is 0.02, or
# twice the first epsW, and no note says that it ever changed; conv1's is 0, like its epsW.
ORIGINAL_PHASES = (
    OriginalPhase(1, 1.0, 2.0, 1.0, 2.0),
    OriginalPhase(25, 0.1, 2.0, 0.1, 2.0),  # "epoch 25: set epsw to 0.001 from 0.01"
    OriginalPhase(51, 0.01, 2.0, 0.01, 2.0),  # "epoch 51: set epsw to 0.0001 from 0.001"
    OriginalPhase(67, 0.01, 2.0, 0.001, 2.0),  # "epoch 67: set epsw to 0.00001 from 0.0001 on conv1"
    OriginalPhase(72, 0.01, 2.0, 0.0, 0.0),  # "epoch 72: set epsw to 0 on conv1"
    OriginalPhase(79, 0.001, 2.0, 0.0, 0.0),  # "epoch 79: set epsw to 0.00001 from 0.0001"
)
ORIGINAL_COLOR_NOISE_EPOCHS = 66  # "epoch 67: set color noise to 0 from 0.1"


def original_phase(epoch: int) -> OriginalPhase:
    """The phase of an epoch, counted from 0."""
    return max((phase for phase in ORIGINAL_PHASES if phase.first_epoch <= epoch + 1), key=lambda p: p.first_epoch)
