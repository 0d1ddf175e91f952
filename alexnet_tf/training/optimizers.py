"""The paper's update rule, and LARS for large batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from alexnet_tf.layers import device_placement

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":  # other backends use keras.ops
    import tensorflow as tf
if TYPE_CHECKING:
    from alexnet_tf.training.gradient_norms import GradientNorms

REDUCE_DTYPES = ("float32", "float16", "bfloat16")


@keras.saving.register_keras_serializable(package="alexnet_tf")
class PaperMomentum(keras.optimizers.Optimizer):
    """v = momentum * v - weight_decay * learning_rate * w - learning_rate * gradient; w = w + v.

    The decay applies to variables of two dimensions or more, so not to biases, unless `decay_biases`. It is part of the
    momentum, unlike in `keras.optimizers.SGD(weight_decay=...)`, which shrinks w (biases too) separately after the
    step. (`exclude_from_weight_decay` excludes further variables.)

    On TensorFlow the update is a fused kernel, which passes once over w, v and the gradient. Keras's SGD passes over
    them once per operation, which takes several times as long on a CPU. On JAX and PyTorch the rule is in `keras.ops`.

    Each variable's rate can be multiplied (`set_rate_multipliers`), also during a run. The multipliers are a variable
    of the optimizer, so they are saved and mirrored. A multiplier of 0 freezes a variable: its momentum is cleared, and
    it does not decay.

    Args:
        learning_rate: a float, or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1).
        weight_decay: not negative.
        decay_biases: whether the decay also applies to biases and other variables of one dimension.
        layer_decays: factors of the decay of layers, by name; 1 for the others.
        reduce_dtype: type in which the replicas' gradients are summed: "float32", or "float16" or "bfloat16", which
            halve the communication. The update is in float32. Only for TensorFlow's strategies.

    Attributes:
        gradient_norms: the `GradientNorms` that measures the gradients, or None. Only on TensorFlow.

    Raises:
        ValueError: if `momentum` is outside [0, 1), `weight_decay` is negative, or `reduce_dtype` is unknown.

    Source: section 5.

    Example:

    >>> model = alexnet_tf.build_alexnet("testing", 10)
    >>> model.compile(alexnet_tf.PaperMomentum(learning_rate=0.01), "sparse_categorical_crossentropy")
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        weight_decay: float | None = 0.0005,
        reduce_dtype: str = "float32",
        name: str = "paper_momentum",
        *,
        decay_biases: bool = False,
        layer_decays: Mapping[str, float] | None = None,
        **kwargs,
    ):
        weight_decay = weight_decay or 0.0
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        if weight_decay < 0:
            raise ValueError(f"`weight_decay` must not be negative. Received: weight_decay={weight_decay}")
        if reduce_dtype not in REDUCE_DTYPES:
            raise ValueError(f"`reduce_dtype` must be one of {REDUCE_DTYPES}. Received: reduce_dtype={reduce_dtype!r}")
        self.momentum = momentum
        self.reduce_dtype = reduce_dtype
        self.decay_biases = decay_biases
        self.layer_decays = dict(layer_decays or {})
        self.gradient_norms: GradientNorms | None = None

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = []
        for variable in variables:
            with device_placement.device_scope(device_placement.variable_device(variable)):
                (momentum,) = self.add_optimizer_variables([variable], "momentum")
            self.momentums.append(momentum)
        layers = [variable.path.split("/")[-2:][0] for variable in variables]
        if unknown := self.layer_decays.keys() - set(layers):
            raise ValueError(f"`layer_decays` must name trainable layers. Received: {', '.join(sorted(unknown))}")
        self._decays = [
            self.layer_decays.get(layer, 1.0)
            if (len(variable.shape) > 1 or self.decay_biases) and self._use_weight_decay(variable)
            else 0.0
            for layer, variable in zip(layers, variables, strict=True)
        ]
        self.rate_multipliers = self.add_variable((len(variables),), initializer="ones", name="rate_multipliers")

    def set_rate_multipliers(self, multipliers: Mapping[str, float]) -> None:
        """Sets the learning rate multiplier of each variable.

        Args:
            multipliers: from names to numbers that are not negative. A name is "bias" (all biases); a layer, such as
                "conv1"; or the kernels or biases of a layer, such as "conv1/kernel" or "fc8/bias". If several names
                match a variable, their numbers are multiplied. The default is 1.

        Raises:
            ValueError: if the optimizer is not built, a name matches no variable, or a number is negative.
        """
        if not self.built:
            raise ValueError("The optimizer must be built before `set_rate_multipliers`.")
        values = np.ones(len(self._trainable_variables), "float32")
        for name, multiplier in multipliers.items():
            if not 0 <= multiplier < math.inf:
                raise ValueError(
                    f"A learning rate multiplier must be finite and not negative. Received: {name!r}: {multiplier}"
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
                    f'A learning rate multiplier must be for "bias", a trainable layer ({", ".join(names)}), or its '
                    f'kernels or biases, such as "{names[0]}/kernel". Received: {name!r}'
                )
            values[found] *= multiplier
        self.rate_multipliers.assign(values)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if keras.backend.backend() != "tensorflow":
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        # Keras sums gradients over replicas on one device, even if there is only one replica: with columns on devices
        # of their own, every gradient would travel there and back.
        if tf.distribute.has_strategy():
            if self.reduce_dtype != "float32":
                grads = [tf.cast(gradient, self.reduce_dtype) for gradient in grads]
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        learning_rate = tf.convert_to_tensor(learning_rate)  # read once instead of once per variable
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable.value, learning_rate)

    def _apply_weight_decay(self, variables):
        pass  # `update_step` does this

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() == "tensorflow":
            self._update_by_fused_kernels(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        multiplier = ops.cast(self.rate_multipliers.value[index], variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype) * multiplier * self.local_rate(gradient, variable)
        if decay := self.weight_decay * self._decays[index]:
            gradient = gradient + decay * ops.convert_to_tensor(variable)
        momentum = self.momentum * ops.cast(multiplier > 0, variable.dtype)
        accumulated = momentum * ops.convert_to_tensor(self.momentums[index]) - rate * gradient
        self.assign(self.momentums[index], accumulated)
        self.assign_add(variable, accumulated)

    def _update_by_fused_kernels(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        multipliers = self.rate_multipliers.value
        with tf.device(device_placement.variable_device(variable)):
            gradient = tf.cast(gradient, variable.dtype)
            multiplier = tf.cast(multipliers[index], variable.dtype)
            momentum = tf.constant(self.momentum, variable.dtype)
            local_rate = self.local_rate(gradient, variable)
            if self.gradient_norms is not None:
                self.gradient_norms.measure(index, gradient)
            rate = tf.cast(learning_rate, variable.dtype) * multiplier * local_rate
            accumulated = self.momentums[index].value.handle
            if decay := self.weight_decay * self._decays[index]:
                if self.momentum:
                    # momentum * (v - rate * decay / momentum * w) is the decayed v, computed in place. gradient + decay
                    # * w would take two passes and two temporary copies of the weights.
                    tf.raw_ops.ResourceApplyGradientDescent(
                        var=accumulated, alpha=rate * (decay / self.momentum), delta=variable
                    )
                else:
                    gradient = gradient + decay * variable
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                accum=accumulated,
                lr=rate,
                grad=gradient,
                momentum=tf.where(multiplier > 0, momentum, tf.zeros_like(momentum)),
            )

    def local_rate(self, gradient, variable):
        """Returns an additional learning rate factor for a variable: 1 unless a subclass overrides this."""
        return ops.ones((), variable.dtype)

    def get_config(self):
        names = ("momentum", "reduce_dtype", "decay_biases", "layer_decays")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="alexnet_tf")
