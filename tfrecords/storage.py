"""Files that are read, on a disk or wherever TensorFlow's file systems reach: "gs://bucket/name".

What is written needs a disk (files.py): it is renamed when it is whole, which object stores do not do.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO


def is_remote(path: str | pathlib.Path) -> bool:
    """Whether one of TensorFlow's file systems reads a path: a string, since `pathlib` makes "gs:/" of "gs://"."""
    return "://" in str(path)


def absolute(folder: str | pathlib.Path) -> str:
    """A folder's path that does not depend on the working directory; a remote one as it is."""
    return str(folder).rstrip("/") if is_remote(folder) else str(pathlib.Path(folder).expanduser().absolute())


def join(folder: str | pathlib.Path, name: str) -> str:
    """The path of a file in a folder, or the file's own if that is absolute."""
    if is_remote(name) or pathlib.PurePath(name).is_absolute():
        return name
    return f"{str(folder).rstrip('/')}/{name}" if is_remote(folder) else str(pathlib.Path(folder, name))


@contextlib.contextmanager
def open_binary(path: str | pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a file to read its bytes, at any place of it.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it can't be read, for example because TensorFlow has no file system for it.
    """
    if is_remote(path):
        with _remote_errors(path) as gfile, gfile.GFile(path, "rb") as file:
            yield file
    else:
        with pathlib.Path(path).open("rb") as file:
            yield file


def read_bytes(path: str | pathlib.Path) -> bytes:
    """The content of a file. Raises as `open_binary`."""
    with open_binary(path) as file:
        return file.read()


def read_end(path: str | pathlib.Path) -> str:
    """The last four bytes of a file, in hexadecimal; of a TFRecord file the checksum of its last record."""
    with open_binary(path) as file:
        file.seek(max(0, (size(path) or 0) - 4))
        return file.read().hex()


def sha256(path: str | pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def size(path: str | pathlib.Path) -> int | None:
    """The size of a file in bytes, or None if there is none."""
    if not is_remote(path):
        return pathlib.Path(path).stat().st_size if pathlib.Path(path).is_file() else None
    with contextlib.suppress(FileNotFoundError), _remote_errors(path) as gfile:
        found = gfile.stat(path)
        return None if found.is_directory else found.length


def list_files(folder: str | pathlib.Path) -> list[str]:
    """The sorted names of the files in a folder, without hidden ones; also of folders in a remote one that marks none.

    Raises:
        FileNotFoundError, NotADirectoryError: if there is no such folder.
        OSError: if it can't be read.
    """
    if is_remote(folder):
        with _remote_errors(folder) as gfile:
            # `listdir` calls a folder missing whatever the reason.
            if not gfile.stat(folder).is_directory:
                raise NotADirectoryError(f"{folder} is not a folder")
            # A folder ends with a slash in an object store. To ask for each name would take a request each.
            names = [name for name in gfile.listdir(folder) if not name.endswith("/")]
    else:
        names = [path.name for path in pathlib.Path(folder).iterdir() if path.is_file()]
    return sorted(name for name in names if not name.startswith("."))


@contextlib.contextmanager
def _remote_errors(path: str | pathlib.Path) -> Iterator[Any]:
    """TensorFlow's file systems; their errors become Python's own."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except tf.errors.UnimplementedError as error:
        schemes = ", ".join(f"{scheme}://" for scheme in tf.io.gfile.get_registered_schemes() if scheme)
        raise OSError(
            f"{path} can't be read: this TensorFlow has file systems for {schemes}. Mount others as a disk."
        ) from error
    except tf.errors.OpError as error:
        raise OSError(f"{path} can't be read: {(error.message or repr(error)).splitlines()[0]}") from error
