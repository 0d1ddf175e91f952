"""The base class of layers whose weights are split into columns."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from alexnet_tf.layers import device_placement
from alexnet_tf.layers.tensor_types import Shape, Tensor


class ColumnLayer(keras.layers.Layer):
    """Base class of `GroupedConv2D` and `ColumnDense`: kernels and biases in groups, the columns of figure 2.

    Each group has its own variables, the attributes `kernel_1`, `bias_1`, `kernel_2`, ... (`kernel` and `bias` if there
    is only one group), which are also in the lists `kernels` and `biases`. With `devices`, the variables and the
    forward and backward operations of group i are on `devices[i]`.

    A subclass defines `column_kernel_shape`, `call_column` and `column_output_shape`.

    Call arguments:
        inputs: float tensor (batch, ..., channels), or a list of one such tensor for each group, which then holds
            that group's share of the channels.

    Returns: float tensor (batch, ..., channels), group after group along the channels; with `output_per_group`, a list
        of one tensor (batch, ..., channels / groups) for each group.

    Args:
        groups: number of groups.
        input_columns: "own": a group is connected to its own share of the input channels; "all": to all of them.
        output_per_group: whether to return a list of the groups' outputs.
        devices: None, or one TensorFlow device name for each group. Devices belong to the machine, not to the
            model: they are not part of `get_config`, so that a saved model opens on any machine.
        use_bias, kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Raises:
        ValueError: if an argument is invalid, or the input channels can't be split into groups.
    """

    def __init__(
        self,
        groups: int,
        input_columns: str,
        output_per_group: bool = False,
        devices: Sequence[str] | None = None,
        use_bias: bool = True,
        kernel_initializer: str | dict | keras.initializers.Initializer = "glorot_uniform",
        bias_initializer: str | dict | keras.initializers.Initializer = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if input_columns not in ("own", "all"):
            raise ValueError(f'`input_columns` must be "own" or "all". Received: input_columns={input_columns!r}')
        device_placement.device_of_each_group(devices, groups)  # checks their number
        self.groups = groups
        self.input_columns = input_columns
        self.output_per_group = output_per_group
        self.devices = devices
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def column_kernel_shape(self, input_shape: Shape) -> tuple[int, ...]:
        """Returns the shape of one group's kernel; its last dimension is the number of the group's biases.

        Args:
            input_shape: the shape (batch, ..., channels) of the group's inputs.
        """
        raise NotImplementedError

    def call_column(self, x: Tensor, kernel: Tensor, *bias: Tensor) -> Tensor:
        """Returns the output of one group.

        Args:
            x: float tensor (batch, ..., channels), the group's inputs.
            kernel: float tensor of the shape `column_kernel_shape`.
            *bias: float tensor of the kernel's last dimension, or nothing without `use_bias`.
        """
        raise NotImplementedError

    def column_output_shape(self, input_shape: Shape) -> tuple[Any, ...]:
        """Returns the shape of one group's output.

        Args:
            input_shape: (batch, ..., channels); the number of channels is ignored.
        """
        raise NotImplementedError

    def build(self, input_shape: Shape | Sequence[Shape]) -> None:
        """Creates `kernels` and, with `use_bias`, `biases`: one for each group, on its device."""
        shape = self.column_kernel_shape((*_first_shape(input_shape)[:-1], self._column_channels(input_shape)))
        self.kernels, self.biases = [], []
        for group, device in enumerate(device_placement.device_of_each_group(self.devices, self.groups)):
            suffix = "" if self.groups == 1 else f"_{group + 1}"
            with device_placement.device_scope(device):
                initializer = _group_initializer(self.kernel_initializer, self.groups, group)
                self.kernels.append(self.add_weight(name=f"kernel{suffix}", shape=shape, initializer=initializer))
                if self.use_bias:
                    initializer = _group_initializer(self.bias_initializer, self.groups, group)
                    self.biases.append(self.add_weight(name=f"bias{suffix}", shape=shape[-1:], initializer=initializer))
        for variable in self.kernels + self.biases:
            setattr(self, variable.name, variable)  # `tf.train.Checkpoint` finds attributes, but not Keras's lists

    def call(self, inputs: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Applies `call_column` to the inputs and weights of each group, on the group's device."""
        devices = device_placement.device_of_each_group(self.devices, self.groups)
        outputs = []
        for group, (device, parts) in enumerate(zip(devices, self._group_inputs(inputs), strict=True)):
            weights = [self.kernels[group], *(self.biases[group : group + 1])]
            if device is None:
                weights = [device_placement.variable_to_tensor(variable) for variable in weights]
            function = functools.partial(_concatenate_and_call, self.call_column, len(parts))
            outputs.append(device_placement.run_on_device(device, function, *parts, *weights))
        if self.output_per_group:
            return outputs
        return ops.concatenate(outputs, axis=-1) if self.groups > 1 else outputs[0]

    def compute_output_shape(self, input_shape: Shape | Sequence[Shape]) -> Any:
        """Returns the shape of the output, or a list of the groups' shapes with `output_per_group`."""
        *others, channels = self.column_output_shape(_first_shape(input_shape))
        if self.output_per_group:
            return [(*others, channels)] * self.groups
        return (*others, channels * self.groups)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer, without `devices`."""
        return super().get_config() | {
            "groups": self.groups,
            "input_columns": self.input_columns,
            "output_per_group": self.output_per_group,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def quantize(self, mode: str | None = None, **options: Any) -> None:
        """Raises ValueError: `keras.Model.quantize` would skip the layer with a warning."""
        raise ValueError(
            f"{type(self).__name__} can't be quantized in place. Export the network in int8 instead: alexnet-export "
            f"--format=openvino (or onnx, litert) --precision=int8. Received: {self.name}, mode={mode!r}"
        )

    def enable_lora(self, rank: int, **options: Any) -> None:
        """Raises ValueError: kernels in columns have no LoRA."""
        raise ValueError(
            f"{type(self).__name__} has no LoRA. Set `layer.trainable = False` on the layers that are not to be "
            f"fine-tuned instead. Received: {self.name}, rank={rank}"
        )

    def _per_group(self, argument: str, count: int) -> int:
        """Returns each group's share of the filters or units.

        Raises:
            ValueError: if there are none, or they can't be split evenly.
        """
        if self.groups < 1 or count < 1 or count % self.groups:
            raise ValueError(
                f"`{argument}` must be a positive multiple of `groups`. "
                f"Received: {argument}={count}, groups={self.groups} in {self.name}"
            )
        return count // self.groups

    def _column_channels(self, input_shape: Any) -> int:
        """Returns the number of input channels of each group.

        Raises:
            ValueError: if the channels can't be split into groups.
        """
        if isinstance(input_shape[0], list | tuple):
            channels = [shape[-1] for shape in input_shape]
            if len(set(channels)) != 1 or (self.input_columns == "own" and len(channels) != self.groups):
                raise ValueError(
                    f"A list of inputs must hold one tensor for each of the {self.groups} groups, all with the "
                    f"same number of channels. Received: input_shape={input_shape}"
                )
            return channels[0] if self.input_columns == "own" else sum(channels)
        if self.input_columns == "all":
            return input_shape[-1]
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"The input channels must be a multiple of `groups`, {self.groups}. Received: input_shape={input_shape}"
            )
        return input_shape[-1] // self.groups

    def _group_inputs(self, inputs: Any) -> list[Sequence[Tensor]]:
        """Returns each group's input tensors: several if they are still to be concatenated."""
        if not isinstance(inputs, list | tuple):
            own = self.input_columns == "own"
            return [[x] for x in (ops.split(inputs, self.groups, axis=-1) if own else [inputs] * self.groups)]
        if self.input_columns == "own":
            return [[x] for x in inputs]
        # If a column has a device in this layer, too, the gradients of its output are summed there.
        devices = device_placement.device_of_each_group(self.devices, self.groups)
        homes = devices if len(devices) == len(inputs) else [None] * len(inputs)
        copies = [
            device_placement.copies_with_gradient_sum_on(home, x, self.groups)
            for home, x in zip(homes, inputs, strict=True)
        ]
        return list(zip(*copies, strict=True))


def _first_shape(input_shape: Any) -> Shape:
    """Returns the shape, or the first one of a list of shapes."""
    return input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape


def _concatenate_and_call(function: Callable[..., Tensor], count: int, *tensors: Tensor) -> Tensor:
    """Calls the function with the first `count` tensors, concatenated along the channels, and the others."""
    x = ops.concatenate(tensors[:count], axis=-1) if count > 1 else tensors[0]
    return function(x, *tensors[count:])


def _group_initializer(initializer: Any, groups: int, group: int) -> Callable[..., Tensor]:
    """Returns an initializer for one group: its part, along the last axis, of a draw for all groups together.

    Keras's initializers draw the same values at every call: without it all groups would be equal. The weights of all
    groups together do not depend on the number of groups.

    Args:
        initializer: a `keras.initializers.Initializer`.
        groups: number of groups.
        group: index of the group.
    """

    def draw(shape, dtype=None):
        return ops.split(initializer((*shape[:-1], shape[-1] * groups), dtype=dtype), groups, axis=-1)[group]

    return draw
