"""Downloads from a local server that cuts connections, delivers wrong bytes, redirects, or is away."""

import concurrent.futures
import hashlib
import http.server

import numpy as np
import pytest
from programs import in_background

from alexnet_tf.weights import downloads, published

CONTENT = np.random.default_rng(0).bytes(300_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Each path is a way to deliver the content. Requests are kept in the server."""

    def do_GET(self):
        requests = self.server.requests
        requests.append((self.path, self.headers.get("Range")))
        content, start = CONTENT, 0
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        if self.path == "/wrong":
            content = bytes(len(CONTENT))
        if self.path == "/page":
            content = b"<html>Sign in to the network</html>"
        if self.headers.get("Range") and self.path != "/no_ranges":
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416, "Range Not Satisfiable")
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content)
        if self.path == "/cut" or (self.path == "/no_ranges" and len(requests) < 2):
            end = min(end, start + 120_000)
        if self.path == "/dead":
            end = start
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with in_background(http.server.ThreadingHTTPServer(("localhost", 0), _Handler)) as server:
        server.requests = []
        yield server


@pytest.fixture
def remote(server, tmp_path, monkeypatch):
    """A function that makes a `RemoteFile` of the server's paths, with an empty cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def make(*paths, checksum=CHECKSUM, num_bytes=300_000):
        urls = tuple(f"http://localhost:{server.server_address[1]}/{path}" for path in paths)
        return downloads.RemoteFile("weights.bin", urls, checksum, num_bytes)

    return make


class TestFetch:
    @pytest.mark.parametrize(
        "paths",
        [["whole"], ["redirect"], ["missing", "whole"], ["wrong", "whole"], ["page", "whole"], ["dead", "whole"]],
        ids="-".join,
    )
    @pytest.mark.parametrize("num_bytes", [len(CONTENT), None])
    def test_complete_file_is_in_kerass_cache(self, remote, paths, num_bytes, tmp_path):
        path = downloads.fetch(remote(*paths, num_bytes=num_bytes))
        assert path == tmp_path / "keras" / "models" / "weights.bin"
        assert path.read_bytes() == CONTENT
        assert {each.name for each in path.parent.iterdir()} == {"weights.bin", ".weights.bin.lock"}

    def test_second_time_nothing_is_downloaded(self, remote, server):
        downloads.fetch(remote("whole"))
        downloads.fetch(remote("whole"))
        assert len(server.requests) == 1

    def test_cut_connections_are_resumed_where_they_ended(self, remote, server):
        assert downloads.fetch(remote("cut")).read_bytes() == CONTENT
        assert server.requests == [("/cut", None), ("/cut", "bytes=120000-"), ("/cut", "bytes=240000-")]

    def test_server_without_ranges_sends_all_again(self, remote, server):
        assert downloads.fetch(remote("no_ranges")).read_bytes() == CONTENT
        assert server.requests[1:] == [("/no_ranges", "bytes=120000-")]

    @pytest.mark.parametrize("left", [CONTENT[:1000], b"damaged", bytes(len(CONTENT) + 5)])
    def test_what_an_earlier_download_left_is_resumed_or_replaced(self, remote, left):
        file = remote("whole")
        file.path.parent.mkdir(parents=True)
        file.path.with_name(".weights.bin.partial").write_bytes(left)
        assert downloads.fetch(file).read_bytes() == CONTENT

    def test_sha1_is_checked_as_well(self, remote):
        assert downloads.fetch(remote("whole", checksum=f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"))

    def test_two_at_once_download_once(self, remote, server):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            paths = list(pool.map(downloads.fetch, [remote("whole")] * 4))
        assert len(set(paths)) == 1 and len(server.requests) == 1


class TestErrors:
    def test_no_server_has_it_says_which_file_where_from_and_where_to_put_it(self, remote, tmp_path):
        file = remote("missing", "wrong", "page", "dead")
        with pytest.raises(ValueError, match=r"weights\.bin \(300,000 bytes, sha256:") as raised:
            downloads.fetch(file)
        message = str(raised.value)
        assert f"{file.urls[0]}: Not Found" in message
        assert f"{file.urls[1]}: it delivers another file: its sha256 is" in message
        assert f"{file.urls[2]}: it delivers 35 bytes in place of 300,000" in message
        assert f"{file.urls[3]}: the connection was cut off after 0 of 300,000 bytes" in message
        assert message.endswith(f"copy it to {tmp_path / 'keras' / 'models' / 'weights.bin'}")
        assert not file.path.exists()

    def test_offline_is_said(self, remote):
        file = downloads.RemoteFile("weights.bin", ("http://localhost:9/weights.bin",), CHECKSUM)
        with pytest.raises(ValueError, match=r"localhost:9/weights\.bin: .*refused.*copy it to"):
            downloads.fetch(file)

    def test_server_that_sends_nothing_is_given_up(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.2)
        with http.server.ThreadingHTTPServer(("localhost", 0), _Handler) as silent:  # accepts, and never answers
            url = f"http://localhost:{silent.server_address[1]}/whole"
            with pytest.raises(ValueError, match="timed out"):
                downloads.fetch(downloads.RemoteFile("weights.bin", (url,), CHECKSUM))

    def test_other_file_in_its_place_is_neither_used_nor_removed(self, remote, server):
        file = remote("whole")
        file.path.parent.mkdir(parents=True)
        file.path.write_bytes(b"mine")
        with pytest.raises(ValueError, match=r"has 4 bytes in place of 300,000\. Remove it"):
            downloads.fetch(file)
        assert file.path.read_bytes() == b"mine" and not server.requests

    def test_folder_that_can_not_be_written_is_named(self, remote, tmp_path):
        (tmp_path / "keras").write_text("a file")
        with pytest.raises(ValueError, match=r"weights\.bin can't be written: "):
            downloads.fetch(remote("whole"))


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_published_files_have_checksums(name):
    weights = published.PUBLISHED[name]
    for file in filter(None, (weights.file, weights.mean_image)):
        kind, digits = file.checksum.split(":")
        assert len(digits) == hashlib.new(kind).digest_size * 2
        assert all(url.startswith(("https://", "http://")) for url in file.urls)


def test_table_says_which_files_are_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    row = published.PUBLISHED["torchvision"]
    assert f"not downloaded yet: {row.file.path}" in published.describe()
    row.file.path.parent.mkdir()
    row.file.path.write_bytes(b"")
    text = published.describe()
    assert f"in the cache: {row.file.path}" in text
    for each in published.PUBLISHED.values():
        assert f"{each.top1_error}%" in text and each.file.checksum in text and each.file.urls[0] in text
