"""Requests about image files: from files and folders to batches, and from these to predictions."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from alexnet_tf.serving import remote_model

_MAX_REQUEST_BYTES = 32 * 1024 * 1024  # larger requests are sent as several


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
    """Lists the files that paths name: files as they are, and all files in folders, at any depth, sorted by name.

    Files and folders whose names begin with a dot are skipped, unless they are named themselves.

    Raises:
        ValueError: if there is nothing at a path, or no file at all.
    """
    files, paths = [], [pathlib.Path(path) for path in paths]
    for path in paths:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
            files += [file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)]
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"There is no file or folder {path}.")
    if not files:
        raise ValueError(f"There are no files in {', '.join(map(str, paths))}.")
    return files


def batch_files(files: Iterable[pathlib.Path], batch_size: int) -> Iterator[list[tuple[pathlib.Path, bytes | OSError]]]:
    """Groups files into requests.

    Yields: lists of (path, content), where the content is bytes, or the OSError that reading raised. A list has at most
    `batch_size` files, and fewer if they are large.
    """
    batch, size = [], 0
    for path in files:
        try:
            content = path.read_bytes()
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

    Yields: a `FilePrediction` for each file.
    """
    for batch in batch_files(files, batch_size):
        readable = [content for _, content in batch if isinstance(content, bytes)]
        failure, predictions = None, iter(())
        try:
            predictions = iter(remote_model.predict_with_retries(connection, readable, deadline_s) if readable else ())
        except remote_model.RequestFailed as error:
            failure = str(error)
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
