"""The learning rate over a run: the paper's, the original program's, and later ones."""

import keras

from alexnet_tf.training.config import TrainConfig


def make_learning_rate(
    config: TrainConfig, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each step, or the first one, which `callbacks` change, if the schedule is by epoch."""
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
