"""The paper's local response normalization."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_tf.layers import device_placement
from alexnet_tf.layers.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class LocalResponseNormalization(keras.layers.Layer):
    """b = a / (k + alpha * (sum of a² over the n neighboring feature maps))^beta, at each position.

    The n neighbors of map i are the maps i - n // 2 ... i + n // 2; the first and last maps have fewer. With `groups`,
    the maps of one group (a column) are not neighbors of another's.

    Call arguments:
        inputs: float tensor (batch, ..., channels) of any float dtype, or a list of one such tensor for each column,
            whose maps are neighbors across the columns.

    Returns: a tensor, or tensors, of the same shape and dtype. The arithmetic is at least float32: a² of a float16
    overflows at 256.

    Args:
        k, n, alpha, beta: the paper's hyper-parameters; its values are the defaults. n must be odd.
        alpha_divided_by_n: whether alpha multiplies the mean over n maps (True), as in the original program and in
            Caffe, instead of the sum (False), as in the paper's formula. The mean makes the same alpha n times weaker.
        groups: number of groups of feature maps.

    Raises:
        ValueError: if n is even or below 1, or the feature maps can't be split into groups.

    Source: section 3.3.

    Example:

    >>> alexnet_tf.LocalResponseNormalization()(np.ones((1, 55, 55, 96), "float32")).shape
    TensorShape([1, 55, 55, 96])
    """

    def __init__(
        self,
        k: float = 2.0,
        n: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        alpha_divided_by_n: bool = False,
        groups: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if n < 1 or n % 2 == 0:
            raise ValueError(f"`n` must be odd and at least 1: a map is the center of its neighbors. Received: n={n}")
        if groups < 1:
            raise ValueError(f"`groups` must be at least 1. Received: groups={groups}")
        self.k = k
        self.n = n
        self.alpha = alpha
        self.beta = beta
        self.alpha_divided_by_n = alpha_divided_by_n
        self.groups = groups

    def build(self, input_shape: Sequence[Any]) -> None:
        is_list = isinstance(input_shape[0], list | tuple)
        maps = sum(shape[-1] for shape in input_shape) if is_list else input_shape[-1]
        if maps % self.groups:
            raise ValueError(
                f"The number of feature maps must be a multiple of `groups`, {self.groups}. Received: {maps} maps"
            )
        index = np.arange(maps // self.groups)
        # Entry (i, j) is 1 if maps i and j of a group are neighbors: a product with the matrix sums over neighbors.
        self._neighbors = (np.abs(index[:, None] - index) <= self.n // 2).astype("float64")

    def call(self, inputs: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(inputs, list | tuple):
            return ops.split(self.call(ops.concatenate(inputs, axis=-1)), len(inputs), axis=-1)
        alpha = self.alpha / self.n if self.alpha_divided_by_n else self.alpha

        def sum_neighbors(x, weight, offset=None):
            # Weight and offset take no extra pass over the maps: the weight is in the matrix, and TensorFlow adds the
            # offset, a vector, as a bias within the product.
            one_group_per_row = ops.reshape(x, (-1, len(self._neighbors)))
            sums = ops.matmul(one_group_per_row, ops.convert_to_tensor(weight * self._neighbors, x.dtype))
            if offset is not None:
                sums = sums + ops.full((len(self._neighbors),), offset, x.dtype)
            return ops.reshape(sums, ops.shape(x))

        return divide_by_neighbors(inputs, sum_neighbors, self.k, alpha, self.beta)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "k": self.k,
            "n": self.n,
            "alpha": self.alpha,
            "beta": self.beta,
            "alpha_divided_by_n": self.alpha_divided_by_n,
            "groups": self.groups,
        }


def divide_by_neighbors(
    inputs: Tensor, sum_neighbors: Callable[..., Tensor], k: float, alpha: float, beta: float
) -> Tensor:
    """Returns a / (k + alpha * sum of a² over the neighbors)^beta.

    Args:
        inputs: a, a tensor of any shape and float dtype. The arithmetic is float64 for float64, otherwise float32.
        sum_neighbors: a function of (x, weight, offset=None) that returns weight times the sums over the neighbors,
            plus the offset, in x's shape. Being neighbors must be symmetric, so that the gradient is the same function
            without offset.
        k, alpha, beta: numbers.

    Returns: a tensor of the shape and dtype of `inputs`.
    """

    at_least_float32 = keras.backend.result_type(inputs.dtype, "float32")
    half_precision = keras.backend.standardize_dtype(inputs.dtype) != at_least_float32

    def powers(x):
        a = ops.cast(x, at_least_float32)
        scale = sum_neighbors(ops.square(a), alpha, offset=k)
        return a, scale, _negative_power(scale, beta)

    # The explicit gradient reuses the forward pass's powers, where the derivative of a general power computes two more.
    # It is twice as fast as TensorFlow's own kernel on a CPU. In half precision the powers are computed again: kept in
    # float32, they take three times the memory of all feature maps.
    @device_placement.custom_gradient
    def normalize(x):
        forward = powers(x)

        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            a, scale, factor = forward
            if half_precision:
                a, scale, factor = powers(device_placement.after(upstream, x))
                upstream = device_placement.after(factor, upstream)  # takes twice the memory after the cast
            direct = ops.cast(upstream, at_least_float32) * factor
            return ops.cast(direct - a * sum_neighbors(direct * a / scale, 2.0 * alpha * beta), inputs.dtype)

        a, _, factor = forward
        return ops.cast(a * factor, inputs.dtype), gradient

    return normalize(inputs)


def _negative_power(x, exponent):
    """Returns x to the power of -exponent. The paper's 0.75 takes only square roots, several times faster."""
    if exponent == 0.75:
        root = ops.rsqrt(x)
        return root * ops.sqrt(root)
    return ops.power(x, -exponent)
