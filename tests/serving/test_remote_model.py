"""The gRPC and REST clients, and a server with TensorFlow Serving's protocols."""

import concurrent.futures
import contextlib
import itertools
import socket
import socketserver
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from programs import in_background

from alexnet_tf.serving import remote_model

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving")
import model_server  # noqa: E402

both_protocols = pytest.mark.parametrize("protocol", ["grpc", "http"])


@pytest.fixture(scope="module")
def server(export_dir, saved):
    with model_server.ModelServer(model_server.Model(export_dir, "alexnet", saved)) as served:
        yield served


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates with their keys: two for localhost, one for another host."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, host in (("ours", "localhost"), ("other", "localhost"), ("elsewhere", "elsewhere.test")):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
        command += ["-addext", f"subjectAltName=DNS:{host}"]
        command += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client waits between attempts; a clock that only they advance replaces the real one."""
    made = []
    clock = types.SimpleNamespace(monotonic=lambda: sum(made), sleep=made.append)
    monkeypatch.setattr(remote_model, "time", clock)
    return made


def failure_of(address, deadline_s=30, **options):
    """The error of a request for one image."""
    connection = remote_model.connect(address, "alexnet", **options)
    with pytest.raises(remote_model.RequestFailed) as failure:
        remote_model.predict_with_retries(connection, [b"x"], deadline_s)
    return failure.value


class TestPredictWithRetries:
    @both_protocols
    @pytest.mark.parametrize("signature", ["serving_default", "ten_view"])
    def test_predictions_equal_the_models(self, protocol, signature, server, saved, encoded):
        connection = remote_model.connect(server.address(protocol), "alexnet", version=1, signature=signature)
        *predictions, last = remote_model.predict_with_retries(connection, [*encoded, b"no image"], 30)
        outputs = saved.signatures[signature](images=tf.constant(encoded))
        expected_names, expected = outputs["class_names"].numpy(), outputs["probabilities"].numpy()
        for prediction, names, probabilities in zip(predictions, expected_names, expected, strict=True):
            assert prediction.valid
            assert prediction.class_names == tuple(name.decode() for name in names)
            np.testing.assert_allclose(prediction.probabilities, probabilities, rtol=1e-5)
        assert last == remote_model.Prediction(False, (), ())

    @both_protocols
    def test_concurrent_clients_get_their_own_predictions(self, protocol, server, encoded):
        connection = remote_model.connect(server.address(protocol), "alexnet")
        contents = [*encoded, b"", b"no image", encoded[0][:100]]
        alone = [connection.predict([content], 60)[0] for content in contents]

        def predict(number):
            (prediction,), expected = connection.predict([contents[number % 8]], 60), alone[number % 8]
            np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-5)
            return (prediction.valid, prediction.class_names) == (expected.valid, expected.class_names)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(pool.map(predict, range(64)))

    @both_protocols
    @pytest.mark.parametrize(
        "code, status", [("UNAVAILABLE", 503), ("UNAVAILABLE", 429), ("RESOURCE_EXHAUSTED", 502), ("ABORTED", 504)]
    )
    def test_overloaded_server_is_retried_with_exponential_backoff(
        self, protocol, code, status, server, encoded, waits, monkeypatch
    ):
        monkeypatch.setattr(server, "failure", (grpc.StatusCode[code], status))
        monkeypatch.setattr(server, "failures", 4)
        connection = remote_model.connect(server.address(protocol), "alexnet")
        (prediction,) = remote_model.predict_with_retries(connection, encoded[:1], 30)
        assert prediction.valid
        assert len(waits) == 4
        assert all(0.05 * 2**number <= wait <= 0.1 * 2**number for number, wait in enumerate(waits))

    @both_protocols
    @pytest.mark.parametrize(
        "model, options, message",
        [
            ("other", {}, "not found"),
            ("alexnet", {"version": 9}, "not found"),
            ("alexnet", {"signature": "\x1b[31m"}, "not found: \ufffd\\[31m"),  # no control characters
            ("alexnet", {"signature": "predict"}, "[Ii]nputs|JSON"),
        ],
    )
    def test_other_errors_are_not_retried(self, protocol, model, options, message, server):
        connection = remote_model.connect(server.address(protocol), model, **options)
        before = server.requests
        with pytest.raises(remote_model.RequestFailed, match=rf"{message}.* \(1 attempt, ") as failure:
            remote_model.predict_with_retries(connection, [b"x"], 30)
        assert not failure.value.transient and failure.value.responded
        assert server.requests == before + 1

    def test_timeouts_shrink_to_the_deadline(self, waits):
        timeouts = []

        class Slow:
            def predict(self, encoded_images, timeout_s):
                timeouts.append(timeout_s)
                waits.append(min(timeout_s, 0.3))
                raise remote_model.RequestFailed("slow", True, False)

        with pytest.raises(remote_model.RequestFailed, match=r"\d attempts, deadline 2 s"):
            remote_model.predict_with_retries(Slow(), [b"x"], 2.0)
        assert timeouts[0] == 2 and len(timeouts) > 3
        for before, after in itertools.pairwise(timeouts):
            assert 0.001 <= after <= before - 0.3
        assert sum(waits) <= 2 + 0.3

    @both_protocols
    def test_unreachable_server_is_retried_until_the_deadline(self, protocol, waits):
        with socket.socket() as bound:  # nobody listens there
            bound.bind(("127.0.0.1", 0))
            failure = failure_of(f"{protocol}://127.0.0.1:{bound.getsockname()[1]}", 1)
        assert f"({len(waits) + 1} attempts, deadline 1 s)" in str(failure) and not failure.responded
        assert len(waits) >= 3 and sum(waits) < 1 < sum(waits) + 2 * waits[-1] + 0.1 * 2 ** len(waits)


class TestTransportSecurity:
    @pytest.fixture
    def secure(self, server, certificates):
        """A function from a certificate's name to a server that uses it."""
        with contextlib.ExitStack() as stack:
            yield lambda name: stack.enter_context(
                model_server.ModelServer(
                    server.model, certificate=certificates / f"{name}.pem", key=certificates / f"{name}.key"
                )
            )

    @pytest.mark.parametrize("scheme", ["grpcs", "https", "grpc", "http"])
    def test_certificate_is_verified(self, scheme, secure, certificates, encoded):
        served = secure("ours")
        address = served.address(scheme)
        trusting = remote_model.connect(address, "alexnet", ca_certificate=certificates / "ours.pem")
        assert remote_model.predict_with_retries(trusting, encoded[:1], 30)[0].valid
        before = served.requests
        # Without an authority, grpc: and http: request no TLS.
        for authority in [certificates / "other.pem", *([None] if scheme.endswith("s") else [])]:
            failure = failure_of(address, 10, ca_certificate=authority)
            assert "certificate verify failed" in str(failure).lower().replace("_", " ")
            assert not failure.transient
        assert served.requests == before

    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_certificate_for_another_host_is_refused(self, scheme, secure, certificates):
        served = secure("elsewhere")
        failure_of(served.address(scheme), 2, ca_certificate=certificates / "elsewhere.pem")
        assert served.requests == 0

    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_server_without_tls_gets_no_image_and_no_retry(self, scheme, server, waits):
        before = server.requests
        failure = failure_of(server.address(scheme))
        assert "has no TLS" in str(failure) or "WRONG_VERSION_NUMBER" in str(failure)
        assert not failure.responded and not waits
        assert server.requests == before

    def test_redirects_and_proxies_get_no_image(self, server, encoded, monkeypatch):
        class Redirect(socketserver.StreamRequestHandler):
            def handle(self):
                location = f"{server.address('http')}/v1/models/alexnet:predict".encode()
                self.wfile.write(b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location)

        before = server.requests
        with in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redirect)) as redirecting:
            address = f"http://127.0.0.1:{redirecting.server_address[1]}"
            assert "returned 307" in str(failure_of(address))
            assert server.requests == before
            monkeypatch.setenv("http_proxy", address)
            assert remote_model.connect(server.address("http"), "alexnet").predict(encoded[:1], 30)[0].valid


class TestConnect:
    @pytest.mark.parametrize("wrong", ["localhost:8500", "ftp://host", "http://", "http://host/v1/models"])
    def test_wrong_address_is_refused(self, wrong):
        with pytest.raises(ValueError, match="`server` must be grpc://"):
            remote_model.connect(wrong, "alexnet")

    def test_wrong_certificate_file_is_refused(self, tmp_path):
        (tmp_path / "none.pem").write_text("no certificate")
        for name in ("none.pem", "missing.pem"):
            with pytest.raises(ValueError, match="`ca_certificate` must be a PEM file"):
                remote_model.connect("https://localhost", "alexnet", ca_certificate=tmp_path / name)

    def test_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
        with pytest.raises(ValueError, match=r"pip install --editable '\.\[serving\]'"):
            remote_model.connect("grpc://localhost", "alexnet")
