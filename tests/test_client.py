"""alexnet-client and a server with TensorFlow Serving's protocols."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import socket
import socketserver
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import call, image_files, in_background, run

from alexnet_tf.serving import image_requests, remote_model

grpc = pytest.importorskip("grpc")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
import model_server  # noqa: E402

PROTOCOLS = ("grpc", "http")


@pytest.fixture(scope="module")
def server(export_dir):
    with model_server.ModelServer(model_server.Model(export_dir, "alexnet")) as served:
        yield served


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of five images, two of them in a subfolder, and a text file."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested").mkdir()
    for number, path in enumerate(image_files(folder, 5)):
        path.rename(folder / ("nested" if number % 2 else "") / path.name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden").write_text("not to be sent")
    return folder


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


@pytest.fixture(scope="module")
def contents(photos):
    return [path.read_bytes() for path in sorted(photos.rglob("*.png"))]


def address(server, protocol):
    port = server.grpc_port if protocol.startswith("grpc") else server.rest_port
    return f"{protocol}://localhost:{port}"


def expected(saved, content, signature="serving_default"):
    outputs = saved.signatures[signature](images=tf.constant([content]))
    names = tuple(name.decode() for name in outputs["class_names"].numpy()[0])
    return names, outputs["probabilities"].numpy()[0]


@contextlib.contextmanager
def unused_port():
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def rest_server(body):
    """A server with the same response to every request; yields its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as served:
        yield f"http://127.0.0.1:{served.server_address[1]}"


@contextlib.contextmanager
def grpc_server(respond):
    """A gRPC server whose Predict returns what `respond` does, a PredictResponse; yields its address."""
    method = grpc.unary_unary_rpc_method_handler(
        lambda request, context: respond(), response_serializer=lambda response: response.SerializeToString()
    )
    handler = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": method})
    served = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[handler])
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        served.stop(None)


class TestPredictWithRetries:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("signature", ["serving_default", "ten_view"])
    def test_predictions_equal_the_models(self, protocol, signature, server, saved, contents):
        connection = remote_model.connect(address(server, protocol), "alexnet", signature=signature)
        *predictions, last = remote_model.predict_with_retries(connection, [*contents, b"no image"], 30)
        for content, prediction in zip(contents, predictions, strict=True):
            names, probabilities = expected(saved, content, signature)
            assert prediction.valid
            assert prediction.class_names == names
            np.testing.assert_allclose(prediction.probabilities, probabilities, rtol=1e-5)
        assert last == remote_model.Prediction(False, (), ())

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_concurrent_clients_get_their_own_predictions(self, protocol, server, saved, contents):
        rows = [expected(saved, content) for content in contents]
        bad = [b"", b"no image", contents[0][:100]]
        connection = remote_model.connect(address(server, protocol), "alexnet")

        def predict(number):
            if number % 3 == 0:
                (prediction,) = remote_model.predict_with_retries(connection, [bad[number // 3 % 3]], 60)
                return not prediction.valid
            names, probabilities = rows[number % 5]
            (prediction,) = remote_model.predict_with_retries(connection, [contents[number % 5]], 60)
            return prediction.class_names == names and np.allclose(prediction.probabilities, probabilities, atol=1e-5)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(pool.map(predict, range(96)))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "code, status", [("UNAVAILABLE", 503), ("UNAVAILABLE", 429), ("RESOURCE_EXHAUSTED", 502), ("ABORTED", 504)]
    )
    def test_overloaded_server_is_retried_with_exponential_backoff(
        self, protocol, code, status, server, contents, monkeypatch
    ):
        monkeypatch.setattr(server, "failure", (grpc.StatusCode[code], status))
        connection = remote_model.connect(address(server, protocol), "alexnet")
        waits, server.failures = [], 4
        (prediction,) = remote_model.predict_with_retries(connection, contents[:1], 30, sleep=waits.append)
        assert prediction.valid
        assert len(waits) == 4
        assert all(0.05 * 2**number <= wait <= 0.1 * 2**number for number, wait in enumerate(waits))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "model, options, message",
        [
            ("other", {}, "not found"),
            ("alexnet", {"version": 9}, "not found"),
            ("alexnet", {"signature": "no_such"}, "not found: no_such"),
            ("alexnet", {"signature": "predict"}, "[Ii]nputs|JSON"),
        ],
    )
    def test_other_errors_are_not_retried(self, protocol, model, options, message, server):
        connection = remote_model.connect(address(server, protocol), model, **options)
        before = server.requests
        with pytest.raises(remote_model.RequestFailed, match=message) as failure:
            remote_model.predict_with_retries(connection, [b"x"], 30)
        assert not failure.value.transient
        assert server.requests == before + 1

    def test_timeouts_shrink_to_the_deadline(self):
        timeouts, seconds = [], [0.0]

        class Slow:
            def predict(self, encoded_images, timeout_s):
                timeouts.append(timeout_s)
                seconds[0] += min(timeout_s, 0.3)
                raise remote_model.RequestFailed("slow", True, False)

        def sleep(wait):
            seconds[0] += wait

        with pytest.raises(remote_model.RequestFailed, match=r"\d attempts, deadline 2 s"):
            remote_model.predict_with_retries(Slow(), [b"x"], 2.0, lambda: seconds[0], sleep)
        assert timeouts[0] == 2 and len(timeouts) > 3
        for before, after in itertools.pairwise(timeouts):
            assert 0.001 <= after <= before - 0.3
        assert seconds[0] <= 2 + 0.3

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_unreachable_server_is_retried_until_the_deadline(self, protocol):
        with unused_port() as port:
            connection = remote_model.connect(f"{protocol}://127.0.0.1:{port}", "alexnet")
            waits = []
            with pytest.raises(remote_model.RequestFailed, match=r"\d attempts, deadline 1 s"):
                remote_model.predict_with_retries(connection, [b"x"], 1.0, lambda: sum(waits), waits.append)
            assert len(waits) >= 3 and sum(waits) < 1 < sum(waits) + 2 * waits[-1] + 0.1 * 2 ** len(waits)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("drips", [False, True])
    def test_silent_server_does_not_block_past_the_deadline(self, protocol, drips):
        class Silent(socketserver.BaseRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError):
                    while not over.wait(0.05):
                        if drips:
                            self.request.sendall(b"H")

        over = threading.Event()
        with in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent)) as silent:
            connection = remote_model.connect(f"{protocol}://127.0.0.1:{silent.server_address[1]}", "alexnet")
            begin = time.monotonic()
            try:
                with pytest.raises(remote_model.RequestFailed, match="deadline 1 s"):
                    remote_model.predict_with_retries(connection, [b"x"], 1.0)
            finally:
                over.set()
            assert 0.5 < time.monotonic() - begin < 30  # a busy machine may need longer than a second

    def test_slow_grpc_server_does_not_block_past_the_deadline(self):
        with grpc_server(lambda: time.sleep(3)) as slow:
            begin = time.monotonic()
            with pytest.raises(remote_model.RequestFailed, match="DEADLINE_EXCEEDED"):
                remote_model.predict_with_retries(remote_model.connect(slow, "alexnet"), [b"x"], 0.5)
            assert time.monotonic() - begin < 2.5


