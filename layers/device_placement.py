"""Where the operations of a layer, and their gradients, run: a column's on its own device, a replica's on its replica.

Of the layers' files this one and unit_parallel_dense.py alone call TensorFlow: the others compute with keras.ops, on
each of Keras's backends.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from alexnet_tf.layers.tensor_types import Tensor


def device_scope(device: str | None) -> contextlib.AbstractContextManager:
    """Returns a `tf.device` scope, or a scope without effect if `device` is None."""
    if device is None:
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.device(device)


def run_on_device(device: str | None, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Returns `function(*tensors)`, computed on `device`, its gradients too.

    A `tf.device` scope alone places the forward operations only: the backward ones are created later, outside of
    it. So the gradient is computed here, from a tape of its own, inside a second scope.

    Args:
        device: a TensorFlow device name such as "GPU:1", or None for no placement.
        function: takes and returns tensors, and captures no variables.
        *tensors: its arguments, tensors or variables of any shape and float dtype. Variables are read on `device`.
    """
    if device is None:
        return function(*tensors)
    import tensorflow as tf

    with tf.device(device):
        arguments = [tf.convert_to_tensor(tensor) for tensor in tensors]

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
        return placed(*arguments)


def copies_with_gradient_sum_on(device: str | None, x: Tensor, count: int) -> list[Tensor]:
    """Returns `count` tensors equal to x, whose gradients are summed on `device`.

    Without it TensorFlow would sum the gradients that come back from several columns on a device of its choice.
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
        return copies(x)  # pyright: ignore[reportReturnType]


def after(first: Tensor, x: Tensor) -> Tensor:
    """Returns x, and lets what is computed from it wait for `first`: a backward pass can then compute again what the
    forward pass does not keep. (TensorFlow would merge two equal computations, and keep the result.)"""
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    with tf.control_dependencies([first]):
        return tf.identity(x)


def variable_to_tensor(variable: keras.Variable) -> Tensor:
    """Returns the value of a Keras variable as a tensor, as functions with a custom gradient require."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(variable)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)  # Keras's would return TensorFlow's variable


def device_of_each_group(devices: Sequence[str] | None, groups: int) -> Sequence[str | None]:
    """Returns the devices, or None for each group if there are none.

    Raises:
        ValueError: if `devices` does not hold one device for each group.
    """
    if devices is None:
        return [None] * groups
    if len(devices) != groups:
        raise ValueError(f"`devices` must name one device for each of the {groups} groups. Received: devices={devices}")
    return devices


def check_devices_exist(devices: Sequence[str]) -> None:
    """Checks that this machine has each of the devices: TensorFlow would silently run on another instead.

    Raises:
        ValueError: if it does not, or if a device is named twice.
    """
    import tensorflow as tf

    available = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    missing = [device for device in devices if device.removeprefix("/device:") not in available]
    if missing or len(set(devices)) != len(devices):
        raise ValueError(
            f"`column_devices` must name different devices of this machine, which has {', '.join(available)}. "
            f"Received: column_devices={','.join(devices)}"
        )


def variable_device(variable: Any) -> str | None:
    """The device of a variable, where its momentum and its update belong too.

    None under a strategy that mirrors it, or a backend other than TensorFlow, which place them by themselves.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return None if tf.distribute.has_strategy() else variable.device


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` whose seeds differ between the replicas of a distribution strategy.

    Its state, which is saved and mirrored, is the same on all. Without a strategy its seeds are Keras's.
    """

    def next(self, ordered: bool = True) -> Tensor:
        """Returns the next seed of this replica, an integer tensor (2,)."""
        seed = super().next(ordered)
        if keras.backend.backend() != "tensorflow":
            return seed
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return seed
        return tf.random.fold_in(seed, tf.cast(replica.replica_id_in_sync_group, seed.dtype))
