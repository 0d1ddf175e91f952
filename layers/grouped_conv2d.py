"""Convolution in groups, each of which can live on a device of its own."""

import keras
from keras import ops

from alexnet_tf.layers import columns


@keras.saving.register_keras_serializable(package="alexnet_tf")
class GroupedConv2D(keras.layers.Layer):
    """2-D convolution whose kernels are split into groups: the columns of the paper's figure 2.

    Each group has variables of its own (`kernel_1`, `bias_1`, `kernel_2`, ...). With `devices` they, the forward
    and the backward operations of group i live on `devices[i]`.

    Call arguments:
        inputs: float tensor (batch, rows, columns, channels), or a list of one such tensor for each group, which
            then holds that group's share of the channels.

    Returns: float tensor (batch, new rows, new columns, filters), group after group along the channels; with
    `output_per_group`, a list of one tensor (batch, new rows, new columns, filters / groups) for each group.

    Args:
        filters: kernels in all groups together.
        kernel_size: side of the square kernel, in pixels.
        strides: step of the kernel, in pixels.
        padding: "valid", "same", or explicit zeros as ((top, bottom), (left, right)).
        groups: number of groups.
        sees: "own": a group is connected to its own share of the input channels; "all": to all of them.
        output_per_group: whether to return a list of the groups' outputs.
        devices: None, or one TensorFlow device name for each group. Devices belong to the machine, not to the
            model: they are no part of `get_config`, so that a saved model opens anywhere.
        use_bias, kernel_initializer, bias_initializer: as in `keras.layers.Conv2D`.

    Raises:
        ValueError: where the arguments, or the channels that the layer is built for, do not fit together.

    Source: section 3.2 and figure 2.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        groups=2,
        sees="own",
        output_per_group=False,
        devices=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if groups < 1 or filters < 1 or filters % groups:
            raise ValueError(
                f"`filters` must be a positive multiple of `groups`. Received: filters={filters}, groups={groups}"
            )
        if padding not in ("valid", "same"):
            try:
                (top, bottom), (left, right) = padding
                padding = ((int(top), int(bottom)), (int(left), int(right)))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    '`padding` must be "valid", "same" or ((top, bottom), (left, right)). '
                    f"Received: padding={padding!r}"
                ) from error
        columns.check_arguments(groups, sees, devices)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.groups = groups
        self.sees = sees
        self.output_per_group = output_per_group
        self.devices = devices
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        channels = columns.channels_seen(self, input_shape)
        columns.add_weights(self, (self.kernel_size, self.kernel_size, channels, self.filters // self.groups))

    def call(self, inputs):
        return columns.apply(self, self._convolve, inputs)

    def _convolve(self, x, kernel, *bias):
        padding = self.padding
        if padding not in ("valid", "same"):
            x = ops.pad(x, ((0, 0), *padding, (0, 0)))
            padding = "valid"
        return ops.conv(x, kernel, strides=self.strides, padding=padding, data_format="channels_last") + sum(bias)

    def compute_output_shape(self, input_shape):
        one = input_shape
        if isinstance(input_shape[0], list | tuple):
            one = input_shape[0]
        sides = []
        for axis, side in enumerate(one[1:3]):
            if side is None:
                sides.append(None)
            elif self.padding == "same":
                sides.append(-(-side // self.strides))
            else:
                zeros = 0 if self.padding == "valid" else sum(self.padding[axis])
                sides.append((side + zeros - self.kernel_size) // self.strides + 1)
        if self.output_per_group:
            return [(one[0], *sides, self.filters // self.groups)] * self.groups
        return (one[0], *sides, self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "groups": self.groups,
            "sees": self.sees,
            "output_per_group": self.output_per_group,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
