"""Atomic writes: a file is complete or does not exist, also after a crash."""

import contextlib
import fcntl
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from absl import logging


def write_atomically(path: str | pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file under a temporary name, syncs it and renames it.

    Args:
        path: path of the file, which may exist.
        write: a function that takes the open binary file and writes its content.

    Raises:
        OSError: with the path, if it can't be written, for example to a full disk. Nothing is left of it.
    """
    path = pathlib.Path(path)
    # Not named by the process: two containers on different machines can each have one of the same number.
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes a text file, in UTF-8, as `write_atomically` does. Names of files that are not UTF-8 keep their bytes."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def write_json(path: str | pathlib.Path, content: Any) -> None:
    """Writes a JSON file, indented by 2, as `write_atomically` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def sole_user(path: str | pathlib.Path, message: str | None = None) -> Iterator[None]:
    """Holds a lock, which ends with this process. Some network disks don't support locks; then it only warns.

    Args:
        path: a folder, or a lock file, which is created and stays.
        message: what to say if another process holds the lock; None to wait for that process.

    Raises:
        ValueError: with the message, if another process holds the lock.
    """
    path = pathlib.Path(path)
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if message is None else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(message) from error
        except OSError as error:
            logging.warning("Can't tell whether another process uses %s: %s", path, error)
        yield
    finally:
        os.close(descriptor)


def publish(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a folder, which is next to its target, after syncing everything in it."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
    folder.rename(target)
    sync(target.parent)


def sync(path: str | pathlib.Path) -> None:
    """Waits until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
