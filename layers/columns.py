"""What the layers of several columns share: what each column sees, its weights, and the device it runs on.

Of the layers this file alone speaks to TensorFlow: their mathematics is in keras.ops.
"""

import contextlib
import functools

import keras
from keras import ops


def device_scope(device):
    """A `tf.device` scope, or a scope without effect where `device` is None."""
    if device is None:
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.device(device)


def run_on_device(device, function, *tensors):
    """Returns `function(*tensors)`, computed on `device`, its backward pass too.

    A `tf.device` scope alone places the forward operations only: the backward ones are made later, outside of
    it. So the gradient is taken here, from a tape of its own, inside a second scope.

    Args:
        device: a TensorFlow device name such as "GPU:1", or None for no placement.
        function: takes and returns tensors, and captures no variables.
        *tensors: its arguments, tensors or variables of any shape and float dtype. Variables are read on `device`.
    """
    if device is None:
        return function(*tensors)
    import tensorflow as tf

    with tf.device(device):
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]

    @tf.custom_gradient
    def placed(*arguments):
        with tf.device(device), tf.GradientTape() as tape:
            tape.watch(arguments)
            output = function(*arguments)

        def gradient(output_gradient):
            with tf.device(device):
                return tape.gradient(output, arguments, output_gradients=output_gradient)

        return output, gradient

    with tf.device(device):  # of the identities that a custom gradient puts around its function
        return placed(*tensors)


def read(variable):
    """The tensor that a Keras variable holds: what a function with a gradient of its own takes."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(variable)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)  # Keras's would hand on TensorFlow's variable


def fan_out(device, x, count):
    """Returns `count` tensors equal to x, whose gradients are added up on `device`.

    Without it TensorFlow would add up the gradients that come back from several columns wherever it likes.
    """
    if device is None or count == 1:
        return [x] * count
    import tensorflow as tf

    @tf.custom_gradient
    def copies(tensor):
        def gradient(*gradients):
            with tf.device(device):
                return tf.add_n(gradients)

        return [tf.identity(tensor) for _ in range(count)], gradient

    with tf.device(device):
        return copies(x)


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` whose seeds differ between the replicas of a distribution strategy.

    Its state, which is saved and mirrored, is the same on all. Without a strategy its seeds are Keras's.
    """

    def next(self, ordered=True):
        seed = super().next(ordered)
        if keras.backend.backend() != "tensorflow":
            return seed
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return seed
        return tf.random.fold_in(seed, tf.cast(replica.replica_id_in_sync_group, seed.dtype))


def check_devices_exist(devices):
    """Raises ValueError unless this machine has each of the devices, and they are different ones.

    TensorFlow itself would silently run what is meant for a device that is not there on another.
    """
    import tensorflow as tf

    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    missing = [device for device in devices if device.removeprefix("/device:") not in there]
    if missing or len(set(devices)) != len(devices):
        raise ValueError(
            f"`column_devices` must name different devices of this machine, which has {', '.join(there)}. "
            f"Received: column_devices={','.join(devices)}"
        )


def check_arguments(groups, sees, devices):
    """Raises ValueError unless `sees` is "own" or "all" and `devices` None or one for each of `groups` columns."""
    if sees not in ("own", "all"):
        raise ValueError(f'`sees` must be "own" or "all". Received: sees={sees!r}')
    if devices is not None and len(devices) != groups:
        raise ValueError(f"`devices` must name one device for each of the {groups} groups. Received: devices={devices}")


def devices_of(layer):
    """One device, or None, for each column of a layer."""
    return layer.devices or [None] * layer.groups


