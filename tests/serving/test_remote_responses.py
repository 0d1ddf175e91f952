"""The gRPC and REST clients, and servers that are broken, hostile or slow."""

import concurrent.futures
import contextlib
import gzip
import json
import socketserver
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from programs import in_background

from alexnet_tf.serving import remote_model

grpc = pytest.importorskip("grpc")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")


@contextlib.contextmanager
def rest_server(body, header=b""):
    """A server with the same response to every request; yields its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (header, len(body), body))

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


def failure_of(address, deadline_s=30):
    """The error of a request for one image."""
    connection = remote_model.connect(address, "alexnet")
    with pytest.raises(remote_model.RequestFailed) as failure:
        remote_model.predict_with_retries(connection, [b"x"], deadline_s)
    return failure.value


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
    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"nonsense", b"[]", b"{}", b"\xff", b"[" * 100_000),
            *(b'{"predictions": []}', b'{"predictions": [{"valid": true}]}', b'{"predictions": [1]}'),
            *(rest_body(valid="false"), rest_body(valid=1)),
            *(rest_body(class_names=["a", 1]), rest_body(class_names="ab")),
            *(rest_body(probabilities=[each, 0.25]) for each in (7.0, -0.5, float("nan"), 10**400, True, "0.75")),
            *(rest_body(probabilities=[0.5]), rest_body(probabilities=0.5)),
            json.dumps({"predictions": [ROW, ROW]}).encode(),
        ],
    )
    def test_wrong_rest_response_is_refused_without_retry(self, body):
        with rest_server(body) as strange:
            failure = failure_of(strange)
        assert "unexpected response" in str(failure)
        assert not failure.transient and failure.responded

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
            failure = failure_of(strange)
        assert "unexpected response" in str(failure)
        assert not failure.transient and failure.responded

    @pytest.mark.parametrize("shape", [[1, 3], [2, 2], [-1, 2], [1, -1], [1, 10**9], [10**9, 10**9], [2]])
    def test_values_that_do_not_match_the_shape_take_no_memory(self, shape):
        response = grpc_response()
        del response.outputs["probabilities"].tensor_shape.dim[:]
        for size in shape:
            response.outputs["probabilities"].tensor_shape.dim.add(size=size)
        with grpc_server(lambda: response) as strange:
            assert "unexpected response" in str(failure_of(strange))

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

    def test_huge_response_is_refused(self, monkeypatch):
        monkeypatch.setattr(remote_model, "_MAX_RESPONSE_BYTES", 1000)
        with rest_server(rest_body(class_names=["a" * 1000, "b"])) as strange:
            failure = failure_of(strange)
        assert "more than 1000 bytes" in str(failure) and not failure.transient

    def test_compressed_response_is_not_unpacked(self):
        with rest_server(gzip.compress(rest_body()), b"Content-Encoding: gzip\r\n") as strange:
            assert "unexpected response" in str(failure_of(strange))


class TestDeadline:
    @pytest.mark.parametrize("protocol", ["grpc", "http"])
    def test_dripping_server_does_not_block_past_the_deadline(self, protocol):
        class Dripping(socketserver.BaseRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError):
                    while not over.wait(0.05):
                        self.request.sendall(b"H")

        over = threading.Event()
        with in_background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping)) as dripping:
            begin = time.monotonic()
            try:
                failure = failure_of(f"{protocol}://127.0.0.1:{dripping.server_address[1]}", 1)
            finally:
                over.set()
            assert "deadline 1 s" in str(failure)
            assert 0.5 < time.monotonic() - begin < 30  # a busy machine may need longer than a second

    def test_slow_grpc_server_does_not_block_past_the_deadline(self):
        over = threading.Event()
        with grpc_server(lambda: over.wait(10)) as slow:
            begin = time.monotonic()
            assert "DEADLINE_EXCEEDED" in str(failure_of(slow, 0.5))
            over.set()
            assert time.monotonic() - begin < 5
