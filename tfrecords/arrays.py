"""Files of named arrays in the folder of a data set, whose checksums are in dataset.json."""

import hashlib
import io
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from alexnet_tf import files
from alexnet_tf.tfrecords import schema, storage

_REMEDY = "alexnet-tfrecords, with the flags that built the data set, repairs it on a disk."


def save(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes a .npz file, atomically. Returns its `checksum`."""
    files.write_atomically(path, lambda file: np.savez_compressed(file, **dict(arrays)))  # pyright: ignore[reportArgumentType]
    return checksum(arrays)


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays in hexadecimal. (Not of their .npz file: versions of zlib compress differently.)"""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def load(path: str, names: Iterable[str], description: schema.DatasetDescription) -> dict[str, np.ndarray]:
    """Reads the arrays with some names.

    Args:
        path: path of the file.
        names: names of the arrays.
        description: the description that has the file's checksum.

    Raises:
        ValueError: if the file is missing or damaged, or does not have the checksum.
    """
    try:
        with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in names}
    except Exception as error:  # a damaged archive raises half a dozen types
        raise ValueError(f"{path} can't be read: {error!r}. {_REMEDY}") from error
    if description.checksums.get(pathlib.PurePath(path).name) != checksum(arrays):
        raise ValueError(
            f"{path} is damaged or belongs to another data set: it does not match {schema.DATASET_FILE}. {_REMEDY}"
        )
    return arrays