def apply(layer, function, inputs):
    """Applies a function to what each column of a layer sees and to its weights, on the column's device.

    Args:
        layer: with `groups`, `sees`, `devices`, `kernels`, `biases` and `output_per_group`.
        function: of (x, kernel) or, where there are biases, (x, kernel, bias).
        inputs: a tensor (batch, ..., channels), or a list of one such tensor for each column below.

    Returns: a tensor (batch, ..., channels), column after column, or with `output_per_group` a list.
    """
    devices = devices_of(layer)
    if not isinstance(inputs, list | tuple):
        seen = ops.split(inputs, layer.groups, axis=-1) if layer.sees == "own" else [inputs] * layer.groups
        seen = [[x] for x in seen]
    elif layer.sees == "own":
        seen = [[x] for x in inputs]
    else:
        # A column's outputs are added up where they were made: on its own device, if it has one in this layer too.
        homes = devices if len(devices) == len(inputs) else [None] * len(inputs)
        copies = [fan_out(home, x, layer.groups) for home, x in zip(homes, inputs, strict=True)]
        seen = list(zip(*copies, strict=True))
    outputs = []
    for group, (device, parts) in enumerate(zip(devices, seen, strict=True)):
        weights = [layer.kernels[group], *(layer.biases[group : group + 1])]
        if device is None:
            weights = [read(variable) for variable in weights]
        merged = functools.partial(_merge_and_apply, function, len(parts))
        outputs.append(run_on_device(device, merged, *parts, *weights))
    if layer.output_per_group:
        return outputs
    return ops.concatenate(outputs, axis=-1) if layer.groups > 1 else outputs[0]


def _merge_and_apply(function, count, *tensors):
    """The function of the first `count` tensors, behind one another along the channels, and of the others."""
    x = ops.concatenate(tensors[:count], axis=-1) if count > 1 else tensors[0]
    return function(x, *tensors[count:])


def channels_seen(layer, input_shape):
    """How many channels each column of a layer sees, of inputs of a shape or a list of shapes.

    Raises:
        ValueError: where the channels can't be split into the columns.
    """
    if isinstance(input_shape[0], list | tuple):
        channels = [shape[-1] for shape in input_shape]
        if len(set(channels)) != 1 or (layer.sees == "own" and len(channels) != layer.groups):
            raise ValueError(
                f"A list of inputs must hold one tensor for each of the {layer.groups} groups, all of the "
                f"same number of channels. Received: input_shape={input_shape}"
            )
        return channels[0] if layer.sees == "own" else sum(channels)
    if layer.sees == "all":
        return input_shape[-1]
    if input_shape[-1] % layer.groups:
        raise ValueError(
            f"The input channels must be a multiple of `groups`, {layer.groups}. Received: input_shape={input_shape}"
        )
    return input_shape[-1] // layer.groups


def add_weights(layer, kernel_shape):
    """Gives a layer its `kernels` and, unless `use_bias` is false, its `biases`: one for each column, on its device.

    They are named `kernel_1`, `bias_1`, `kernel_2` ..., or `kernel` and `bias` where there is one column.

    Args:
        layer: with `groups`, `devices`, `use_bias`, `kernel_initializer` and `bias_initializer`.
        kernel_shape: the shape of one column's kernel; its last dimension is the column's filters or units.
    """
    layer.kernels, layer.biases = [], []
    for group, device in enumerate(devices_of(layer)):
        with device_scope(device):
            for name, weights, shape, initializer in (
                ("kernel", layer.kernels, kernel_shape, layer.kernel_initializer),
                ("bias", layer.biases, kernel_shape[-1:], layer.bias_initializer),
            ):
                if name == "kernel" or layer.use_bias:
                    part = part_of(initializer, layer.groups, group)
                    full_name = name if layer.groups == 1 else f"{name}_{group + 1}"
                    weights.append(layer.add_weight(name=full_name, shape=shape, initializer=part))


def part_of(initializer, groups, group):
    """An initializer of one group's weights: its part, along the last axis, of a draw for all groups together.

    So the groups differ, though Keras's initializers draw the same values at every call; and the weights of all
    groups together do not depend on the number of groups.

    Args:
        initializer: a `keras.initializers.Initializer`.
        groups: number of groups.
        group: the group, from 0.
    """

    def draw(shape, dtype=None):
        return ops.split(initializer((*shape[:-1], shape[-1] * groups), dtype=dtype), groups, axis=-1)[group]

    return draw
