"""What the layers of several columns share: their first weights, and the devices they run on.

Of the layers this file alone speaks to TensorFlow: their mathematics is in keras.ops.
"""

import contextlib

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

    return placed(*tensors)


def check_devices(devices, groups):
    """Raises ValueError unless `devices` is None or names one device for each of `groups` columns."""
    if devices is not None and len(devices) != groups:
        raise ValueError(f"`devices` must name one device for each of the {groups} groups. Received: devices={devices}")


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
