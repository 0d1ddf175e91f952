"""How the network learns: the paper's update rule and the schedules of its learning rate."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

SCHEDULES = ("plateau", "original", "step", "cosine", "constant")


@keras.saving.register_keras_serializable(package="alexnet_tf")
class PaperMomentum(keras.optimizers.Optimizer):
    """v = momentum * v - decay * learning_rate * w - learning_rate * gradient; w = w + v.

    The decay acts on weights and not on biases: on variables of two dimensions or more. It stands inside the
    momentum, unlike `keras.optimizers.SGD(weight_decay=...)`, which shrinks w by itself after the step, biases too:
    another rule, 8e-4 away after 12 steps.

    The update is TensorFlow's fused kernel, which passes once over w, v and the gradient: Keras's own SGD passes
    over them operation by operation and takes several times as long on a CPU, where the 61 million parameters make
    the update a good part of a step.

    Each variable's rate can be multiplied (`set_rate_multipliers`), also in the middle of a run. The multipliers are a
    variable of the optimizer, so they are saved and mirrored with the others. A variable whose multiplier is 0 is
    frozen: its momentum is cleared, and nothing moves it, not even decay.

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
        self.momentums = []
        for variable in variables:
            with tf.device(_device(variable)):
                (momentum,) = self.add_optimizer_variables([variable], "momentum")
            self.momentums.append(momentum)
        self.rate_multipliers = self.add_variable((len(variables),), initializer="ones", name="rate_multipliers")

    def set_rate_multipliers(self, multipliers):
        """Sets by what the learning rate is multiplied.

        Args:
            multipliers: a dict from names to numbers that are not negative. A name is "bias", which stands for all
                biases; a layer's, such as "conv1"; or a layer's kernels or biases, such as "conv1/kernel" or
                "fc8/bias". What several names tell of a variable is multiplied; a variable that none tells of has 1.

        Raises:
            ValueError: where the optimizer is not built yet, or a name fits no variable, or a number is negative.
        """
        if not self.built:
            raise ValueError("The optimizer must be built before `set_rate_multipliers`.")
        values = np.ones(len(self._trainable_variables), "float32")
        for name, multiplier in multipliers.items():
            if not 0 <= multiplier < math.inf:
                raise ValueError(
                    f"A rate's multiplier must be finite and not negative. Received: {name!r}: {multiplier}"
                )
            layer, _, kind = ("", "", "bias") if name == "bias" else name.partition("/")
            found = [
                index
                for index, variable in enumerate(self._trainable_variables)
                if layer in ("", variable.path.split("/")[-2]) and variable.path.split("/")[-1].startswith(kind)
            ]
            if not found:
                names = sorted({variable.path.split("/")[-2] for variable in self._trainable_variables})
                raise ValueError(
                    f'A rate\'s multiplier must be for "bias", a layer that learns ({", ".join(names)}), or its '
                    f'kernels or biases, such as "{names[0]}/kernel". Received: {name!r}'
                )
            values[found] *= multiplier
        self.rate_multipliers.assign(values)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Keras adds up gradients over replicas, on one device, even where there is but one replica: with columns on
        # devices of their own every gradient would travel there and back.
        if tf.distribute.has_strategy():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        learning_rate = tf.convert_to_tensor(learning_rate)  # read once, not once for each variable
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable.value, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        multipliers = self.rate_multipliers.value
        with tf.device(_device(variable)):
            multiplier = tf.cast(multipliers[index], variable.dtype)
            momentum = tf.constant(self.momentum, variable.dtype)
            if self.decay and len(variable.shape) > 1:
                gradient = gradient + self.decay * variable
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                accum=self.momentums[index].value.handle,
                lr=tf.cast(learning_rate, variable.dtype) * multiplier,
                grad=tf.cast(gradient, variable.dtype),
                momentum=tf.where(multiplier > 0, momentum, tf.zeros_like(momentum)),
            )

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum, "decay": self.decay}


def _device(variable):
    """The device of a variable, where its momentum and its update belong too. None under a strategy that mirrors it,
    which sees to that itself."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return None if tf.distribute.has_strategy() else variable.device


def make_learning_rate(schedule, learning_rate, total_steps, warmup_steps=0, steps_per_division=None):
    """The learning rate of a schedule.

    Args:
        schedule: "constant"; "plateau" and "original" begin with the rate itself, which `callbacks.DivideRateOnPlateau`
            or `callbacks.FollowOriginalSchedule` then changes; "cosine" falls to 0 along half a cosine; "step" is
            divided by 10 after every `steps_per_division` steps.
        learning_rate: the highest rate.
        total_steps: steps in the whole run.
        warmup_steps: for "cosine": steps in which the rate first rises from 0.
        steps_per_division: for "step".

    Returns: a float, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: where the schedule does not exist, another than "cosine" is to warm up, or `steps_per_division` is
            missing or belongs to no "step".
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"`schedule` must be one of {SCHEDULES}. Received: schedule={schedule!r}")
    if warmup_steps and schedule != "cosine":
        raise ValueError(f'`warmup_steps` needs schedule="cosine". Received: schedule={schedule!r}')
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
    if schedule == "step":
        return keras.optimizers.schedules.ExponentialDecay(learning_rate, steps_per_division, 0.1, staircase=True)
    return learning_rate


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


def original_phase(epoch):
    """The `OriginalPhase` of an epoch, counted from 0."""
    return max((phase for phase in ORIGINAL_PHASES if phase.first_epoch <= epoch + 1), key=lambda p: p.first_epoch)
