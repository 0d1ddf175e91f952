"""Convolution whose kernels are split into columns."""

from typing import Any

import keras
from keras import ops

from alexnet_tf.layers.column_layer import ColumnLayer
from alexnet_tf.layers.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class GroupedConv2D(ColumnLayer):
    """2-D convolution whose kernels are split into groups: the columns of the paper's figure 2.

    Each group has its own variables, which `devices` places on separate devices (see `ColumnLayer`).

    Call arguments:
        inputs: float tensor (batch, height, width, channels), or a list of one such tensor for each group, which
            then holds that group's share of the channels.

    Returns: float tensor (batch, new height, new width, filters), group after group along the channels; with
        `output_per_group`, a list of one tensor (batch, new height, new width, filters / groups) for each group.

    Args:
        filters: kernels in all groups together.
        kernel_size: side of the square kernel, in pixels.
        strides: step of the kernel, in pixels.
        padding: "valid", "same", or explicit zeros as ((top, bottom), (left, right)).
        groups: number of groups.
        input_columns: "own": a group is connected to its own share of the input channels; "all": to all of them.
        **kwargs: other arguments of `ColumnLayer` and `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is invalid, or the filters or the channels can't be split into groups.

    Source: section 3.2 and figure 2.

    Example:

    >>> layer = alexnet_tf.GroupedConv2D(256, kernel_size=5, padding="same", groups=2)
    >>> layer(np.zeros((1, 27, 27, 96), "float32")).shape
    TensorShape([1, 27, 27, 256])
    >>> tuple(layer.kernel_1.shape)
    (5, 5, 48, 128)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: Any = "valid",
        groups: int = 2,
        input_columns: str = "own",
        **kwargs: Any,
    ):
        super().__init__(groups, input_columns, **kwargs)
        if padding not in ("valid", "same"):
            try:
                (top, bottom), (left, right) = padding
                padding = ((int(top), int(bottom)), (int(left), int(right)))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    '`padding` must be "valid", "same" or ((top, bottom), (left, right)). '
                    f"Received: padding={padding!r}"
                ) from error
        self.filters = filters
        self.column_filters = self._per_group("filters", filters)
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding: str | tuple[tuple[int, int], tuple[int, int]] = padding

    def column_kernel_shape(self, input_shape: Any) -> tuple[int, int, int, int]:
        return (self.kernel_size, self.kernel_size, input_shape[-1], self.column_filters)

    def call_column(self, x: Tensor, kernel: Tensor, *bias: Tensor) -> Tensor:
        padding = self.padding
        if not isinstance(padding, str):
            x = ops.pad(x, ((0, 0), *padding, (0, 0)))
            padding = "valid"
        return ops.conv(x, kernel, strides=self.strides, padding=padding, data_format="channels_last") + sum(bias)

    def column_output_shape(self, input_shape: Shape) -> tuple[Any, ...]:
        sides = []
        for axis, side in enumerate(input_shape[1:3]):
            if side is None:
                sides.append(None)
            elif self.padding == "same":
                sides.append(-(-side // self.strides))
            else:
                zeros = 0 if isinstance(self.padding, str) else sum(self.padding[axis])
                sides.append((side + zeros - self.kernel_size) // self.strides + 1)
        return (input_shape[0], *sides, self.column_filters)

    def get_config(self) -> dict[str, Any]:
        own = {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }
        return own | super().get_config()
