"""The learning rate over a run: the paper's, the original program's, and later ones."""

import dataclasses
import math

import keras

SCHEDULES = ("plateau", "original", "step", "cosine", "poly", "constant")


def make_learning_rate(
    schedule: str,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    steps_per_division: int | None = None,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning rate of a schedule.

    Args:
        schedule: "constant"; "plateau" and "original" begin with the rate itself, which `callbacks.DivideRateOnPlateau`
            or `callbacks.FollowOriginalSchedule` then changes; "cosine" falls to 0 along half a cosine, "poly" along
            a parabola; "step" is divided by 10 after every `steps_per_division` steps.
        learning_rate: the highest rate.
        total_steps: steps in the complete run.
        warmup_steps: for "cosine" and "poly": steps in which the rate first rises from 0.
        steps_per_division: for "step".

    Returns: a float, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: if the schedule is unknown, `warmup_steps` is given without "cosine" or "poly", or
            `steps_per_division` is missing for "step" or given with another schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"`schedule` must be one of {SCHEDULES}. Received: schedule={schedule!r}")
    if warmup_steps and schedule not in ("cosine", "poly"):
        raise ValueError(f'`warmup_steps` needs schedule="cosine" or "poly". Received: schedule={schedule!r}')
    if (steps_per_division is not None) != (schedule == "step"):
        raise ValueError(
            f'`steps_per_division` and schedule="step" need each other. Received: schedule={schedule!r}, '
            f"steps_per_division={steps_per_division}"
        )
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else learning_rate,
            decay_steps=max(1, total_steps - warmup_steps),
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if schedule == "poly":
        decay_steps = max(1, total_steps - warmup_steps)
        parabola = keras.optimizers.schedules.PolynomialDecay(
            learning_rate, decay_steps, end_learning_rate=0.0, power=2
        )
        return WarmUp(parabola, warmup_steps) if warmup_steps else parabola
    if schedule == "step":
        return keras.optimizers.schedules.ExponentialDecay(learning_rate, steps_per_division, 0.1, staircase=True)
    return learning_rate


@keras.saving.register_keras_serializable(package="alexnet_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose rate first rises linearly from 0.

    Args:
        schedule: the `LearningRateSchedule` that follows, counted from its own beginning.
        steps: steps of the rise.
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


def scale_learning_rate(learning_rate: float, how: str, batch_size: int, base_batch_size: int = 128) -> float:
    """Scales a learning rate to a batch size other than the one it was found for.

    Args:
        learning_rate: the rate for `base_batch_size` images.
        how: "none"; "linear": in proportion to the images in a step; "sqrt": to their square root.
        batch_size: images in a step, on all devices together.
        base_batch_size: the paper's 128.

    Raises:
        ValueError: if `how` is unknown.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, on batch sizes: the
    square root keeps the variance of the steps, but in his experiments the proportion itself worked better.
    """
    factors = {"none": 1.0, "linear": batch_size / base_batch_size, "sqrt": math.sqrt(batch_size / base_batch_size)}
    if how not in factors:
        raise ValueError(f"`how` must be one of {', '.join(factors)}. Received: how={how!r}")
    return learning_rate * factors[how]


@dataclasses.dataclass(frozen=True)
class OriginalPhase:
    """Rates of the original program from an epoch on, as multiples of the run's first rate.

    Attributes:
        first_epoch: counted from 1.
        weights, biases: rates of all layers but conv1.
        conv1_weights, conv1_biases: conv1's.
    """

    first_epoch: int
    weights: float
    biases: float
    conv1_weights: float
    conv1_biases: float


# The notes in the original program's layer-params-145.cfg; epsW began at 0.01. epsB is 0.02 there at the end, twice the
# first epsW, and no note says that it was ever another; conv1's is 0, as its epsW is.
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
    """Returns the phase of an epoch, counted from 0."""
    return max((phase for phase in ORIGINAL_PHASES if phase.first_epoch <= epoch + 1), key=lambda p: p.first_epoch)
