"""Where a column's arithmetic runs: the one place in the layers that speaks to TensorFlow's devices."""

import contextlib


def device_scope(device):
    """A `tf.device` scope, or a scope without effect where `device` is None."""
    if device is None:
        return contextlib.nullcontext()
    import tensorflow as tf  # the layers' mathematics is in keras.ops: only placement needs TensorFlow

    return tf.device(device)


def run_on_device(device, function, *tensors):
    """Returns `function(*tensors)`, computed on `device`, its backward pass too.

    A `tf.device` scope alone places the forward operations only: the backward ones are made later, outside of
    it. So the gradient is taken here, from a tape of its own, inside a second scope.

    Args:
        device: a TensorFlow device name such as "GPU:1", or None for no placement.
        function: takes and returns tensors, and captures no variables.
        *tensors: its arguments, of any shape and float dtype.
    """
    if device is None:
        return function(*tensors)
    import tensorflow as tf

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
