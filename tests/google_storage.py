"""A stand-in for Google Cloud Storage that serves local folders to TensorFlow's file system for gs://.

TensorFlow connects to fixed hosts over HTTPS. A proxy answers in their place.
"""

import contextlib
import http.server
import json
import ssl
import subprocess
import urllib.parse

from programs import in_background

HOSTS = ("www.googleapis.com", "storage.googleapis.com")


@contextlib.contextmanager
def google_storage(buckets, folder):
    """Serves the folders in `buckets` as read-only buckets until the end of the block.

    Args:
        buckets: a folder whose folders are the buckets.
        folder: an empty folder for a certificate.

    Yields: (environment, requests): environment variables for a process that uses the server, and a list of
    (method, path, size of the answer).
    """
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=made"]
    command += ["-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    server.daemon_threads = True
    server.context, server.buckets, server.requests = context, buckets, []
    with in_background(server):
        environment = {
            "https_proxy": f"http://127.0.0.1:{server.server_port}",
            "CURL_CA_BUNDLE": str(certificate),
            "NO_GCE_CHECK": "true",  # do not look for credentials of a virtual machine
        }
        yield environment, server.requests


class _Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:2] != ["storage", "v1"]:
            self._send_file(self.server.buckets / "/".join(parts))
        elif len(parts) == 6:  # storage/v1/b/BUCKET/o/OBJECT
            self._send_facts(self.server.buckets / parts[3] / parts[5])
        elif len(parts) == 5:
            self._send_list(self.server.buckets / parts[3], dict(urllib.parse.parse_qsl(url.query)))
        else:
            self._send({"location": "HERE"})

    def do_POST(self):
        self.send_error(403)

    do_PUT = do_DELETE = do_POST

    def _send_file(self, path):
        content = path.read_bytes() if path.is_file() else None
        first, last = (int(end) for end in self.headers["Range"].removeprefix("bytes=").split("-"))
        if content is None or first >= len(content):
            self.send_error(404 if content is None else 416)
        else:
            self._send_bytes(content[first : last + 1], status=206)

    def _send_facts(self, path):
        if path.is_file():
            size = str(path.stat().st_size)
            self._send({"size": size, "generation": "1", "updated": "2026-01-01T00:00:00.000Z"})
        else:
            self.send_error(404)

    def _send_list(self, bucket, query):
        """Objects whose names begin with a prefix. Names with another slash are cut after it."""
        names = [path.relative_to(bucket).as_posix() for path in sorted(bucket.rglob("*")) if path.is_file()]
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in names:
            head, slash, _ = name.removeprefix(prefix).partition(delimiter or "\0")
            if name.startswith(prefix):
                prefixes.add(prefix + head + slash) if slash else items.append({"name": name})
        self._send({"items": items, "prefixes": sorted(prefixes)})

    def _send(self, content):
        self._send_bytes(json.dumps(content).encode())

    def _send_bytes(self, content, status=200):
        self.server.requests.append((self.command, self.path, len(content)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code, message=None, explain=None):
        self._send_bytes(b"", status=code)

    def log_message(self, *_):
        pass
