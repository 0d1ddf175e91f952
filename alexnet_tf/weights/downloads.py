"""Downloads files with known checksums into Keras's cache."""

import dataclasses
import fcntl
import hashlib
import os
import pathlib

_TIMEOUT_S = 30
_RETRIES = 2  # for each URL


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file on the web. Its checksum makes any server trustworthy, over HTTP as well.

    Attributes:
        name: file name in the cache.
        urls: where to download it, in the order in which they are tried.
        checksum: "sha256:" or "sha1:" and the hexadecimal digits.
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
    """Downloads a file unless it is in the cache, and compares its checksum.

    If two processes call it at once, one downloads and the other waits.

    Returns: the path of the complete file.

    Raises:
        ValueError: if no server delivers the file, or the cache has another file of its name.
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
    kind, _, expected = file.checksum.partition(":")
    found = digest(path, kind)
    if found != file.checksum:
        raise ValueError(
            f"{path} is not the published file: its {kind} is {found.removeprefix(f'{kind}:')} instead of {expected}. "
            "Remove it to download it again."
        )
    return path


def _download(file):
    import pooch  # imports requests, which takes a third of a second

    pooch.get_logger().setLevel("WARNING")
    problems = []
    for url in file.urls:
        cache = pooch.create(
            file.path.parent,
            base_url="",
            registry={file.name: file.checksum},
            urls={file.name: url},
            retry_if_failed=_RETRIES,
        )
        try:
            cache.fetch(file.name, downloader=pooch.HTTPDownloader(True, chunk_size=2**20, timeout=_TIMEOUT_S))
            file.path.chmod(0o644)  # pooch leaves it readable only by its owner
            return
        except (OSError, ValueError) as error:  # no connection, an HTTP status, or another checksum
            problems.append(f"{url}: {error}")
    size = "" if file.num_bytes is None else f"{file.num_bytes:,} bytes, "
    raise ValueError(
        f"{file.name} ({size}{file.checksum}) can't be downloaded. {'. '.join(problems)}. "
        f"If you have the file, or can download it elsewhere, copy it to {file.path}"
    )


def digest(path: str | pathlib.Path, kind: str) -> str:
    """Computes the checksum of a file as `RemoteFile` has it: `kind`, "sha256" or "sha1", a colon and the digits."""
    with pathlib.Path(path).open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, kind).hexdigest()}"
