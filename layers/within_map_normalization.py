"""The original program's second normalization: over the neighborhood of a position in its feature map."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from alexnet_tf.layers.local_response_normalization import divide_by_neighbors
from alexnet_tf.layers.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class WithinMapNormalization(keras.layers.Layer):
    """b = a / (k + alpha / n² * (sum of a² over the n x n positions around it in the same feature map))^beta.

    Positions outside of the map count as zeros.

    Call arguments:
        inputs: float tensor (batch, height, width, channels) of any float dtype.

    Returns: a tensor of the same shape and dtype. The arithmetic is at least float32.

    Args:
        k, n, alpha, beta: hyper-parameters; the defaults are the original program's. n must be odd.

    Raises:
        ValueError: if n is even or below 1.

    Source: not in the paper; the layers `rnorm` of the original program's net 145.

    Example:

    >>> alexnet_tf.WithinMapNormalization()(np.ones((1, 55, 55, 96), "float32")).shape
    TensorShape([1, 55, 55, 96])
    """

    def __init__(self, k: float = 1.0, n: int = 5, alpha: float = 1e-3, beta: float = 0.75, **kwargs: Any):
        super().__init__(**kwargs)
        if n < 1 or n % 2 == 0:
            raise ValueError(f"`n` must be odd and at least 1: a position is the center of its n x n. Received: n={n}")
        self.k = k
        self.n = n
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs: Tensor) -> Tensor:
        margin = self.n // 2

        def mean_neighbors(x, weight, offset=0.0):
            # Padded explicitly: TensorFlow's own padding does not count the zeros in the mean.
            x = ops.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
            mean = ops.average_pool(x, self.n, strides=1, padding="valid", data_format="channels_last")
            return offset + weight * mean

        return divide_by_neighbors(inputs, mean_neighbors, self.k, self.alpha, self.beta)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"k": self.k, "n": self.n, "alpha": self.alpha, "beta": self.beta}
