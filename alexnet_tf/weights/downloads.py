"""Downloads files that are known by their checksums into Keras's cache."""

import dataclasses
import fcntl
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request

import tqdm

_CHUNK_BYTES = 2**20
_TIMEOUT_S = 30
_ATTEMPTS = 4  # of one URL, each from where the last one was cut off


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file on the web. Since its checksum is known, any server may deliver it, by http too.

    Attributes:
        name: in the cache.
        urls: where it is, in the order in which they are tried.
        checksum: "sha256:" or "sha1:" and the digits.
        num_bytes: its size; None if it was not published.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    num_bytes: int | None = None

    @property
    def path(self) -> pathlib.Path:
        """Where the file is, or will be: where `keras.applications` keeps its weights."""
        home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
        return pathlib.Path(home) / "models" / self.name


def fetch(file: RemoteFile) -> pathlib.Path:
    """Downloads a file, unless it is in the cache.

    A download that was interrupted is resumed where the server can. If two processes ask at once, one downloads and
    the other waits.

    Returns: the path of the complete file, whose checksum was compared.

    Raises:
        ValueError: if no server delivers the file, or there is another file in its place.
    """
    path = file.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _download(file)
    except OSError as error:
        raise ValueError(f"{path} can't be written: {error}") from error
    wrong = _difference(file, path)
    if wrong:
        raise ValueError(f"{path} is not the published file: {wrong}. Remove it to download it again.")
    return path


def _download(file):
    path = file.path
    partial = path.with_name(f".{file.name}.partial")
    problems = []
    for url in file.urls:
        resumed = partial.exists()
        try:
            _download_from(url, file, partial)
            wrong = _difference(file, partial)
            if wrong and resumed:  # perhaps what an earlier download left was damaged
                partial.unlink()
                _download_from(url, file, partial)
                wrong = _difference(file, partial)
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        if not wrong:
            partial.replace(path)
            return
        partial.unlink()
        problems.append(f"{url}: it delivers another file: {wrong}")
    size = "" if file.num_bytes is None else f"{file.num_bytes:,} bytes, "
    raise ValueError(
        f"{file.name} ({size}{file.checksum}) can't be downloaded. {'. '.join(problems)}. "
        f"If you have the file, or can download it elsewhere, copy it to {path}"
    )


def _download_from(url, file, partial):
    """Downloads as many bytes as the server has, resuming what there is and what is cut off."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _receive(url, file, partial, before)
            return
        except urllib.error.HTTPError as error:
            if error.code != 416 or not before:  # the range is past the end: what there is, is no part of this file
                raise
            partial.unlink()
        except (OSError, http.client.HTTPException):
            if attempt == _ATTEMPTS or not partial.exists() or partial.stat().st_size <= before:
                raise


def _receive(url, file, partial, start):
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        answered = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not answered or int(answered[1]) != start:
            start = 0  # the server sends all of it
        length = response.headers.get("Content-Length")
        end = None if length is None else start + int(length)
        if None not in (end, file.num_bytes) and end != file.num_bytes:
            partial.unlink(missing_ok=True)
            raise OSError(f"it delivers {end:,} bytes in place of {file.num_bytes:,}")
        with (
            partial.open("r+b" if start else "wb") as output,
            tqdm.tqdm(desc=file.name, total=end, initial=start, unit="B", unit_scale=True) as progress,
        ):
            output.seek(start)
            while chunk := response.read(_CHUNK_BYTES):
                output.write(chunk)
                progress.update(len(chunk))
            received = output.tell()
    if end is not None and received < end:
        raise OSError(f"the connection was cut off after {received:,} of {end:,} bytes")


def _difference(file, path):
    """How a file differs from the published one, or None."""
    num_bytes = path.stat().st_size
    if file.num_bytes not in (None, num_bytes):
        return f"it has {num_bytes:,} bytes in place of {file.num_bytes:,}"
    kind, _, expected = file.checksum.partition(":")
    found = digest(path, kind)
    return None if found == file.checksum else f"its {kind} is {found.removeprefix(f'{kind}:')} in place of {expected}"


def digest(path: str | pathlib.Path, kind: str) -> str:
    """The checksum of a file as `RemoteFile` has it: `kind`, "sha256" or "sha1", a colon and the digits."""
    with pathlib.Path(path).open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, kind).hexdigest()}"
