"""Tells whether bfloat16 is fast on a machine, and converts networks between precisions.

bfloat16 is float32 with 8 bits of mantissa instead of 24: half the bytes, and at least twice the speed on processors
and GPUs with units for it. A CPU without such units takes 25 times as long as in float32.
"""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import keras
from absl import logging

from alexnet_tf.layers import ColumnWise
from alexnet_tf.networks import structure

_UNITS = ("amx_bf16", "avx512_bf16", "bf16")  # their names in /proc/cpuinfo on x86 and ARM
_MIN_SPEEDUP = 1.2  # of a matrix product; less does not pay for the conversions between the types
_FIRST_CAPABILITY = (8, 0)  # NVIDIA GPUs have bfloat16 from this compute capability on


def read_cpuinfo() -> str:
    """Reads the description of the processor; "" if the system has none."""
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def bfloat16_units(cpuinfo: str) -> list[str]:
    """Finds the names of the processor's units for bfloat16 in the text from `read_cpuinfo`."""
    return [name for name in _UNITS if name in cpuinfo.split()]


def product_rates(side: int = 1024) -> dict[str, float]:
    """Measures TensorFlow's matrix product on the CPU: GFLOP/s in "float32" and "bfloat16", the best of ten runs."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        matrices = {dtype: tf.ones((side, side), dtype) for dtype in ("float32", "bfloat16")}
        seconds = {dtype: [] for dtype in matrices}
        for _ in range(11):  # the first is slower; in turn, because other processes come and go
            for dtype, matrix in matrices.items():
                begin = time.perf_counter()
                tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
                seconds[dtype].append(time.perf_counter() - begin)
    return {dtype: 2 * side**3 / 1e9 / min(each[1:]) for dtype, each in seconds.items()}


def gpu_capabilities() -> list[tuple[int, int] | None]:
    """Returns the compute capability of each GPU that TensorFlow sees, such as (9, 0); None if it reports none."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]


def is_bfloat16_fast(cpuinfo: str, capabilities: Sequence[tuple[int, int] | None]) -> tuple[bool, str]:
    """Tells whether a machine computes faster in bfloat16 than in float32, and why. Its GPUs decide if it has any.

    Not every build of TensorFlow uses the units of a processor. If it has them, a product is timed in both types, which
    takes some tenths of a second.

    Args:
        cpuinfo: from `read_cpuinfo`.
        capabilities: from `gpu_capabilities`.

    Returns: (whether it is faster, a clause with the reason).
    """
    if capabilities:
        fast = all(capability is not None and capability >= _FIRST_CAPABILITY for capability in capabilities)
        versions = {"unknown" if c is None else f"{c[0]}.{c[1]}" for c in capabilities}
        needed = "which has bfloat16" if fast else "and bfloat16 needs 8.0"
        return fast, f"the GPU has compute capability {', '.join(sorted(versions))}, {needed}"
    units = bfloat16_units(cpuinfo)
    if not units:
        return False, f"the processor has none of {', '.join(_UNITS[:2])}"
    measured = product_rates()
    fast = measured["bfloat16"] > _MIN_SPEEDUP * measured["float32"]
    return fast, (
        f"the processor has {', '.join(units)}; a matrix product runs at {measured['bfloat16']:,.0f} GFLOP/s in "
        f"bfloat16, {measured['float32']:,.0f} in float32"
    )


@functools.cache
def _on_this_machine() -> tuple[bool, str]:
    return is_bfloat16_fast(read_cpuinfo(), gpu_capabilities())


def choose(precision: str) -> str:
    """Returns the dtype policy for a value of --precision, and prints the reason.

    Args:
        precision: "auto", or the name of a Keras dtype policy.

    Returns: for "auto", "mixed_bfloat16" where it is faster, otherwise "float32".
    """
    if precision not in ("auto", "mixed_bfloat16"):
        return precision
    fast, reason = _on_this_machine()
    if precision == "auto":
        precision = "mixed_bfloat16" if fast else "float32"
        print(f"Precision {precision}: {reason}.")
    elif not fast:
        print(f"Precision {precision} will be slow here: {reason}.")
    return precision


@contextlib.contextmanager
def policy_scope(dtype: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Makes a dtype policy Keras's default for the layers that are made in the scope; None keeps the default.

    It warns of float16 without a GPU.

    Raises:
        ValueError: if Keras has no such dtype policy.
    """
    before = keras.config.dtype_policy()
    if dtype is not None:
        keras.config.set_dtype_policy(dtype)
    try:
        policy = keras.config.dtype_policy()
        if policy.compute_dtype == "float16" and keras.backend.backend() == "tensorflow" and not gpu_capabilities():
            logging.warning(
                "%s is slow without a GPU. Use float32, or mixed_bfloat16 with bfloat16 units.", policy.name
            )
        yield
    finally:
        keras.config.set_dtype_policy(before)


def computed_where_fast(model: keras.Model) -> keras.Model:
    """Returns the model, or its copy in float32 if it computes in bfloat16 and this machine is slow in it."""
    if any(layer.compute_dtype == "bfloat16" for layer in model.layers) and not _on_this_machine()[0]:
        return in_float32(model)
    return model


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a copy of the model that computes in float32, or the model itself if it already does."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    return _rebuild(model, lambda layer: "float32")


def stored_in_bfloat16(model: keras.Model) -> keras.Model:
    """Returns a copy of the model for serving, with kernels and biases in bfloat16: half the bytes of float32.

    It computes in bfloat16. As in training, the classifier and the softmax compute in float32: with 8 bits, many
    probabilities would be equal. The mean image and the normalizations stay in float32, too.
    """
    classifier, *above = structure.class_layers(model)

    def policy(layer):
        if layer.name in above:
            return "float32"
        if layer.name == classifier:
            return _StoredInBfloat16("float32")
        return "bfloat16" if structure.has_kernel(layer) else "mixed_bfloat16"

    return _rebuild(model, policy)


class _StoredInBfloat16(keras.DTypePolicy):
    """Computes in the dtype of its name, with variables in bfloat16."""

    @property
    def variable_dtype(self) -> str:
        return "bfloat16"


def _rebuild(model, policy: Callable[[keras.layers.Layer], str | keras.DTypePolicy]) -> keras.Model:
    """Returns the same network and weights, with another dtype policy for each layer."""

    def clone(layer):
        if not isinstance(layer, keras.layers.Layer):  # an operation, such as the cast of a nested model's input
            return layer
        config = layer.get_config() | {"dtype": policy(layer)}
        if isinstance(layer, ColumnWise):
            config["layer"]["config"]["dtype"] = policy(layer)
        return type(layer).from_config(config)

    rebuilt = keras.models.clone_model(model, clone_function=clone)
    rebuilt.set_weights(model.get_weights())
    return rebuilt
