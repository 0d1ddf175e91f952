"""Dense layer whose units are split into columns."""

import math
from typing import Any

import keras
from keras import ops

from alexnet_tf.layers import device_placement
from alexnet_tf.layers.column_layer import ColumnLayer
from alexnet_tf.layers.tensor_types import Shape, Tensor

_FEW_IMAGES = 64  # per step; with 128 the product in bfloat16 and its cast are faster


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ColumnDense(ColumnLayer):
    """Dense layer whose units are split into columns, each connected to every input or to its own column's.

    With `input_columns="all"` it equals `keras.layers.Flatten` followed by `keras.layers.Dense`, but each column has
    its own variables, which `devices` places on separate devices (see `ColumnLayer`).

    Call arguments:
        inputs: float tensor (batch, ..., channels), flattened in the order of its dimensions, or a list of one such
            tensor for each group, which then holds that group's share of the channels.

    Returns: float tensor (batch, units), column after column; with `output_per_group`, a list of one tensor (batch,
        units / groups) for each group.

    Args:
        units: units in all columns together.
        groups: number of columns.
        input_columns: "own": a column is connected to its own share of the input channels; "all": to all of them.
        **kwargs: other arguments of `ColumnLayer` and `keras.layers.Layer`.

    Raises:
        ValueError: if the units or the channels can't be split into columns, or `devices` does not name one for
            each.

    Source: section 3.5 and figure 2: fc6 and fc7, 2048 units in each column.

    Example:

    >>> layer = alexnet_tf.ColumnDense(4096, groups=2)
    >>> layer(np.zeros((1, 6, 6, 8), "float32")).shape
    TensorShape([1, 4096])
    >>> tuple(layer.kernel_1.shape)
    (288, 2048)
    """

    def __init__(self, units: int, groups: int = 2, input_columns: str = "all", **kwargs: Any):
        super().__init__(groups, input_columns, **kwargs)
        self.units = units
        self.column_units = self._per_group("units", units)

    def column_kernel_shape(self, input_shape: Any) -> tuple[int, int]:
        return (math.prod(input_shape[1:]), self.column_units)

    def call_column(self, x: Tensor, kernel: Tensor, *bias: Tensor) -> Tensor:
        product: Tensor = _product(ops.reshape(x, (-1, math.prod(x.shape[1:]))), kernel)
        return product + sum(bias)

    def column_output_shape(self, input_shape: Shape) -> tuple[Any, int]:
        return (input_shape[0], self.column_units)

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units} | super().get_config()


@device_placement.custom_gradient
def _product(x, kernel):
    """Returns x @ kernel.

    The gradient of x is (kernel @ upstream^T)^T, which reads the large kernel in memory order: on a CPU three times as
    fast as upstream @ kernel^T for fc6 and 32 images.
    """

    def gradient(*arguments, upstream=None):
        if upstream is None:
            (upstream,) = arguments
        dtype = _gradient_dtype(x)
        return (
            ops.transpose(ops.matmul(kernel, ops.transpose(upstream))),
            ops.matmul(ops.transpose(ops.cast(x, dtype)), ops.cast(upstream, dtype)),
        )

    return ops.matmul(x, kernel), gradient


def _gradient_dtype(x) -> str:
    """The dtype in which the kernel's gradient is computed.

    In bfloat16 and for few images it is float32, which the update needs: writing the gradient, 75 MB for a column of
    fc6, takes longer than the product, and a cast would read and write it again. JAX and PyTorch require the kernel's
    dtype.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    few = x.shape[0] is not None and x.shape[0] <= _FEW_IMAGES
    return "float32" if dtype == "bfloat16" and few and keras.backend.backend() == "tensorflow" else dtype
