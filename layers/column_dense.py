"""Dense layer whose units are split between columns."""

import math

import keras
from keras import ops

from alexnet_tf.layers import columns


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ColumnDense(keras.layers.Layer):
    """Dense layer whose units are split between columns, each of which sees every input or those of its own column.

    With `sees="all"` the same function as `keras.layers.Flatten` and `keras.layers.Dense`; but each column has
    variables of its own (`kernel_1`, `bias_1`, `kernel_2`, ...), which with `devices` live on a device of their own,
    as do its forward and backward operations.

    Call arguments:
        inputs: float tensor (batch, ..., channels), flattened in the order of its dimensions, or a list of one such
            tensor for each group, which then holds that group's share of the channels.

    Returns: float tensor (batch, units), column after column; with `output_per_group`, a list of one tensor (batch,
        units / groups) for each group.

    Args:
        units: units in all columns together.
        groups: number of columns.
        sees: "own": a column is connected to its own share of the input channels; "all": to all of them.
        output_per_group: whether to return a list of the groups' outputs.
        devices: None, or one TensorFlow device name for each column; no part of `get_config`.
        use_bias, kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Raises:
        ValueError: where the units or the channels can't be split into the columns, or the devices are not one
            for each.

    Source: section 3.5 and figure 2: fc6 and fc7, 2048 units in each column.
    """

    def __init__(
        self,
        units,
        groups=2,
        sees="all",
        output_per_group=False,
        devices=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if groups < 1 or units < 1 or units % groups:
            raise ValueError(
                f"`units` must be a positive multiple of `groups`. Received: units={units}, groups={groups}"
            )
        columns.check_arguments(groups, sees, devices)
        self.units = units
        self.groups = groups
        self.sees = sees
        self.output_per_group = output_per_group
        self.devices = devices
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        one = input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape
        features = math.prod(one[1:-1]) * columns.channels_seen(self, input_shape)
        columns.add_weights(self, (features, self.units // self.groups))

    def call(self, inputs):
        return columns.apply(self, _flatten_and_affine, inputs)

    def compute_output_shape(self, input_shape):
        one = input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape
        if self.output_per_group:
            return [(one[0], self.units // self.groups)] * self.groups
        return (one[0], self.units)

    def get_config(self):
        return super().get_config() | {
            "units": self.units,
            "groups": self.groups,
            "sees": self.sees,
            "output_per_group": self.output_per_group,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _flatten_and_affine(x, kernel, *bias):
    return _product(ops.reshape(x, (-1, math.prod(x.shape[1:]))), kernel) + sum(bias)


@ops.custom_gradient
def _product(x, kernel):
    """x @ kernel, with x's gradient as (kernel @ upstream^T)^T: the large kernel is then read in the order in which it
    lies in memory. On a CPU that was measured three times as fast as upstream @ kernel^T for fc6 and 32 images."""

    def gradient(*arguments, upstream=None):
        if upstream is None:
            (upstream,) = arguments
        return (
            ops.transpose(ops.matmul(kernel, ops.transpose(upstream))),
            ops.matmul(ops.transpose(x), upstream),
        )

    return ops.matmul(x, kernel), gradient
