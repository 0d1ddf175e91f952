"""A small model server with TensorFlow Serving's protocols, for the tests and benchmarks/serving.py.

No Python package contains TensorFlow Serving itself. This server implements PredictionService.Predict and
/v1/models/MODEL:predict for the newest version in a base path. It batches concurrent requests, as TensorFlow Serving
does with --enable_batching, and supports TLS.

    python tests/model_server.py BASE_PATH MODEL_NAME GRPC_PORT REST_PORT
"""

import base64
import concurrent.futures
import http.server
import json
import pathlib
import queue
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


def wrong(message):
    return WrongRequest(grpc.StatusCode.INVALID_ARGUMENT, 400, message)


class Model:
    """The newest version in a base path."""

    def __init__(self, base_path, name):
        self.name = name
        self.version = max(int(path.name) for path in pathlib.Path(base_path).iterdir() if path.name.isdigit())
        self.folder = pathlib.Path(base_path) / str(self.version)
        self.saved = tf.saved_model.load(str(self.folder))
        self.queues = {}
        for signature in self.saved.signatures:
            self.queues[signature] = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(signature,), daemon=True).start()

    def check(self, name, version):
        if name != self.name or version not in (None, self.version):
            message = f"Servable not found for request: {name}, version {version}"
            raise WrongRequest(grpc.StatusCode.NOT_FOUND, 404, message)

    def run(self, signature, inputs):
        """Runs a signature on NumPy arrays, batched with concurrent requests."""
        if signature not in self.saved.signatures:
            raise wrong(f"Serving signature name not found: {signature}")
        specs = self.saved.signatures[signature].structured_input_signature[1]
        if inputs.keys() != specs.keys():
            raise wrong(f"Inputs must be {sorted(specs)}. Received: {sorted(inputs)}")
        for name, spec in specs.items():
            array = inputs[name]
            if not spec.shape.is_compatible_with(array.shape) or spec.dtype != tf.as_dtype(array.dtype):
                raise wrong(f"{name} must be {spec}. Received: {array.dtype} {array.shape}")
        future = concurrent.futures.Future()
        self.queues[signature].put((inputs, future))
        return future.result()

    def _work(self, signature):
        while True:
            taken = [self.queues[signature].get()]
            try:
                while sum(len(next(iter(inputs.values()))) for inputs, _ in taken) < _MAX_BATCH_SIZE:
                    taken.append(self.queues[signature].get(timeout=_BATCH_WAIT_S))
            except queue.Empty:
                pass
            try:
                joined = {name: np.concatenate([inputs[name] for inputs, _ in taken]) for name in taken[0][0]}
                outputs = self.saved.signatures[signature](**{k: tf.constant(v) for k, v in joined.items()})
                outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
                first = 0
                for inputs, future in taken:
                    last = first + len(next(iter(inputs.values())))
                    future.set_result({name: array[first:last] for name, array in outputs.items()})
                    first = last
            except Exception as error:
                for _, future in taken:
                    future.set_exception(WrongRequest(grpc.StatusCode.INTERNAL, 500, str(error)))


class ModelServer:
    """Serves a `Model` on two local ports (0: any free one) while the context manager is open.

    The next `failures` requests fail with `failure`, by default UNAVAILABLE or 503. `requests` counts all requests.
    With the PEM files `certificate` and `key`, both ports use TLS.
    """

    def __init__(self, model, grpc_port=0, rest_port=0, certificate=None, key=None):
        self.model = model
        self.failures = self.requests = 0
        self.failure = (grpc.StatusCode.UNAVAILABLE, 503)
        self.lock = threading.Lock()
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(self), self.grpc)
        self.rest = http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), _RestHandler)
        self.rest.owner = self
        if certificate:
            pair = (pathlib.Path(key).read_bytes(), pathlib.Path(certificate).read_bytes())
            credentials = grpc.ssl_server_credentials([pair])
            self.grpc_port = self.grpc.add_secure_port(f"localhost:{grpc_port}", credentials)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.rest.socket = context.wrap_socket(self.rest.socket, server_side=True)
        else:
            self.grpc_port = self.grpc.add_insecure_port(f"localhost:{grpc_port}")
        self.rest_port = self.rest.server_port

    def __enter__(self):
        self.grpc.start()
        threading.Thread(target=self.rest.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.grpc.stop(None)
        self.rest.shutdown()
        self.rest.server_close()

    def admit(self):
        with self.lock:
            self.requests += 1
            if self.failures:
                self.failures -= 1
                raise WrongRequest(*self.failure, "the server is being restarted")


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, owner):
        self.owner = owner

    def _address(self, request, context):
        self.owner.admit()
        spec = request.model_spec
        self.owner.model.check(spec.name, spec.version.value if spec.HasField("version") else None)
        return spec.signature_name or "serving_default"

    def Predict(self, request, context):
        response = predict_pb2.PredictResponse()
        try:
            signature = self._address(request, context)
            try:
                inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            except (ValueError, TypeError) as error:
                raise wrong(f"no tensor: {error}") from error
            outputs = self.owner.model.run(signature, inputs)
        except WrongRequest as error:
            context.abort(error.code, str(error))
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
        return response


class _RestHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def _send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _parts(self):
        path, _, verb = self.path.partition(":")
        parts = path.split("/")
        if parts[1:3] != ["v1", "models"] or len(parts) not in (4, 6):
            raise WrongRequest(None, 404, f"Malformed request: {self.path}")
        version = int(parts[5]) if len(parts) == 6 and parts[4] == "versions" and parts[5].isdigit() else None
        self.server.owner.model.check(parts[3], version)
        return verb

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.server.owner.admit()
            verb = self._parts()
            try:
                content = json.loads(body)
                if verb != "predict":
                    raise wrong(f"Unknown method: {verb}")
                response = self._predict(content)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise wrong(f"JSON Parse error: {error!r}") from error
        except WrongRequest as error:
            return self._send(error.status, {"error": str(error)})
        return self._send(200, response)

    def _predict(self, content):
        model = self.server.owner.model
        signature = content.get("signature_name", "serving_default")
        if signature not in model.saved.signatures:
            raise wrong(f"Serving signature name not found: {signature}")
        ((name, spec),) = model.saved.signatures[signature].structured_input_signature[1].items()
        values = content["instances"]
        values = [value[name] if isinstance(value, dict) and name in value else value for value in values]
        if spec.dtype == tf.string:
            array = np.array([_decoded(value) for value in values] + [b""], object)[:-1]
        else:
            array = np.array(values, spec.dtype.as_numpy_dtype).reshape((-1, *spec.shape[1:]))
        outputs = {name: array.tolist() for name, array in model.run(signature, {name: array}).items()}
        outputs = {name: _as_text(rows) for name, rows in outputs.items()}
        if len(outputs) == 1:
            return {"predictions": next(iter(outputs.values()))}
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


def _decoded(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _as_text(value):
    if isinstance(value, list):
        return [_as_text(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    with ModelServer(Model(sys.argv[1], sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])) as server:
        print(f"{server.grpc_port} {server.rest_port}", flush=True)
        threading.Event().wait()
