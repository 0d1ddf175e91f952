"""How the network learns: the paper's update rule and the schedules of its learning rate."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="alexnet_tf")
class PaperMomentum(keras.optimizers.Optimizer):
    """v = momentum * v - decay * learning_rate * w - learning_rate * gradient; w = w + v.

    The decay acts on weights and not on biases: on variables of two dimensions or more. It stands inside the
    momentum, unlike `keras.optimizers.SGD(weight_decay=...)`, which shrinks w by itself after the step, biases too:
    another rule, 8e-4 away after 12 steps.

    The update is TensorFlow's fused kernel, which passes once over w, v and the gradient: Keras's own SGD passes
    over them operation by operation and takes several times as long on a CPU, where the 61 million parameters make
    the update a good part of a step.

    Args:
        learning_rate: a float, or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1).
        decay: the paper's weight decay.

    Raises:
        ValueError: where `momentum` is outside [0, 1) or `decay` is negative.

    Source: section 5.
    """

    def __init__(self, learning_rate=0.01, momentum=0.9, decay=0.0005, name="paper_momentum", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        if decay < 0:
            raise ValueError(f"`decay` must not be negative. Received: decay={decay}")
        self.momentum = momentum
        self.decay = decay

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.momentums[self._get_variable_index(variable)].value
        if self.decay and len(variable.shape) > 1:
            gradient = gradient + self.decay * variable
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum, "decay": self.decay}


def make_learning_rate(schedule, learning_rate, total_steps, warmup_steps=0):
    """The learning rate of a schedule.

    Args:
        schedule: "plateau" and "constant" begin with the rate itself (`callbacks.DivideRateOnPlateau` then divides
            it); "cosine" falls to 0 along half a cosine.
        learning_rate: the highest rate.
        total_steps: steps in the whole run.
        warmup_steps: for "cosine": steps in which the rate first rises from 0.

    Returns: a float, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: where the schedule does not exist, or another than "cosine" is to warm up.
    """
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else learning_rate,
            decay_steps=max(1, total_steps - warmup_steps),
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if schedule not in ("plateau", "constant"):
        raise ValueError(f'`schedule` must be "plateau", "constant" or "cosine". Received: schedule={schedule!r}')
    if warmup_steps:
        raise ValueError(f'`warmup_steps` needs schedule="cosine". Received: schedule={schedule!r}')
    return learning_rate