ROW = {"valid": True, "class_names": ["a", "b"], "probabilities": [0.75, 0.25]}


def rest_body(**changes):
    return json.dumps({"predictions": [ROW | changes]}).encode()


def grpc_response(**changes):
    """The same row by gRPC."""
    response = predict_pb2.PredictResponse()
    arrays = {"valid": [True], "class_names": [[b"a", b"b"]], "probabilities": np.float32([[0.75, 0.25]])} | changes
    for name, array in arrays.items():
        if array is not None:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
    return response


class TestResponses:
    """Responses of servers that are broken or hostile."""

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"nonsense", b"[]", b"{}", b"\xff", b"[" * 100_000),
            *(b'{"predictions": []}', b'{"predictions": [{"valid": true}]}', b'{"predictions": [1]}'),
            rest_body(valid="false"),
            rest_body(valid=1),
            rest_body(probabilities=[0.5]),
            rest_body(probabilities=[7.0, 0.25]),
            rest_body(probabilities=[-0.5, 0.25]),
            rest_body(probabilities=[float("nan"), 0.25]),
            rest_body(probabilities=[10**400, 0.25]),
            rest_body(probabilities=[True, 0.25]),
            rest_body(probabilities=["0.75", "0.25"]),
            rest_body(probabilities=0.5),
            rest_body(class_names=["a", 1]),
            rest_body(class_names="ab"),
            json.dumps({"predictions": [ROW, ROW]}).encode(),
        ],
    )
    def test_wrong_rest_response_is_refused_without_retry(self, body):
        with rest_server(body) as strange:
            connection = remote_model.connect(strange, "alexnet")
            with pytest.raises(remote_model.RequestFailed, match="unexpected response") as failure:
                remote_model.predict_with_retries(connection, [b"x"], 30)
            assert not failure.value.transient and failure.value.responded

    @pytest.mark.parametrize(
        "changes",
        [
            *({"valid": None}, {"valid": [1]}, {"valid": [True, True]}, {"valid": [[True]]}),
            *({"class_names": [["a"]]}, {"class_names": [[b"\xff", b"b"]]}, {"class_names": [[1.0, 2.0]]}),
            *({"probabilities": [[7.0, 0.25]]}, {"probabilities": [[np.nan, 0.25]]}, {"probabilities": [[0.75]]}),
        ],
    )
    def test_wrong_grpc_response_is_refused_without_retry(self, changes):
        with grpc_server(lambda: grpc_response(**changes)) as strange:
            connection = remote_model.connect(strange, "alexnet")
            with pytest.raises(remote_model.RequestFailed, match="unexpected response") as failure:
                remote_model.predict_with_retries(connection, [b"x"], 30)
            assert not failure.value.transient and failure.value.responded

    @pytest.mark.parametrize("shape", [[1, 3], [2, 2], [-1, 2], [1, -1], [1, 10**9], [10**9, 10**9], [2]])
    def test_values_that_do_not_match_the_shape_take_no_memory(self, shape):
        response = grpc_response()
        del response.outputs["probabilities"].tensor_shape.dim[:]
        for size in shape:
            response.outputs["probabilities"].tensor_shape.dim.add(size=size)
        with grpc_server(lambda: response) as strange:
            connection = remote_model.connect(strange, "alexnet")
            with pytest.raises(remote_model.RequestFailed, match="unexpected response"):
                remote_model.predict_with_retries(connection, [b"x"], 30)

    def test_every_form_of_a_tensor_is_read(self):
        as_fields = grpc_response()
        for name, field in (("probabilities", "float_val"), ("valid", "bool_val")):
            values = tf.make_ndarray(as_fields.outputs[name]).ravel().tolist()
            as_fields.outputs[name].ClearField("tensor_content")
            getattr(as_fields.outputs[name], field)[:] = values
        for response in (grpc_response(), as_fields):
            with grpc_server(lambda response=response: response) as served:
                connection = remote_model.connect(served, "alexnet")
                assert connection.predict([b"x"], 30) == [remote_model.Prediction(True, ("a", "b"), (0.75, 0.25))]

    def test_control_characters_are_replaced(self):
        with rest_server(rest_body(class_names=["\x1b[31mred", "two\nlines"])) as strange:
            (prediction,) = remote_model.connect(strange, "alexnet").predict([b"x"], 30)
        assert prediction.class_names == ("\ufffd[31mred", "two\ufffdlines")

    def test_control_characters_of_an_error_are_replaced(self, server):
        connection = remote_model.connect(address(server, "http"), "alexnet", signature="\x1b[31m")
        with pytest.raises(remote_model.RequestFailed, match=r"not found: \ufffd\[31m"):
            connection.predict([b"x"], 30)

    def test_huge_response_is_refused(self, monkeypatch):
        monkeypatch.setattr(remote_model, "_MAX_RESPONSE_BYTES", 1000)
        with rest_server(rest_body(class_names=["a" * 1000, "b"])) as strange:
            with pytest.raises(remote_model.RequestFailed, match="more than 1000 bytes") as failure:
                remote_model.connect(strange, "alexnet").predict([b"x"], 30)
            assert not failure.value.transient


