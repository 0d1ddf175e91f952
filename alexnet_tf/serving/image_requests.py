"""Requests about image files: from files and folders to batches, and from these to predictions."""

import os
import pathlib
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from alexnet_tf.serving import remote_model

_MAX_REQUEST_BYTES = 32 * 1024 * 1024  # larger requests are sent as several
_MAX_FILE_BYTES = 160_000_000  # the 50 million pixels that a server decodes, uncompressed; a video has more


class FilePrediction(NamedTuple):
    """The prediction for one file.

    Attributes:
        path: the file.
        content: its content; None if it can't be read.
        prediction: None if there is none.
        error: why there is no prediction; None if there is one.
    """

    path: pathlib.Path
    content: bytes | None
    prediction: remote_model.Prediction | None
    error: str | None


def find_files(paths: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """Lists the files that paths name: files as they are, and all that folders hold, at any depth, sorted by name.

    What begins with a dot in a folder is skipped. Links to folders are listed, not followed.

    Raises:
        ValueError: if there is nothing at a path, or no file at all.
        OSError: if a folder can't be read.
    """
    files, paths = [], [pathlib.Path(path) for path in paths]
    for path in paths:
        if path.is_dir():
            inside = []
            for folder, folders, names in os.walk(path, onerror=_raise):
                folders[:] = [name for name in folders if not name.startswith(".")]
                inside += [pathlib.Path(folder, name) for name in names if not name.startswith(".")]
                inside += [link for name in folders if (link := pathlib.Path(folder, name)).is_symlink()]
            files += sorted(inside)
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"There is no file or folder {path}.")
    if not files:
        raise ValueError(f"There are no files in {', '.join(map(str, paths))}.")
    return files


def _raise(error: OSError) -> None:
    raise error


def read_file(path: pathlib.Path) -> bytes:
    """Reads an image file. Raises OSError if it can't be, if it is no file but a pipe or a device, on which reading may
    wait forever, or if it is larger than any image."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_size > _MAX_FILE_BYTES:
        raise OSError(f"an image may have {_MAX_FILE_BYTES:,} bytes, and it has {status.st_size:,}")
    return path.read_bytes()


def batch_files(files: Iterable[pathlib.Path], batch_size: int) -> Iterator[list[tuple[pathlib.Path, bytes | OSError]]]:
    """Groups files into requests.

    Yields: lists of (path, content), where the content is bytes, or the OSError that reading raised. A list has at most
    `batch_size` files, and fewer if they are large.
    """
    batch, size = [], 0
    for path in files:
        try:
            content = read_file(path)
        except OSError as error:
            content = error
        length = len(content) if isinstance(content, bytes) else 0
        if batch and (len(batch) == batch_size or size + length > _MAX_REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, content))
        size += length
    if batch:
        yield batch


def predict_files(
    connection: remote_model.Connection, files: Iterable[pathlib.Path], batch_size: int, deadline_s: float
) -> Iterator[FilePrediction]:
    """Runs inference on files, in their order.

    Args:
        connection: from `remote_model.connect`.
        files: the image files.
        batch_size: images in a request, at most.
        deadline_s: seconds for a request, with all its attempts.

    Yields: a `FilePrediction` for each file, up to the first request to which the server does not respond at all.
    """
    for batch in batch_files(files, batch_size):
        readable = [content for _, content in batch if isinstance(content, bytes)]
        failure, predictions, responds = None, iter(()), True
        try:
            predictions = iter(remote_model.predict_with_retries(connection, readable, deadline_s) if readable else ())
        except remote_model.RequestFailed as error:
            failure, responds = str(error), error.responded
        for path, content in batch:
            if not isinstance(content, bytes):
                yield FilePrediction(path, None, None, f"can't be read: {content}")
            elif failure:
                yield FilePrediction(path, content, None, failure)
            else:
                prediction = next(predictions)
                if prediction.valid:
                    yield FilePrediction(path, content, prediction, None)
                else:
                    yield FilePrediction(path, content, None, "not an image that can be read")
        if not responds:
            return
