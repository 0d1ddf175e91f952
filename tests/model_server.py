"""A small model server with TensorFlow Serving's protocols, for the tests and benchmarks/serving.py.

No Python package contains TensorFlow Serving itself. This server implements PredictionService.Predict and
/v1/models/MODEL:predict for the newest version in a base path. It batches concurrent requests, as TensorFlow Serving
does with --enable_batching, and supports TLS.

    python tests/model_server.py BASE_PATH MODEL_NAME
"""

import base64
import concurrent.futures
import http.server
import json
import pathlib
import queue
import re
import ssl
import sys
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_MAX_BATCH_SIZE, _BATCH_WAIT_S = 32, 0.002


class WrongRequest(Exception):
    """A client's error, with its gRPC and HTTP status codes."""

    def __init__(self, code, status, message):
        super().__init__(message)
        self.code, self.status = code, status


class Model:
    """The newest version in a base path, which a test may already have loaded."""

    def __init__(self, base_path, name, saved=None):
        self.name = name
        self.version = max(int(path.name) for path in pathlib.Path(base_path).iterdir() if path.name.isdigit())
        self.saved = saved or tf.saved_model.load(str(pathlib.Path(base_path) / str(self.version)))
        self.queues = {signature: queue.SimpleQueue() for signature in self.saved.signatures}
        for signature in self.queues:
            threading.Thread(target=self._work, args=(signature,), daemon=True).start()

    def find(self, name, version, signature):
        """The name and the `TensorSpec` of a signature's input."""
        if name != self.name or version not in (None, self.version):
            message = f"Servable not found for request: {name}, version {version}"
            raise WrongRequest(grpc.StatusCode.NOT_FOUND, 404, message)
        if signature not in self.saved.signatures:
            message = f"Serving signature name not found: {signature}"
            raise WrongRequest(grpc.StatusCode.INVALID_ARGUMENT, 400, message)
        ((name, spec),) = self.saved.signatures[signature].structured_input_signature[1].items()
        return name, spec

    def run(self, signature, array):
        """Runs a signature on a NumPy array, batched with concurrent requests; returns the outputs by name."""
        future = concurrent.futures.Future()
        self.queues[signature].put((array, future))
        return future.result()

    def _work(self, signature):
        call = self.saved.signatures[signature]
        (name,) = call.structured_input_signature[1]
        while True:
            taken = [self.queues[signature].get()]
            try:
                while sum(len(array) for array, _ in taken) < _MAX_BATCH_SIZE:
                    taken.append(self.queues[signature].get(timeout=_BATCH_WAIT_S))
            except queue.Empty:
                pass
            try:
                outputs = call(**{name: tf.constant(np.concatenate([array for array, _ in taken]))})
                first = 0
                for array, future in taken:
                    rows = slice(first, first + len(array))
                    future.set_result({output: tensor.numpy()[rows] for output, tensor in outputs.items()})
                    first = rows.stop
            except Exception as error:
                for _, future in taken:
                    future.set_exception(WrongRequest(grpc.StatusCode.INTERNAL, 500, str(error)))


class ModelServer:
    """Serves a `Model` on two free local ports while the context manager is open.

    The next `failures` requests fail with `failure`, by default UNAVAILABLE or 503. `requests` counts all requests.
    With the PEM files `certificate` and `key`, both ports use TLS.
    """

    def __init__(self, model, certificate=None, key=None):
        self.model = model
        self.failures = self.requests = 0
        self.failure = (grpc.StatusCode.UNAVAILABLE, 503)
        self.lock = threading.Lock()
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(self), self.grpc)
        self.rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _RestHandler)
        self.rest.socket.listen(64)  # by default five clients may wait, and others' connections are reset
        self.rest.owner = self
        if certificate:
            pair = (pathlib.Path(key).read_bytes(), pathlib.Path(certificate).read_bytes())
            self.grpc_port = self.grpc.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.rest.socket = context.wrap_socket(self.rest.socket, server_side=True)
        else:
            self.grpc_port = self.grpc.add_insecure_port("localhost:0")

    def __enter__(self):
        self.grpc.start()
        threading.Thread(target=self.rest.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.grpc.stop(None)
        self.rest.shutdown()
        self.rest.server_close()

    def address(self, protocol):
        """The address for grpc, grpcs, http or https."""
        return f"{protocol}://localhost:{self.grpc_port if protocol.startswith('grpc') else self.rest.server_port}"

    def admit(self):
        with self.lock:
            self.requests += 1
            if self.failures:
                self.failures -= 1
                raise WrongRequest(*self.failure, "the server is being restarted")


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, owner):
        self.owner = owner

    def Predict(self, request, context):
        response, spec = predict_pb2.PredictResponse(), request.model_spec
        try:
            self.owner.admit()
            version = spec.version.value if spec.HasField("version") else None
            name, _ = self.owner.model.find(spec.name, version, spec.signature_name)
            if [*request.inputs] != [name]:
                message = f"Inputs must be {name}. Received: {sorted(request.inputs)}"
                raise WrongRequest(grpc.StatusCode.INVALID_ARGUMENT, 400, message)
            outputs = self.owner.model.run(spec.signature_name, tf.make_ndarray(request.inputs[name]))
        except WrongRequest as error:
            context.abort(error.code, str(error))
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
        return response


class _RestHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self.server.owner.admit()
            status, content = 200, self._predict(body)
        except WrongRequest as error:
            status, content = error.status, {"error": str(error)}
        response = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    def _predict(self, body):
        model, signature = self.server.owner.model, body["signature_name"]
        name, version = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path).groups()
        _, spec = model.find(name, version and int(version), signature)
        if spec.dtype != tf.string:
            raise WrongRequest(None, 400, "JSON Parse error: pixels must be numbers")
        images = [base64.b64decode(instance["b64"]) for instance in body["instances"]]
        outputs = model.run(signature, np.array([*images, b""], object)[:-1])
        columns = {
            name: np.vectorize(bytes.decode, otypes=[str])(array) if array.dtype == object else array
            for name, array in outputs.items()
        }
        rows = zip(*(array.tolist() for array in columns.values()), strict=True)
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


if __name__ == "__main__":
    with ModelServer(Model(sys.argv[1], sys.argv[2])) as server:
        print(server.address("grpc"), server.address("http"), flush=True)
        threading.Event().wait()
