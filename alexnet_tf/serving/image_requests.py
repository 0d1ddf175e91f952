"""Image files as requests to a server, and their predictions."""

import importlib.util
import os
import pathlib
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from alexnet_tf.serving import formats, remote_model

_HEIC = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftypmif1")  # at byte 4
_MAX_REQUEST_BYTES = 32 * 1024 * 1024  # larger requests are split
_MAX_FILE_BYTES = 160_000_000  # 50 million uncompressed pixels, the server's limit


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
    """Lists files, and all files in folders and their subfolders, sorted by name.

    Hidden files and folders inside a folder are skipped. Links to folders are listed, but not followed.

    Raises:
        ValueError: if a path does not exist, or there are no files.
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
    """Reads an image file. Formats that TensorFlow does not decode, such as WebP, HEIC and GIF, are converted to PNG.

    Raises:
        OSError: if the file can't be read or converted, is a pipe or a device (reading could block forever), or is
            larger than any image.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > _MAX_FILE_BYTES:
        raise OSError(f"images must have at most {_MAX_FILE_BYTES:,} bytes. Received: {status.st_size:,} bytes")
    return _as_served_format(path.read_bytes())


def _as_served_format(content: bytes) -> bytes:
    from PIL import UnidentifiedImageError  # takes time, which --help need not wait for

    from alexnet_tf.tfrecords import images

    try:
        opened = images.open_image(content, formats.MAX_PIXELS)
        if images.unserved_format(opened) is None:
            return content
        # Keeps the size, and turns the image upright.
        pixels = images.prepare_image(opened, min(opened.size), keep_aspect=True)
    except UnidentifiedImageError:
        if content[4:12] in _HEIC and importlib.util.find_spec("pillow_heif") is None:
            raise OSError("HEIC images need pip install --editable '.[heic]'") from None
        return content  # the network's decoder refuses it
    except Exception as error:  # Pillow raises many kinds
        raise OSError(f"the image can't be decoded: {error}") from error
    return images.encode_image(pixels, "png", 0)


def predict_files(
    connection: remote_model.Connection, files: Iterable[pathlib.Path], batch_size: int, deadline_s: float
) -> Iterator[FilePrediction]:
    """Classifies files, in their order.

    Args:
        connection: from `remote_model.connect`.
        files: image files.
        batch_size: maximum number of images in a request; fewer are sent if the files are large.
        deadline_s: seconds for each request, including retries.

    Yields: a `FilePrediction` for each file. Stops after the first request to which the server does not respond.
    """
    for batch in _batches(files, batch_size):
        readable = [row.content for row in batch if row.content is not None]
        failure, predictions, responds = None, iter(()), True
        try:
            predictions = iter(remote_model.predict_with_retries(connection, readable, deadline_s) if readable else ())
        except remote_model.RequestFailed as error:
            failure, responds = str(error), error.responded
        for row in batch:
            if row.error:
                yield row
            elif failure:
                yield row._replace(error=failure)
            elif (prediction := next(predictions)).valid:
                yield row._replace(prediction=prediction)
            else:
                yield row._replace(error="not an image that the server can decode")
        if not responds:
            return


def _batches(files: Iterable[pathlib.Path], batch_size: int) -> Iterator[list[FilePrediction]]:
    """The files of each request, without predictions."""
    batch, size = [], 0
    for path in files:
        content, problem = b"", None
        try:
            content = read_file(path)
        except OSError as error:
            problem = f"can't be read: {error}"
        if batch and (len(batch) == batch_size or size + len(content) > _MAX_REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(FilePrediction(path, None if problem else content, None, problem))
        size += len(content)
    if batch:
        yield batch
