"""Checks the sizes in Keras's model files before they are opened. Keras itself allocates gigabytes for small files."""

import concurrent.futures
import contextlib
import io
import json
import math
import pathlib
import random
import zipfile
from typing import Any, BinaryIO

import h5py
import keras

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"  # in a .keras archive, or in the folder that Keras unzips it to
_ALWAYS_ALLOWED = 50_000_000
_BYTES_PER_NUMBER = 4
_MAX_EXPANSION = 10  # Keras stores weights uncompressed; others may compress them


def check_sizes(path: str | pathlib.Path) -> None:
    """Checks that a model does not take far more memory or disk than its file. It allocates nothing of that size.

    Args:
        path: a .keras, .h5 or .weights.h5 file; or a folder with the files of a .keras archive.

    Raises:
        ValueError: if it does.
        Exception: one of a dozen classes, if the file is damaged.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        file_bytes = sum((path / name).stat().st_size for name in (_CONFIG, _WEIGHTS))
        _check_h5(path / _WEIGHTS, file_bytes)
        _check_network((path / _CONFIG).read_bytes(), file_bytes)
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            file_bytes = path.stat().st_size
            _check("its members", sum(member.file_size for member in archive.infolist()), file_bytes)
            with _open_weights(archive) as file:
                _check_h5(file, file_bytes)
            _check_network(archive.read(_CONFIG), file_bytes)
    elif config := _check_h5(path, path.stat().st_size).get("model_config"):
        _check_network(config, path.stat().st_size)


def _check(what: str, num_bytes: int, file_bytes: int) -> None:
    """Raises ValueError if something takes too many bytes."""
    if num_bytes > max(_ALWAYS_ALLOWED, _MAX_EXPANSION * file_bytes):
        raise ValueError(
            f"{what} would take {num_bytes / 1e6:.0f} MB, more than {_MAX_EXPANSION} times the {file_bytes / 1e6:,.1f}"
            " MB of the file"
        )


def _open_weights(archive: zipfile.ZipFile) -> contextlib.AbstractContextManager:
    """The weights as a file. Compressed ones are read completely, since seeking in them takes long."""
    if archive.getinfo(_WEIGHTS).compress_type == zipfile.ZIP_STORED:
        return archive.open(_WEIGHTS)
    return io.BytesIO(archive.read(_WEIGHTS))


def _check_h5(file: pathlib.Path | BinaryIO | Any, file_bytes: int) -> dict[str, Any]:
    """Checks the arrays of an HDF5 file; returns the attributes of the file."""
    with h5py.File(file) as opened:
        sizes = []
        opened.visititems(lambda _, each: sizes.append(each.nbytes) if isinstance(each, h5py.Dataset) else None)
        _check("its arrays", sum(sizes), file_bytes)
        return dict(opened.attrs)


def _check_network(text: str | bytes, file_bytes: int) -> None:
    """Checks the variables of the network that a configuration, in JSON, describes."""
    config = json.loads(text, object_hook=_uncompiled)

    def count_bytes():
        with keras.StatelessScope(initialize_variables=False):
            if "registered_name" in config:
                network: Any = keras.saving.deserialize_keras_object(config)
            else:  # in .h5 files
                classes = {"Functional": keras.Model, "Sequential": keras.Sequential}
                network = classes[config["class_name"]].from_config(config["config"])
            return sum(_BYTES_PER_NUMBER * math.prod(variable.shape) for variable in network.variables)

    state = random.getstate()  # Keras draws seeds from there
    try:
        # In its own thread: in this one, Keras would initialize the variables when it next traces a function.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            num_bytes = pool.submit(count_bytes).result()
    finally:
        random.setstate(state)
    _check("its network", num_bytes, file_bytes)


def _uncompiled(config: dict[str, Any]) -> dict[str, Any]:
    """Removes the optimizer of a model, which can't be made in a `StatelessScope`."""
    config.pop("compile_config", None)
    return config
