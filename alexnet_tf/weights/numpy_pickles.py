"""Unpickling of dictionaries of NumPy arrays, without running code."""

import pickle
from typing import Any

import numpy as np

from alexnet_tf.weights.restricted_pickle import RestrictedUnpickler


class _Dtype:
    """A dtype while it is unpickled: its byte order comes after its name."""

    def __init__(self, name: str, *_: Any):
        self.value = np.dtype(str(name))


class UnpickledArray:
    """An array while it is unpickled: its shape and numbers come after it."""

    def __init__(self, *_: Any):
        self.values: Any = None


class NumpyUnpickler(RestrictedUnpickler):
    """Unpickles dictionaries of arrays."""

    def __init__(self, file: Any, file_bytes: int):
        super().__init__(
            file,
            {
                ("numpy", "ndarray"): "ndarray",
                ("numpy", "dtype"): _Dtype,
                ("_codecs", "encode"): self._encode,
                **{(f"numpy.{core}.multiarray", "_reconstruct"): UnpickledArray for core in ("core", "_core")},
            },
        )
        self._bytes_left = file_bytes

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """How pickles of old protocols hold bytes."""
        self._bytes_left -= len(text)
        if encoding != "latin1" or self._bytes_left < 0:  # one text could be encoded many times
            raise pickle.UnpicklingError("its arrays are larger than the file")
        return text.encode("latin1")

    def build(self, value: Any, state: Any) -> None:
        if isinstance(value, _Dtype):
            value.value = value.value.newbyteorder(state[1])
            return
        if not isinstance(value, UnpickledArray):
            super().build(value, state)
            return
        shape, dtype, is_fortran, content = state[-4:]
        if dtype.value.hasobject:
            (value.values,) = content  # the dictionary itself, in an array of no dimension
            return
        content = content.encode("latin1") if isinstance(content, str) else content  # written by Python 2
        value.values = np.frombuffer(content, dtype.value).reshape(shape, order="F" if is_fortran else "C")


def number_array(array: Any) -> np.ndarray:
    """Returns the array of numbers that was unpickled. Raises ValueError if it is anything else."""
    if (
        not isinstance(array, UnpickledArray)
        or not isinstance(array.values, np.ndarray)
        or array.values.dtype.kind not in "fiu"
    ):
        raise ValueError("a layer must consist of arrays of numbers")
    return array.values