class Lars(PaperMomentum):
    """`PaperMomentum` with layer-wise adaptive rate scaling (LARS).

    v = momentum * v - learning_rate * local * (gradient + weight_decay * w); w = w + v, with
    local = trust * |w| / (|gradient| + weight_decay * |w|), where | | is the square root of the sum of squares.

    Args:
        learning_rate, momentum, weight_decay, reduce_dtype: as in `PaperMomentum`.
        trust: the trust coefficient.
        scale_biases: whether biases have a local rate too.
        decay_biases: as in `PaperMomentum`.

    Raises:
        ValueError: as `PaperMomentum`, and if `trust` is not above 0.

    Source: You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017, algorithm 1.
    Deviation: without `scale_biases`, biases and the scales of batch normalization have a local rate of 1. If a layer's
    columns have kernels of their own, LARS treats each as a layer.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1.0,
        momentum: float = 0.9,
        weight_decay: float | None = 0.0005,
        trust: float = 0.001,
        name: str = "lars",
        *,
        scale_biases: bool = False,
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, weight_decay, name=name, **kwargs)
        if trust <= 0:
            raise ValueError(f"`trust` must be above 0. Received: trust={trust}")
        self.trust = trust
        self.scale_biases = scale_biases

    def local_rate(self, gradient, variable):
        one = ops.ones((), variable.dtype)
        if len(variable.shape) < 2 and not self.scale_biases:
            return one
        gradient_norm, weight_norm = self._norms(gradient, variable)
        decay = self.weight_decay * self._decays[self._get_variable_index(variable)]
        local = self.trust * weight_norm / (gradient_norm + decay * weight_norm)
        # Weights of 0 would stay 0; without decay, a gradient of 0 would be divided by.
        return ops.where(ops.logical_and(weight_norm > 0, gradient_norm > 0), local, one)

    def _norms(self, *tensors):
        return [ops.sqrt(ops.sum(ops.square(x))) for x in tensors]

    def get_config(self):
        return super().get_config() | {"trust": self.trust, "scale_biases": self.scale_biases}


@keras.saving.register_keras_serializable(package="alexnet_tf")
class AgreedLossScale(keras.optimizers.LossScaleOptimizer):
    """A `keras.optimizers.LossScaleOptimizer` that skips a step on all replicas or on none. Only on TensorFlow.

    Keras's own decides on each worker by that worker's gradients. If only one worker's gradients overflow, it skips the
    step while the others wait for it forever.
    """

    def check_finite(self, grads):
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        overflows = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(finite), tf.float32))
        return tf.equal(overflows, 0.0)
