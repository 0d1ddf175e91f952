"""alexnet-client, against a server that speaks TF Serving's protos and has an exported model."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import socket
import socketserver
import subprocess
import threading
import time

import grpc
import model_server
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import image_files, in_background, run, run_well
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from alexnet_tf.serving import image_requests, remote_model

PROTOCOLS = ("grpc", "http")


@pytest.fixture(scope="module")
def server(export_dir):
    with model_server.ModelServer(model_server.Model(export_dir, "alexnet")) as served:
        yield served


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of five images and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested").mkdir()
    for number, path in enumerate(image_files(folder, 5)):
        path.rename(folder / ("nested" if number % 2 else "") / path.name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden").write_text("not to be sent")
    return folder


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for localhost and its key, and one of somebody else, all of authorities of their own."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, host in (("ours", "localhost"), ("other", "localhost"), ("elsewhere", "elsewhere.test")):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
        command += ["-addext", f"subjectAltName=DNS:{host}"]
        command += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def address(server, protocol):
    port = server.grpc_port if protocol.startswith("grpc") else server.rest_port
    return f"{protocol}://localhost:{port}"


def expected(saved, content, signature="serving_default"):
    outputs = saved.signatures[signature](images=tf.constant([content]))
    names = tuple(name.decode() for name in outputs["class_names"].numpy()[0])
    return names, outputs["probabilities"].numpy()[0]


class TestPredictWithRetries:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("signature", ["serving_default", "ten_view"])
    def test_predictions_are_the_models(self, protocol, signature, server, saved, photos):
        contents = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
        connection = remote_model.connect(address(server, protocol), "alexnet", signature=signature)
        predictions = remote_model.predict_with_retries(connection, [*contents, b"no image"], 30)
        for content, prediction in zip(contents, predictions, strict=False):
            names, probabilities = expected(saved, content, signature)
            assert prediction.valid
            assert prediction.class_names == names
            np.testing.assert_allclose(prediction.probabilities, probabilities, rtol=1e-5)
        assert predictions[-1] == remote_model.Prediction(False, (), ())
        assert len(predictions) == len(contents) + 1

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_good_images_are_classified_among_bad_ones_of_other_clients(self, protocol, server, saved, photos):
        contents = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
        rows = [expected(saved, content) for content in contents]
        bad = [b"", b"no image", contents[0][:100]]

        def predict(number):
            connection = remote_model.connect(address(server, protocol), "alexnet")
            if number % 3 == 0:
                (prediction,) = remote_model.predict_with_retries(connection, [bad[number // 3 % 3]], 60)
                return not prediction.valid
            names, probabilities = rows[number % 5]
            (prediction,) = remote_model.predict_with_retries(connection, [contents[number % 5]], 60)
            return prediction.class_names == names and np.allclose(prediction.probabilities, probabilities, atol=1e-5)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(pool.map(predict, range(96)))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_unavailable_server_is_retried_with_exponential_backoff(self, protocol, server, photos):
        connection = remote_model.connect(address(server, protocol), "alexnet")
        content = next(photos.glob("*.png")).read_bytes()
        waits, server.failures = [], 4
        (prediction,) = remote_model.predict_with_retries(connection, [content], 30, sleep=waits.append)
        assert prediction.valid
        assert len(waits) == 4
        assert all(0.05 * 2**number <= wait <= 0.1 * 2**number for number, wait in enumerate(waits))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("code, status", [("UNAVAILABLE", 429), ("RESOURCE_EXHAUSTED", 502), ("ABORTED", 504)])
    def test_every_status_of_an_overloaded_server_is_retried(self, protocol, code, status, server, photos, monkeypatch):
        monkeypatch.setattr(server, "failure", (grpc.StatusCode[code], status))
        connection = remote_model.connect(address(server, protocol), "alexnet")
        server.failures, waits = 2, []
        content = next(photos.glob("*.png")).read_bytes()
        assert remote_model.predict_with_retries(connection, [content], 30, sleep=waits.append)[0].valid
        assert len(waits) == 2

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
    def test_errors_are_reported_and_not_retried(self, protocol, model, options, message, server):
        connection = remote_model.connect(address(server, protocol), model, **options)
        before = server.requests
        with pytest.raises(remote_model.RequestFailed, match=message) as failure:
            remote_model.predict_with_retries(connection, [b"x"], 30)
        assert not failure.value.transient
        assert server.requests == before + 1

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_deadline_ends_the_retries(self, protocol):
        with socket.socket() as unused:  # bound, but nobody listens there
            unused.bind(("127.0.0.1", 0))
            connection = remote_model.connect(f"{protocol}://127.0.0.1:{unused.getsockname()[1]}", "alexnet")
            waits = []  # and no other time passes

            def clock():
                return sum(waits)

            with pytest.raises(remote_model.RequestFailed, match=r"\d attempts, deadline 1 s"):
                remote_model.predict_with_retries(connection, [b"x"], 1.0, clock, waits.append)
            assert len(waits) >= 3 and sum(waits) < 1 < sum(waits) + 2 * waits[-1] + 0.1 * 2 ** len(waits)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("drips", [False, True])
    def test_server_that_never_responds_does_not_block_the_client(self, protocol, drips):
        class Silent(socketserver.BaseRequestHandler):
            def handle(self):
                try:
                    while not over.wait(0.05):
                        if drips:
                            self.request.sendall(b"H")
                except OSError:
                    pass

        over = threading.Event()
        with (
            in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent)) as silent,
            contextlib.ExitStack() as end,
        ):
            end.callback(over.set)
            connection = remote_model.connect(f"{protocol}://127.0.0.1:{silent.server_address[1]}", "alexnet")
            begin = time.monotonic()
            with pytest.raises(remote_model.RequestFailed):
                remote_model.predict_with_retries(connection, [b"x"], 1.0)
            assert time.monotonic() - begin < 30  # and not forever, however busy the machine

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"nonsense", b"[]", b"{}", b'{"predictions": []}', b'{"predictions": [{"valid": true}]}', b"\xff"),
            b'{"predictions": [{"valid": true, "class_names": ["a", "b"], "probabilities": [0.5]}]}',
            b"[" * 100_000,
        ],
    )
    def test_unexpected_responses_are_failures_and_no_crashes(self, body):
        class Strange(socketserver.StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        with in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Strange)) as strange:
            connection = remote_model.connect(f"http://127.0.0.1:{strange.server_address[1]}", "alexnet")
            with pytest.raises(
                remote_model.RequestFailed, match=r"unexpected response|returned 0 predictions"
            ) as failure:
                remote_model.predict_with_retries(connection, [b"x"], 30)
            assert not failure.value.transient and failure.value.responded


class TestTransportSecurity:
    @pytest.mark.parametrize("scheme", ["grpcs", "https", "grpc", "http"])
    def test_certificate_is_verified_by_default(self, scheme, server, certificates, photos):
        content = next(photos.glob("*.png")).read_bytes()
        keys = {"certificate": certificates / "ours.pem", "key": certificates / "ours.key"}
        with model_server.ModelServer(server.model, **keys) as secure:
            trusting = remote_model.connect(
                address(secure, scheme), "alexnet", ca_certificate=certificates / "ours.pem"
            )
            assert remote_model.predict_with_retries(trusting, [content], 30)[0].valid
            for authority in (None, certificates / "other.pem"):
                if authority is None and scheme in ("grpc", "http"):
                    continue  # no TLS was required
                connection = remote_model.connect(address(secure, scheme), "alexnet", ca_certificate=authority)
                before = secure.requests
                with pytest.raises(remote_model.RequestFailed, match=r"(?i)certificate.verify.failed") as failure:
                    remote_model.predict_with_retries(connection, [content], 10)
                assert not failure.value.transient
                assert secure.requests == before

    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_certificate_of_another_name_is_refused(self, scheme, server, certificates):
        keys = {"certificate": certificates / "elsewhere.pem", "key": certificates / "elsewhere.key"}
        with model_server.ModelServer(server.model, **keys) as secure:
            authority = certificates / "elsewhere.pem"
            connection = remote_model.connect(address(secure, scheme), "alexnet", ca_certificate=authority)
            with pytest.raises(remote_model.RequestFailed):
                remote_model.predict_with_retries(connection, [b"x"], 2)
            assert secure.requests == 0

    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_plain_server_gets_no_image_if_tls_was_required_and_no_retry(self, scheme, server):
        before = server.requests
        connection = remote_model.connect(address(server, scheme), "alexnet")
        with pytest.raises(remote_model.RequestFailed, match=r"has no TLS|WRONG_VERSION_NUMBER") as failure:
            remote_model.predict_with_retries(connection, [b"x"], 30, sleep=lambda wait: pytest.fail("it retries"))
        assert not failure.value.responded
        assert server.requests == before


class TestPredictFiles:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_server_that_is_down_ends_it_with_the_first_request(self, protocol, photos):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            connection = remote_model.connect(f"{protocol}://127.0.0.1:{unused.getsockname()[1]}", "alexnet")
            files = image_requests.find_files([photos])
            rows = list(image_requests.predict_files(connection, files, 2, 0.3))
        assert [row.path for row in rows] == files[:2]
        assert all(row.error for row in rows)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_server_that_is_overloaded_does_not(self, protocol, server, photos, monkeypatch):
        monkeypatch.setattr(server, "failures", 1)
        monkeypatch.setattr(server, "failure", (grpc.StatusCode.INTERNAL, 500))
        connection = remote_model.connect(address(server, protocol), "alexnet")
        files = image_requests.find_files([photos])
        rows = list(image_requests.predict_files(connection, files, 2, 30))
        assert [row.path for row in rows] == files
        assert [row.prediction is not None for row in rows] == [False, False, True, True, True, False]

    def test_what_is_no_image_is_not_read(self, tmp_path, photos):
        os.mkfifo(tmp_path / "pipe")  # reading it would wait forever
        with (tmp_path / "video").open("wb") as file:
            file.truncate(1 << 40)
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        (tmp_path / "folder").symlink_to(photos)
        files = image_requests.find_files([tmp_path])
        assert [path.name for path in files] == ["dangling", "folder", "pipe", "video"]
        ((*rows,),) = image_requests.batch_files(files, 16)
        errors = [str(error) for _, error in rows]
        assert "No such file" in errors[0]
        assert errors[1] == errors[2] == "it is no regular file"
        assert errors[3] == "an image may have 160,000,000 bytes, and it has 1,099,511,627,776"


class TestConnect:
    @pytest.mark.parametrize("wrong", ["localhost:8500", "ftp://host", "http://", "http://host/v1/models"])
    def test_wrong_address_is_refused(self, wrong):
        with pytest.raises(ValueError, match="`server` must be grpc://"):
            remote_model.connect(wrong, "alexnet")

    def test_file_that_is_no_certificate_is_refused(self, tmp_path):
        (tmp_path / "none.pem").write_text("no certificate")
        for name in ("none.pem", "missing.pem"):
            with pytest.raises(ValueError, match="`ca_certificate` must be a PEM file"):
                remote_model.connect("https://localhost", "alexnet", ca_certificate=tmp_path / name)


class TestProgram:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_folders_become_json_lines_and_a_panel(self, protocol, server, saved, photos, tmp_path):
        arguments = [f"--server={address(server, protocol)}", "--format=jsonl", "--batch_size=2"]
        result = run("client", *arguments, f"--panel={tmp_path / 'panel.png'}", photos)
        assert result.returncode == 1  # for the one that is no image
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        names = ["image-0.png", "image-2.png", "image-4.png", "nested/image-1.png", "nested/image-3.png", "notes.txt"]
        assert [line["file"] for line in lines] == [str(photos / name) for name in names]
        for line in lines[:-1]:
            names, probabilities = expected(saved, pathlib.Path(line["file"]).read_bytes())
            assert line["error"] is None
            assert [row["class"] for row in line["classes"]] == list(names)
            np.testing.assert_allclose([row["probability"] for row in line["classes"]], probabilities, rtol=1e-5)
        assert lines[-1]["classes"] == []
        assert lines[-1]["error"] == "not an image that can be read"
        assert "No prediction for 1 of 6 files" in result.stderr
        assert Image.open(tmp_path / "panel.png").size[0] > 500

    def test_table_has_a_line_for_each_file(self, server, saved, photos):
        path = photos / "image-0.png"
        output = run_well("client", f"--server={address(server, 'http')}", "--signature=ten_view", path)
        names, probabilities = expected(saved, path.read_bytes(), "ten_view")
        row = "  ".join(f"{p:6.2%} {name}" for name, p in zip(names, probabilities, strict=True))
        assert output == f"{path}  {row}\n"

    def test_missing_path_and_absent_server_are_errors(self, photos):
        result = run("client", "--server=http://localhost:1", "nowhere")
        assert "There is no file or folder nowhere" in result.stderr
        result = run("client", "--server=http://localhost:1", "--deadline=0.5", "--batch_size=1", photos)
        assert result.returncode == 1
        assert "http://localhost:1 doesn't respond: 5 files were not sent." in result.stderr
        assert "No prediction for 6 of 6 files." in result.stderr


class TestModelServer:
    """The tests' server speaks as TF Serving does also where the client has no request for it."""

    def test_classify_and_metadata_by_grpc(self, server, saved, photos):
        content = (photos / "image-0.png").read_bytes()
        with grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = classification_pb2.ClassificationRequest()
            request.model_spec.name, request.model_spec.signature_name = "alexnet", "classify"
            example = request.input.example_list.examples.add()
            example.features.feature["image/encoded"].bytes_list.value.append(content)
            (classes,) = stub.Classify(request, timeout=30).result.classifications
            names, probabilities = expected(saved, content)
            assert tuple(each.label for each in classes.classes) == names
            np.testing.assert_allclose([each.score for each in classes.classes], probabilities, rtol=1e-5)
            request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
            request.model_spec.name = "alexnet"
            metadata = stub.GetModelMetadata(request, timeout=30).metadata["signature_def"]
            signatures = get_model_metadata_pb2.SignatureDefMap()
            assert metadata.Unpack(signatures)
            assert signatures.signature_def["classify"].method_name == "tensorflow/serving/classify"
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "alexnet"
            request.inputs["images"].CopyFrom(tf.make_tensor_proto([1.0]))
            with pytest.raises(grpc.RpcError, match="images must be"):
                stub.Predict(request, timeout=30)
