"""Device placement of the columns' operations and their gradients, and other helpers that need TensorFlow.

Only this file and unit_parallel_dense.py call TensorFlow. The other layers compute with keras.ops, on all of Keras's
backends.
"""

import contextlib
import functools
import weakref
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


def custom_gradient(function: Callable[..., tuple[Any, Callable]]) -> Callable[..., Any]:
    """`keras.ops.custom_gradient` that leaves no graph in memory.

    TensorFlow keeps the gradient function of each traced call forever, and with it the graph and the weights that the
    graph captured. Here the graph keeps it, and TensorFlow has only a weak reference.
    """
    call = ops.custom_gradient(function)
    if keras.backend.backend() != "tensorflow":
        return call

    @functools.wraps(function)
    def call_and_release(*tensors):
        import tensorflow as tf
        from tensorflow.python.framework.ops import gradient_registry

        output = call(*tensors)
        first = output[0] if isinstance(output, list | tuple) else output
        if tf.is_symbolic_tensor(first):
            entry = gradient_registry._registry[first.op.get_attr("_gradient_op_type").decode()]
            gradient = entry["type"]
            first.graph._kept_gradients = [*getattr(first.graph, "_kept_gradients", []), gradient]
            reference = weakref.ref(gradient)
            entry["type"] = lambda *arguments: reference()(*arguments)  # pyright: ignore[reportOptionalCall]
        return output

    return call_and_release


def run_on_device(device: str | None, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Returns `function(*tensors)`, computed on `device`, its gradients too.

    A `tf.device` scope places only the forward operations: the backward operations are created later, outside of the
    scope. Here the gradient is computed from a separate tape, inside a second scope.

    Args:
        device: a TensorFlow device name such as "GPU:1", or None for no placement.
        function: a function from tensors to a tensor that captures no variables.
        *tensors: its arguments, tensors or variables of any shape and float dtype. Variables are read on `device`.
    """
    if device is None:
        return function(*tensors)
    import tensorflow as tf

    with tf.device(device):
        arguments = [tf.convert_to_tensor(tensor) for tensor in tensors]

    @custom_gradient
    def placed(*arguments):
        with tf.device(device), tf.GradientTape() as tape:
            tape.watch(arguments)
            output = function(*arguments)

        def gradient(output_gradient):
            with tf.device(device):
                return tape.gradient(output, arguments, output_gradients=output_gradient)

        return output, gradient

    with tf.device(device):  # for the identities that a custom gradient puts around its function
        return placed(*arguments)


def copies_with_gradient_sum_on(device: str | None, x: Tensor, count: int) -> list[Tensor]:
    """Returns `count` tensors equal to x whose gradients are summed on `device`.

    Otherwise TensorFlow chooses a device for the sum of the gradients from several columns.
    """
    if device is None or count == 1:
        return [x] * count
    import tensorflow as tf

    @custom_gradient
    def copies(tensor):
        def gradient(*gradients):
            with tf.device(device):
                return tf.add_n(gradients)

        return [tf.identity(tensor) for _ in range(count)], gradient

    with tf.device(device):
        return copies(x)  # pyright: ignore[reportReturnType]


def after(first: Tensor, x: Tensor) -> Tensor:
    """Returns x, but computed after `first`.

    A backward pass can thereby repeat a computation of the forward pass: without the dependency TensorFlow merges two
    equal computations and keeps the result in memory.
    """
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    with tf.control_dependencies([first]):
        return tf.identity(x)


def variable_to_tensor(variable: keras.Variable) -> Tensor:
    """Returns the value of a Keras variable as a tensor, which functions with a custom gradient require."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(variable)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)  # `ops.convert_to_tensor` returns a `tf.Variable`


def device_of_each_group(devices: Sequence[str] | None, groups: int) -> Sequence[str | None]:
    """Returns the devices, or None for each group if there are none.

    Raises:
        ValueError: if `devices` does not name one device for each group.
    """
    if devices is None:
        return [None] * groups
    if len(devices) != groups:
        raise ValueError(f"`devices` must name one device for each of the {groups} groups. Received: devices={devices}")
    return devices


def check_devices_exist(devices: Sequence[str]) -> None:
    """Checks that the machine has each of the devices. TensorFlow would silently use another instead.

    Raises:
        ValueError: if a device is missing or named twice.
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
    """Returns the device of a variable, where its momentum and its update belong, too.

    It is None under a distribution strategy and on backends other than TensorFlow, which choose the device.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return None if tf.distribute.has_strategy() else variable.device


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` whose seeds differ between the replicas of a distribution strategy.

    Its state is saved, mirrored and equal on all replicas. Without a strategy its seeds are Keras's.
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
