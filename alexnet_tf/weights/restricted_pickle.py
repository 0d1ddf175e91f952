"""Unpickling of containers without running code: what the readers of PyTorch's and NumPy's files have in common."""

# What pickle._Unpickler has besides its public methods is missing in the type stubs.
# pyright: reportAttributeAccessIssue=false

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

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