class TestTransportSecurity:
    @pytest.mark.parametrize("scheme", ["grpcs", "https", "grpc", "http"])
    def test_certificate_is_verified(self, scheme, server, certificates, contents):
        keys = {"certificate": certificates / "ours.pem", "key": certificates / "ours.key"}
        with model_server.ModelServer(server.model, **keys) as secure:
            trusting = remote_model.connect(
                address(secure, scheme), "alexnet", ca_certificate=certificates / "ours.pem"
            )
            assert remote_model.predict_with_retries(trusting, contents[:1], 30)[0].valid
            for authority in (None, certificates / "other.pem"):
                if authority is None and scheme in ("grpc", "http"):
                    continue  # no TLS was requested
                connection = remote_model.connect(address(secure, scheme), "alexnet", ca_certificate=authority)
                before = secure.requests
                with pytest.raises(remote_model.RequestFailed, match=r"(?i)certificate.verify.failed") as failure:
                    remote_model.predict_with_retries(connection, contents[:1], 10)
                assert not failure.value.transient
                assert secure.requests == before

    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_certificate_for_another_host_is_refused(self, scheme, server, certificates):
        keys = {"certificate": certificates / "elsewhere.pem", "key": certificates / "elsewhere.key"}
        with model_server.ModelServer(server.model, **keys) as secure:
            authority = certificates / "elsewhere.pem"
            connection = remote_model.connect(address(secure, scheme), "alexnet", ca_certificate=authority)
            with pytest.raises(remote_model.RequestFailed):
                remote_model.predict_with_retries(connection, [b"x"], 2)
            assert secure.requests == 0

    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_server_without_tls_gets_no_image_and_no_retry(self, scheme, server):
        before = server.requests
        connection = remote_model.connect(address(server, scheme), "alexnet")
        with pytest.raises(remote_model.RequestFailed, match=r"has no TLS|WRONG_VERSION_NUMBER") as failure:
            remote_model.predict_with_retries(connection, [b"x"], 30, sleep=lambda wait: pytest.fail("it retries"))
        assert not failure.value.responded
        assert server.requests == before

    def test_redirects_and_proxies_get_no_image(self, server, contents, monkeypatch):
        class Redirect(socketserver.StreamRequestHandler):
            def handle(self):
                location = f"{address(server, 'http')}/v1/models/alexnet:predict".encode()
                self.wfile.write(b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location)

        before = server.requests
        with in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redirect)) as redirecting:
            port = redirecting.server_address[1]
            with pytest.raises(remote_model.RequestFailed, match="returned 307"):
                remote_model.connect(f"http://127.0.0.1:{port}", "alexnet").predict(contents[:1], 30)
            assert server.requests == before
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
            assert remote_model.connect(address(server, "http"), "alexnet").predict(contents[:1], 30)[0].valid


