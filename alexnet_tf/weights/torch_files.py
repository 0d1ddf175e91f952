"""Reads the tensors of PyTorch's .pth files without PyTorch and without running code in a file.

A .pth file holds pickles and the numbers of its tensors: in a zip archive, or one after the other in files from before
PyTorch 1.6.
"""

import functools
import io
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from alexnet_tf.weights.restricted_pickle import RestrictedUnpickler, add_items

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE_BYTES = 2**20  # a pickle holds names and shapes, and the numbers are elsewhere
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


class _Storage(NamedTuple):
    """The numbers that one or several tensors consist of."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that torch.save wrote.

    Args:
        path: a file that holds a dictionary of tensors, or a dictionary with one under "state_dict" or "model".

    Returns: names to arrays of the saved types. They are read-only and may share memory.

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
    # With a stride of 0, a few numbers could fill all memory.
    if last >= len(numbers) or max(math.prod(shape), *shape, 0) > len(numbers):
        raise ValueError(f"a tensor is larger than the {len(numbers)} numbers of its storage")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)


def _read_zip(file):
    """Returns the pickled value, and a function that loads a storage."""
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
    if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"its pickle is longer than {_MAX_PICKLE_BYTES} bytes")
    value = _Unpickler(io.BytesIO(read("data.pkl"))).load()
    return value, lambda storage: np.frombuffer(read(f"data/{storage.key}"), storage.dtype, storage.size)


def _read_legacy(file):
    """As `_read_zip`, for files from before PyTorch 1.6: five pickles, then each storage with its size before it."""
    file.seek(0)
    pickles = io.BytesIO(file.read(4 * _MAX_PICKLE_BYTES))
    if _Unpickler(pickles).load() != _LEGACY_MAGIC:
        raise ValueError("it does not begin as files of torch.save do")
    _Unpickler(pickles).load()  # the version of the format
    machine = _Unpickler(pickles).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    unpickler = _Unpickler(pickles)
    value, storages = unpickler.load(), unpickler.storages
    keys = _Unpickler(pickles).load()
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


def _make_ordered_dict(pairs: Any = ()) -> dict[str, Any]:
    """collections.OrderedDict; Python 2 pickled it with its items."""
    ordered: dict[str, Any] = {}
    add_items(ordered, [each for pair in pairs for each in pair])
    if pairs:
        pairs.clear()  # a pickle that makes many dictionaries of one list would fill all memory
    return ordered


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise pickle.UnpicklingError("it makes a tensor in another way than torch.save")
    if not all(isinstance(number, int) for number in (offset, *shape, *strides)):
        raise pickle.UnpicklingError("the shape of a tensor must consist of whole numbers")
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError("it makes a parameter of something other than a tensor")
    return tensor


class _Unpickler(RestrictedUnpickler):
    """Unpickles dictionaries of tensors.

    Attributes:
        storages: those that the pickle names, by their keys.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(
            file,
            {
                ("collections", "OrderedDict"): _make_ordered_dict,
                ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
                ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
                ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
                **{("torch", name): name for name in _STORAGE_TYPES},
            },
        )
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except pickle.UnpicklingError as error:
            advice = "Where the file comes from, save only tensors: torch.save(network.state_dict(), ...)"
            raise pickle.UnpicklingError(f"{error}. {advice}") from error

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), _, int(size), *views) if size >= 0 and not any(views):
                storage = _Storage(key, _STORAGE_TYPES[kind], size)
                if self.storages.setdefault(key, storage) != storage:
                    raise pickle.UnpicklingError(f"storage {key:.100} has two sizes or types")
                return storage
        raise pickle.UnpicklingError("it names a storage in another way than torch.save")
