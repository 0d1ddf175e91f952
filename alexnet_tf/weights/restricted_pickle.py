"""Unpickling of containers and of NumPy's arrays without running code."""

# What pickle._Unpickler has besides its public methods is missing in the type stubs.
# pyright: reportAttributeAccessIssue=false

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

# The instructions for literals, tuples, lists and dictionaries, for references, and for calls.
_INSTRUCTIONS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.MARK, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.REDUCE, pickle.BUILD),
)


# The implementation in C can't leave out instructions, and some of them allocate as much as a file asks for.
class RestrictedUnpickler(pickle._Unpickler):
    """Unpickles dictionaries, lists, tuples and literals, and calls only functions of ours.

    A subclass may define `persistent_load` and `build`.

    Args:
        file: a binary file, or an `mmap.mmap`.
        functions: what a pickle may name, by module and name, such as ("collections", "OrderedDict"): functions that
            are safe whatever their arguments, or values that can't be called.
    """

    dispatch: ClassVar[dict[int, Callable]] = {}

    def __init__(self, file: Any, functions: dict[tuple[str, str], Any]):
        super().__init__(file, encoding="latin1")
        self.functions = functions

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.functions:
            raise pickle.UnpicklingError(f"it would call {module:.100}.{name:.100}, which could run any code")
        return self.functions[module, name]

    def build(self, value: Any, state: Any) -> None:
        """Sets the state of an unpickled value. That of dictionaries is ignored: attributes of an OrderedDict."""
        del state
        if not isinstance(value, dict):
            raise pickle.UnpicklingError("it sets the state of an object other than a dictionary")

    def _refuse(self):
        raise pickle.UnpicklingError("it holds an instruction for other objects than dictionaries, lists and numbers")

    def _load_setitem(self):
        items = self.stack[-2:]
        del self.stack[-2:]
        add_items(self.stack[-1], items)

    def _load_setitems(self):
        items = self.pop_mark()
        add_items(self.stack[-1], items)

    def _load_build(self):
        state = self.stack.pop()
        self.build(self.stack[-1], state)


RestrictedUnpickler.dispatch = (
    dict.fromkeys(range(256), RestrictedUnpickler._refuse)
    | {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _INSTRUCTIONS}
    | {
        pickle.SETITEM[0]: RestrictedUnpickler._load_setitem,
        pickle.SETITEMS[0]: RestrictedUnpickler._load_setitems,
        pickle.BUILD[0]: RestrictedUnpickler._load_build,
    }
)


def add_items(dictionary: Any, items: list[Any]) -> None:
    """Adds keys and values, in turn, to a dictionary.

    Raises:
        pickle.UnpicklingError: if a key is neither a string nor a number. The hash of a nested tuple can take hours.
    """
    if not isinstance(dictionary, dict) or not all(isinstance(key, str | int) for key in items[::2]):
        raise pickle.UnpicklingError("the keys of a dictionary must be strings or whole numbers")
    dictionary.update(zip(items[::2], items[1::2], strict=True))


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
