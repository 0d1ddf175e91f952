"""The norms of gradients, for TensorBoard."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from alexnet_tf.layers.device_placement import variable_device


class GradientNorms:
    """The norm of each kernel's gradient, over all replicas and before weight decay, in the last measured step.

    `PaperMomentum` calls it from its update, where gradients are summed over all replicas and not scaled as in half
    precision. Checkpoints don't contain the norms. Make it in the strategy's scope, on all workers, before the first
    step.

    Args:
        variables: the variables that the optimizer was built with.
        always: whether to measure every step, as XLA requires, or only while enabled: the paper's 61 million gradients
            take 16 ms on two cores.
    """

    def __init__(self, variables: Sequence[keras.Variable], always: bool = False):
        self._indices = {variable.path: index for index, variable in enumerate(variables)}
        self._enabled = None if always else tf.Variable(tf.constant(False), trainable=False)
        self._norms: list[tf.Variable | None] = []
        for variable in variables:
            with tf.device(variable_device(variable)):
                norm = tf.Variable(tf.zeros(()), trainable=False) if len(variable.shape) > 1 else None
            self._norms.append(norm)

    def enable(self, enabled: bool) -> None:
        """Measures the next steps or not. It has no effect with `always`."""
        if self._enabled is not None:
            self._enabled.assign(enabled)

    def measure(self, index: int, gradient: tf.Tensor) -> None:
        """Measures the gradient of the variable with this index, if it is a kernel. Called on the variable's device."""
        norm = self._norms[index]
        if norm is None:
            return

        def norm_now():
            return tf.cast(tf.sqrt(2 * tf.nn.l2_loss(gradient)), norm.dtype)

        if self._enabled is None:
            norm.assign(norm_now())
            return
        with tf.device(None):  # where this variable is, not where the weight is
            enabled = tf.identity(self._enabled)
        norm.assign(tf.cond(enabled, norm_now, lambda: tf.identity(norm)))

    def norm(self, kernel: keras.Variable) -> float:
        """The Euclidean norm of a kernel's gradient."""
        return float(keras.ops.convert_to_numpy(self._norms[self._indices[kernel.path]]))

    def weight_norm(self, kernel: keras.Variable) -> float:
        """The Euclidean norm of a kernel now."""
        return float(tf.sqrt(2 * tf.nn.l2_loss(kernel.value)))
