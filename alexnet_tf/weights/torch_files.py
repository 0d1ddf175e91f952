"""Reads the tensors of PyTorch's .pth files, without PyTorch and without running anything that a file says.

A .pth file holds a pickle and the numbers of its tensors: in a zip archive, or one after the other in files from before
PyTorch 1.6. A pickle is a program. `_unpickle` knows the instructions that build dictionaries of tensors, and refuses
all others.
"""

import functools
import io
import math
import pathlib
import pickletools
import struct
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE_BYTES = 2**20  # it holds names and shapes, not numbers
_MAX_DIMENSIONS = 8
_STORAGE_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_GLOBALS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", name) for name in _STORAGE_TYPES),
}
_CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
}


class _Storage(NamedTuple):
    """The numbers that one or several tensors are made of."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    """A function or a class that a pickle names."""

    module: str
    name: str


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that torch.save wrote.

    Args:
        path: a file that holds a dictionary of tensors, or a dictionary with one under "state_dict" or "model".

    Returns: names to arrays, of the types that they were saved as. Read-only.

    Raises:
        ValueError: if the file is damaged, holds anything else, or would run code when it is unpickled.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            value, load = (_read_zip if zipfile.is_zipfile(file) else _read_legacy)(file)
            for name in ("model", "state_dict", "model"):  # in which training programs wrap it
                if isinstance(value, dict) and isinstance(value.get(name), dict):
                    value = value[name]
            if not isinstance(value, dict):
                raise ValueError("it holds no dictionary of tensors")
            load = functools.cache(load)
            return {str(name): _array(each, load) for name, each in value.items() if isinstance(each, _Tensor)}
    except Exception as error:  # a hostile file may cause any
        raise ValueError(f"{path} is not a state dict of PyTorch: {error}") from error


def _array(tensor, load):
    numbers = load(tensor.storage)
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    if len(shape) > _MAX_DIMENSIONS or min((offset, *shape, *strides), default=0) < 0:
        raise ValueError(f"a tensor has {len(shape)} dimensions, or a negative size, stride or offset")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # By a stride of 0, a few numbers could fill all memory.
    if last >= len(numbers) or max(math.prod(shape), *shape, 0) > len(numbers):
        raise ValueError(f"a tensor is larger than the {len(numbers)} numbers of its storage")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)


def _read_zip(file):
    """The pickled value, and a function that loads a storage."""
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("its archive must hold one data.pkl, as torch.save writes it")
    folder = pickles[0].removesuffix("data.pkl")
    bytes_left = file.seek(0, io.SEEK_END)

    def read(name):
        nonlocal bytes_left
        info = archive.getinfo(folder + name)
        bytes_left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or bytes_left < 0:  # a small file could fill all memory
            raise ValueError(f"{info.filename:.100} is compressed or overlaps another, as torch.save writes none")
        return archive.read(info)

    if f"{folder}byteorder" in archive.namelist() and read("byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    value, _ = _unpickle(io.BytesIO(read("data.pkl")))
    return value, lambda storage: np.frombuffer(read(f"data/{storage.key}"), storage.dtype, storage.size)


def _read_legacy(file):
    """As `_read_zip`, for files from before PyTorch 1.6: five pickles, then each storage with its size before it."""
    file.seek(0)
    pickles = io.BytesIO(file.read(4 * _MAX_PICKLE_BYTES))
    if _unpickle(pickles)[0] != _LEGACY_MAGIC:
        raise ValueError("it does not begin as files of torch.save do")
    _unpickle(pickles)  # the version of the format
    machine, _ = _unpickle(pickles)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    value, storages = _unpickle(pickles)
    keys, _ = _unpickle(pickles)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("its list of storages is not that of its tensors")
    offsets, offset = {}, pickles.tell()
    for key in keys:
        file.seek(offset)
        (size,) = struct.unpack("<q", file.read(8))
        if size != storages[key].size:
            raise ValueError(f"storage {key:.100} has another size than its tensors")
        offsets[key] = offset + 8
        offset += 8 + size * storages[key].dtype.itemsize
    if offset > file.seek(0, io.SEEK_END):
        raise ValueError("it is cut short")

    def load(storage):
        file.seek(offsets[storage.key])
        return np.fromfile(file, storage.dtype, storage.size)

    return value, load


def _unpickle(file: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    """Follows one pickle, as far as dictionaries of tensors need it. Returns its value and the storages it names."""
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[Any, Any] = {}
    storages: dict[str, _Storage] = {}
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if file.tell() - start > _MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle is longer than {_MAX_PICKLE_BYTES} bytes")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop(), storages
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case "MARK":
                marks.append(stack)
                stack = []
            case "TUPLE":
                items, stack = tuple(stack), marks.pop()
                stack.append(items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(opcode.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "APPENDS" | "SETITEMS":
                items, stack = stack, marks.pop()
                _add(stack[-1], items)
            case "APPEND" | "SETITEM":
                length = 1 if opcode.name == "APPEND" else 2
                items, stack[-length:] = stack[-length:], []
                _add(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [_global(*stack[-2:])]
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError(f"storage {storage.key:.100} has two sizes or types")
                stack.append(storage)
            case "REDUCE":
                stack[-2:] = [_call(*stack[-2:])]
            case "BUILD" if isinstance(stack[-2], dict):  # attributes of an OrderedDict: _metadata, modules' versions
                stack.pop()
            case _:
                raise ValueError(f"its pickle holds {opcode.name}, which no dictionary of tensors needs")
    raise ValueError("its pickle has no end")


def _add(container, items):
    """Adds items to a list, or keys and values in turn to a dictionary."""
    if isinstance(container, list):
        container.extend(items)
    elif isinstance(container, dict) and all(isinstance(key, str | int) for key in items[::2]):
        container.update(zip(items[::2], items[1::2], strict=True))
    else:
        raise ValueError("it adds items to what is no list or dictionary, or keys that are no names")


def _global(module, name):
    if not (isinstance(module, str) and isinstance(name, str)) or (module, name) not in _GLOBALS:
        raise ValueError(
            f"it would call {module!s:.100}.{name!s:.100}, which could run any code. Where the file comes from, "
            "save tensors alone: torch.save(network.state_dict(), ...)"
        )
    return _Global(module, name)


def _storage(persistent_id):
    match persistent_id:
        case ("storage", _Global("torch", kind), str(key), _, int(size), *views) if size >= 0 and not any(views):
            return _Storage(key, _STORAGE_TYPES[kind], size)
    raise ValueError("it names a storage in a way that torch.save does not")


def _call(function, arguments):
    """What a function that a pickle may call returns. Tensors are not made yet."""
    match function, arguments:
        case _Global("collections"), ():
            return {}
        case _Global("collections"), ([*pairs],):  # as Python 2 wrote it
            ordered: dict[str, Any] = {}
            _add(ordered, [each for pair in pairs for each in pair])
            return ordered
        case _Global("torch._utils", "_rebuild_parameter"), (_Tensor() as tensor, *_):
            return tensor
        case _Global("torch._utils", _), (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            if all(isinstance(number, int) for number in (*shape, *strides)):
                return _Tensor(storage, offset, shape, strides)
    raise ValueError("it calls a function as torch.save does not")