class TestPredictFiles:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_stops_at_a_server_that_is_down(self, protocol, photos):
        with unused_port() as port:
            connection = remote_model.connect(f"{protocol}://127.0.0.1:{port}", "alexnet")
            files = image_requests.find_files([photos])
            rows = list(image_requests.predict_files(connection, files, 2, 0.3))
        assert [row.path for row in rows] == files[:2]
        assert all(row.error for row in rows)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_goes_on_after_a_failed_request(self, protocol, server, photos, monkeypatch):
        monkeypatch.setattr(server, "failures", 1)
        monkeypatch.setattr(server, "failure", (grpc.StatusCode.INTERNAL, 500))
        connection = remote_model.connect(address(server, protocol), "alexnet")
        files = image_requests.find_files([photos])
        rows = list(image_requests.predict_files(connection, files, 2, 30))
        assert [row.path for row in rows] == files
        assert [row.prediction is not None for row in rows] == [False, False, True, True, True, False]

    def test_files_that_can_not_be_images_are_not_read(self, tmp_path, photos):
        os.mkfifo(tmp_path / "pipe")  # reading it would block forever
        with (tmp_path / "video").open("wb") as file:
            file.truncate(1 << 40)
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        (tmp_path / "folder").symlink_to(photos)
        files = image_requests.find_files([tmp_path])
        assert [path.name for path in files] == ["dangling", "folder", "pipe", "video"]
        ((*rows,),) = image_requests.batch_files(files, 16)
        errors = [str(error) for _, error in rows]
        assert "No such file" in errors[0]
        assert errors[1] == errors[2] == "not a regular file"
        assert errors[3] == "images must have at most 160,000,000 bytes. Received: 1,099,511,627,776 bytes"


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


class TestProgram:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_folder_gives_json_lines_and_a_panel(self, protocol, server, saved, photos, tmp_path):
        arguments = [f"--server={address(server, protocol)}", "--format=jsonl", "--batch_size=2"]
        result = run("client", *arguments, f"--panel={tmp_path / 'panel.png'}", photos)
        assert result.returncode == 1  # notes.txt is not an image
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        names = ["image-0.png", "image-2.png", "image-4.png", "nested/image-1.png", "nested/image-3.png", "notes.txt"]
        assert [line["file"] for line in lines] == [str(photos / name) for name in names]
        for line in lines[:-1]:
            names, probabilities = expected(saved, pathlib.Path(line["file"]).read_bytes())
            assert line["error"] is None
            assert [row["class"] for row in line["classes"]] == list(names)
            np.testing.assert_allclose([row["probability"] for row in line["classes"]], probabilities, rtol=1e-5)
        assert lines[-1]["classes"] == []
        assert lines[-1]["error"] == "not an image that the server can decode"
        assert "No prediction for 1 of 6 files" in result.stderr
        assert Image.open(tmp_path / "panel.png").size[0] > 500

    def test_table_has_a_line_for_each_file(self, server, saved, photos):
        path = photos / "image-0.png"
        output = call("client", f"--server={address(server, 'http')}", "--signature=ten_view", path)
        names, probabilities = expected(saved, path.read_bytes(), "ten_view")
        row = "  ".join(f"{p:6.2%} {name}" for name, p in zip(names, probabilities, strict=True))
        assert output == f"{path}  {row}\n"

    def test_program_names_missing_paths_and_absent_servers(self, photos):
        result = run("client", "--server=http://localhost:1", "nowhere")
        assert "There is no file or folder nowhere" in result.stderr
        result = run("client", "--server=http://localhost:1", "--deadline=0.5", "--batch_size=1", photos)
        assert result.returncode == 1
        assert "http://localhost:1 doesn't respond: 5 files were not sent." in result.stderr
        assert "No prediction for 6 of 6 files." in result.stderr
