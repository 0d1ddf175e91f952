"""A model on a server that speaks TF Serving's gRPC or REST: requests with deadlines, retries and verified TLS."""

import base64
import dataclasses
import http.client
import json
import pathlib
import queue
import random
import ssl
import threading
import time
import urllib.parse

# That the server is away, restarts or has too much to do. Any other answer would be the same the next time.
_RETRIED_STATUS = (429, 502, 503, 504)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_MOST_BYTES = 256 * 1024 * 1024  # of an answer


class RequestFailed(Exception):
    """A request that got no answer, or the answer that it is wrong. `transient` says whether to try again may help."""

    def __init__(self, message, transient):
        super().__init__(message)
        self.transient = transient


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server said of one image.

    Attributes:
        valid: whether the server could read the image.
        class_names: the most probable classes, the most probable first; empty where it could not.
        probabilities: theirs.
    """

    valid: bool
    class_names: tuple
    probabilities: tuple


def connect(address, model, *, version=None, signature="serving_default", ca_certificate=None):
    """Makes a connection to a served model; nothing is sent yet.

    Args:
        address: `grpc://host:8500` or `http://host:8501`, or `grpcs://` and `https://` for TLS. The server's
            certificate must be of its name and signed by an authority that this machine trusts, or `ca_certificate`.
        model: the model's name on the server.
        version: its version's number; None for the newest.
        signature: "serving_default" or "ten_view".
        ca_certificate: None, or a PEM file with the authority that signed the server's certificate. With it the
            connection is TLS whatever the address says.

    Returns: an object with `ask(encoded_images, seconds)`, which returns a list of `Answer`s or raises `RequestFailed`.

    Raises:
        ValueError: where the address is none of these, or the certificate can't be read.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("grpc", "grpcs", "http", "https") or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"`server` must be grpc://, grpcs://, http:// or https://, host and port. Received: {address}")
    certificate = None
    if ca_certificate:
        try:
            certificate = pathlib.Path(ca_certificate).read_bytes()
            ssl.create_default_context(cadata=certificate.decode())
        except (OSError, ValueError, ssl.SSLError) as error:
            raise ValueError(f"`ca_certificate` must be a PEM file. Received: {ca_certificate}: {error}") from error
    secure = parts.scheme in ("grpcs", "https") or certificate is not None
    kind = _Grpc if parts.scheme.startswith("grpc") else _Rest
    return kind(parts, model, version, signature, secure, certificate)


def ask_persistently(connection, encoded_images, deadline_s, clock=time.monotonic, sleep=time.sleep):
    """Asks about images, again and again while that may help, with longer and longer waits in between.

    Args:
        connection: of `connect`.
        encoded_images: list of bytes.
        deadline_s: seconds that all of it may take.
        clock, sleep: for tests.

    Returns: a list of `Answer`s, one for each image.

    Raises:
        RequestFailed: where the deadline passed, or the server refused.
    """
    end = clock() + deadline_s
    wait, tries = _FIRST_WAIT_S, 0
    while True:
        tries += 1
        try:
            answers = connection.ask(encoded_images, max(end - clock(), 0.001))
            if len(answers) != len(encoded_images):
                raise RequestFailed(f"{len(answers)} answers came for {len(encoded_images)} images", False)
            return answers
        except RequestFailed as error:
            pause = wait * random.uniform(0.5, 1)  # so that clients that failed together do not come again together
            if not error.transient or clock() + pause >= end:
                times = "once" if tries == 1 else f"{tries} times"
                raise RequestFailed(f"{error} (asked {times} in {deadline_s:g} s at most)", error.transient) from error
        sleep(pause)
        wait = min(2 * wait, _LONGEST_WAIT_S)


class _Grpc:
    """PredictionService.Predict."""

    def __init__(self, parts, model, version, signature, secure, certificate):
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise ValueError(
                f"gRPC needs `pip install alexnet-tf[serving]`; http:// does without. Missing: {error.name}"
            ) from error
        options = [("grpc.max_receive_message_length", _MOST_BYTES), ("grpc.max_send_message_length", -1)]
        address = f"{_host(parts)}:{parts.port or 8500}"
        if secure:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate), options)
        else:
            channel = grpc.insecure_channel(address, options)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        self._request, self._error = predict_pb2.PredictRequest, grpc.RpcError
        self._transient = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)
        self._address, self._model, self._version, self._signature = address, model, version, signature

    def ask(self, encoded_images, seconds):
        import tensorflow as tf

        request = self._request()
        request.model_spec.name = self._model
        request.model_spec.signature_name = self._signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(encoded_images, tf.string, [len(encoded_images)]))
        try:
            response = self._predict(request, timeout=seconds)
        except self._error as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in (error.details() or "")
            transient = error.code() in self._transient and not untrusted
            raise RequestFailed(f"{self._address} answers {error.code().name}: {error.details()}", transient) from error
        try:
            outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
            rows = zip(outputs["valid"], outputs["class_names"], outputs["probabilities"], strict=True)
            return [_answer(valid, [name.decode() for name in names], best) for valid, names, best in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise RequestFailed(f"{self._address} answers in another form: {error!r}", False) from error


class _Rest:
    """POST /v1/models/MODEL:predict."""

    def __init__(self, parts, model, version, signature, secure, certificate):
        self._host, self._port = parts.hostname, parts.port or 8501
        path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        self._path = path + (f"/versions/{version}" if version is not None else "") + ":predict"
        self._signature = signature
        self._context = None
        if secure:  # which verifies certificate and name
            self._context = ssl.create_default_context(cadata=certificate.decode() if certificate else None)
        self._address = f"{'https' if secure else 'http'}://{_host(parts)}:{self._port}"

    def ask(self, encoded_images, seconds):
        instances = [{"b64": base64.b64encode(image).decode()} for image in encoded_images]
        body = json.dumps({"signature_name": self._signature, "instances": instances}).encode()
        status, content = _within(seconds, lambda: self._post(body, seconds), self._address)
        try:
            if status != 200:
                message = json.loads(content).get("error", "") if content.startswith(b"{") else ""
                raise RequestFailed(f"{self._address} answers {status}: {message}", status in _RETRIED_STATUS)
            return [
                _answer(row["valid"], row["class_names"], row["probabilities"])
                for row in json.loads(content)["predictions"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestFailed(f"{self._address} answers in another form: {error!r}", False) from error

    def _post(self, body, seconds):
        if self._context:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise RequestFailed(f"{self._address} answers with more than {_MOST_BYTES} bytes", False)
            return response.status, content
        except ssl.SSLCertVerificationError as error:
            raise RequestFailed(f"{self._address} can't be trusted: {error}", False) from error
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailed(f"{self._address} gives no answer: {error!r}", True) from error
        finally:
            connection.close()


def _host(parts):
    return f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname


def _answer(valid, names, probabilities):
    if not valid:
        return Answer(False, (), ())
    return Answer(True, tuple(map(str, names)), tuple(map(float, probabilities)))


def _within(seconds, function, address):
    """What a function returns or raises, or RequestFailed after some seconds, whatever it waits for then: the timeout
    of a socket starts anew with each byte, and looking up a name has none."""
    results = queue.SimpleQueue()

    def work():
        try:
            results.put((function(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise RequestFailed(f"{address} gives no answer in time", True) from None
    if error:
        raise error
    return result
