"""Dense layer whose units are split between columns."""

import keras
from keras import ops

from alexnet_tf.layers import columns


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ColumnDense(keras.layers.Layer):
    """Dense layer whose units are split between columns, each of which is connected to every input.

    The same function as `keras.layers.Dense`; but each column has variables of its own (`kernel_1`, `bias_1`,
    `kernel_2`, ...), which with `devices` live on a device of their own, as do its forward and backward operations.

    Call arguments:
        inputs: float tensor (batch, features).

    Returns: float tensor (batch, units), column after column.

    Args:
        units: units in all columns together.
        groups: number of columns.
        devices: None, or one TensorFlow device name for each column; no part of `get_config`.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Raises:
        ValueError: where the units can't be split into the columns, or the devices are not one for each.

    Source: section 3.5 and figure 2: fc6 and fc7, 2048 units in each column.
    """

    def __init__(
        self,
        units,
        groups=2,
        devices=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if groups < 1 or units < 1 or units % groups:
            raise ValueError(
                f"`units` must be a positive multiple of `groups`. Received: units={units}, groups={groups}"
            )
        columns.check_devices(devices, groups)
        self.units = units
        self.groups = groups
        self.devices = devices
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        shape = (input_shape[-1], self.units // self.groups)
        self.kernels, self.biases = [], []
        for group, device in enumerate(self._devices()):
            with columns.device_scope(device):
                kernel_initializer = columns.part_of(self.kernel_initializer, self.groups, group)
                self.kernels.append(
                    self.add_weight(name=f"kernel_{group + 1}", shape=shape, initializer=kernel_initializer)
                )
                self.biases.append(
                    self.add_weight(name=f"bias_{group + 1}", shape=shape[-1:], initializer=self.bias_initializer)
                )

    def call(self, inputs):
        outputs = []
        for device, kernel, bias in zip(self._devices(), self.kernels, self.biases, strict=True):
            outputs.append(columns.run_on_device(device, _affine, inputs, kernel, bias))
        return ops.concatenate(outputs, axis=-1) if self.groups > 1 else outputs[0]

    def _devices(self):
        return self.devices or [None] * self.groups

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {
            "units": self.units,
            "groups": self.groups,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _affine(x, kernel, bias):
    return ops.matmul(x, kernel) + bias
