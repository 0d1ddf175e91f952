"""Reads files on a local disk and, through TensorFlow's file systems, in an object store such as gs://bucket.

Nothing is written to an object store: files are published by renaming them (files.py), which object stores can't do.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO


def is_remote(path: str | pathlib.Path) -> bool:
    """Whether a path is in an object store. Such paths are strings: `pathlib` turns "gs://" into "gs:/"."""
    return "://" in str(path)


def absolute(folder: str | pathlib.Path) -> str:
    """The absolute path of a local folder; the path of a remote one without a slash at its end."""
    return str(folder).rstrip("/") if is_remote(folder) else str(pathlib.Path(folder).expanduser().absolute())


def join(folder: str | pathlib.Path, name: str) -> str:
    """The path of a file in a folder; the file's own path if that is absolute or remote."""
    if is_remote(name) or pathlib.PurePath(name).is_absolute():
        return name
    return f"{str(folder).rstrip('/')}/{name}" if is_remote(folder) else str(pathlib.Path(folder, name))


@contextlib.contextmanager
def open_binary(path: str | pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes, with `seek`.

    Raises:
        FileNotFoundError: if the file does not exist.
    """
    if is_remote(path):
        with _file_systems(path) as gfile, gfile.GFile(path, "rb") as file:
            yield file
    else:
        with pathlib.Path(path).open("rb") as file:
            yield file


def read_bytes(path: str | pathlib.Path) -> bytes:
    """The content of a file. Raises FileNotFoundError if it does not exist."""
    with open_binary(path) as file:
        return file.read()


def read_end(path: str | pathlib.Path) -> str:
    """The last four bytes of a file in hexadecimal. In a TFRecord file, they are the checksum of the last record."""
    with open_binary(path) as file:
        file.seek(max(0, (size(path) or 0) - 4))
        return file.read().hex()


def sha256(path: str | pathlib.Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def size(path: str | pathlib.Path) -> int | None:
    """The size of a file in bytes; None if the file does not exist or is a folder."""
    if not is_remote(path):
        return pathlib.Path(path).stat().st_size if pathlib.Path(path).is_file() else None
    with contextlib.suppress(FileNotFoundError), _file_systems(path) as gfile:
        found = gfile.stat(path)
        return None if found.is_directory else found.length


def list_files(folder: str | pathlib.Path) -> list[str]:
    """The sorted names of the files in a folder, without hidden files.

    Raises:
        FileNotFoundError, NotADirectoryError: if the folder does not exist.
    """
    if is_remote(folder):
        with _file_systems(folder) as gfile:
            if not gfile.stat(folder).is_directory:  # `listdir` reports any problem as a missing folder
                raise NotADirectoryError(f"{folder} is not a folder.")
            # Folders end with a slash in an object store. Asking for each name would take one request each.
            names = [name for name in gfile.listdir(folder) if not name.endswith("/")]
    else:
        names = [path.name for path in pathlib.Path(folder).iterdir() if path.is_file()]
    return sorted(name for name in names if not name.startswith("."))


@contextlib.contextmanager
def _file_systems(path: str | pathlib.Path) -> Iterator[Any]:
    """`tf.io.gfile`, with Python's errors for a missing file and an unknown kind of store."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist.") from error
    except tf.errors.UnimplementedError as error:
        schemes = ", ".join(f"{scheme}://" for scheme in tf.io.gfile.get_registered_schemes() if scheme)
        raise OSError(f"{path} can't be read: TensorFlow reads {schemes}. Mount other stores as a disk.") from error
