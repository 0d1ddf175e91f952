"""A model on a server that speaks TF Serving's gRPC or REST: requests with deadlines, retries and verified TLS."""

import base64
import dataclasses
import http.client
import json
import pathlib
import queue
import random
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

# The server is down, restarting or overloaded. Any other error would be the same at the next attempt.
_RETRIED_STATUS = (429, 502, 503, 504)
# What gRPC says if it gets no response, and if it never will: the certificate is not trusted, or the port has no TLS.
_NO_RESPONSE = r"(?i)failed to connect|resolution failed|handshake|socket closed|connection reset|deadline exceeded"
_NEVER_CONNECTS = "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER"
_FIRST_WAIT_S, _MAX_WAIT_S = 0.1, 5.0
_MAX_RESPONSE_BYTES = 256 * 1024 * 1024

_Result = TypeVar("_Result")


class RequestFailed(Exception):
    """A request that got no response, or an error as its response.

    Attributes:
        transient: whether a retry may succeed.
        responded: whether the server responded. If not even after all retries, it is down or is no such server.
    """

    def __init__(self, message: str, transient: bool, responded: bool = True):
        super().__init__(message)
        self.transient, self.responded = transient, responded


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The server's prediction for one image.

    Attributes:
        valid: whether the server could decode the image.
        class_names: the most probable classes, the most probable first; empty if it could not.
        probabilities: their probabilities.
    """

    valid: bool
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]


class Connection(Protocol):
    """A connection to one signature of a served model."""

    def predict(self, encoded_images: list[bytes], timeout_s: float) -> list[Prediction]:
        """Sends one request. Raises `RequestFailed` if it fails or takes longer than `timeout_s` seconds."""
        ...


def connect(
    address: str,
    model: str,
    *,
    version: int | None = None,
    signature: str = "serving_default",
    ca_certificate: str | pathlib.Path | None = None,
) -> Connection:
    """Makes a connection to a served model. Nothing is sent yet.

    Args:
        address: `grpc://host:8500` or `http://host:8501`, or `grpcs://` and `https://` for TLS. The server's
            certificate must match its name and be signed by an authority that this machine trusts, or by
            `ca_certificate`.
        model: the model's name on the server.
        version: the number of its version; None for the newest.
        signature: "serving_default" or "ten_view".
        ca_certificate: None, or a PEM file with the authority that signed the server's certificate. The connection
            then uses TLS with any address.

    Returns: the connection.

    Raises:
        ValueError: if the address is none of these, the certificate can't be read, or grpcio is not installed.
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


def predict_with_retries(
    connection: Connection,
    encoded_images: list[bytes],
    deadline_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> list[Prediction]:
    """Runs inference on images, and retries transient failures with exponential backoff.

    Args:
        connection: from `connect`.
        encoded_images: encoded images, as files hold them.
        deadline_s: seconds for all attempts together.
        clock, sleep: for tests.

    Returns: the predictions, one for each image.

    Raises:
        RequestFailed: if the deadline passed, or the server returned an error.
    """
    end = clock() + deadline_s
    wait_s, attempts = _FIRST_WAIT_S, 0
    while True:
        attempts += 1
        try:
            predictions = connection.predict(encoded_images, max(end - clock(), 0.001))
            if len(predictions) != len(encoded_images):
                message = f"the server returned {len(predictions)} predictions for {len(encoded_images)} images"
                raise RequestFailed(message, False)
            return predictions
        except RequestFailed as error:
            jittered_s = wait_s * random.uniform(0.5, 1)  # so that clients that failed together don't retry together
            if not error.transient or clock() + jittered_s >= end:
                count = "1 attempt" if attempts == 1 else f"{attempts} attempts"
                message = f"{error} ({count}, deadline {deadline_s:g} s)"
                raise RequestFailed(message, error.transient, error.responded) from error
        sleep(jittered_s)
        wait_s = min(2 * wait_s, _MAX_WAIT_S)


class _Grpc:
    """PredictionService.Predict."""

    def __init__(
        self,
        parts: urllib.parse.SplitResult,
        model: str,
        version: int | None,
        signature: str,
        secure: bool,
        certificate: bytes | None,
    ):
        try:
            import grpc  # not with the module: http:// works without it
        except ImportError as error:
            raise ValueError("gRPC needs `pip install alexnet-tf[serving]`; http:// works without it.") from error
        from alexnet_tf.serving import predict_messages

        options = [("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES), ("grpc.max_send_message_length", -1)]
        address = f"{_host(parts)}:{parts.port or 8500}"
        if secure:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate), options)
        else:
            channel = grpc.insecure_channel(address, options)
        self._messages, self._error = predict_messages, grpc.RpcError
        self._call = channel.unary_unary(predict_messages.PREDICT_METHOD)
        self._transient = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)
        self._address, self._model, self._version, self._signature = address, model, version, signature

    def predict(self, encoded_images: list[bytes], timeout_s: float) -> list[Prediction]:
        request = self._messages.encode_request(self._model, self._version, self._signature, encoded_images)
        try:
            response = self._call(request, timeout=timeout_s)
        except self._error as error:
            details = error.details() or ""
            transient = error.code() in self._transient and not re.search(_NEVER_CONNECTS, details)
            message = f"{self._address} returned {error.code().name}: {details}"
            # gRPC has the same codes for what the server says and for what it makes up when there is none.
            raise RequestFailed(message, transient, not re.search(_NO_RESPONSE, details)) from error
        try:
            outputs = self._messages.decode_response(response)
            rows = zip(outputs["valid"], outputs["class_names"], outputs["probabilities"], strict=True)
            return [_prediction(valid, [name.decode() for name in names], best) for valid, names, best in rows]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestFailed(f"{self._address} returned an unexpected response: {error!r}", False) from error


class _Rest:
    """POST /v1/models/MODEL:predict."""

    def __init__(
        self,
        parts: urllib.parse.SplitResult,
        model: str,
        version: int | None,
        signature: str,
        secure: bool,
        certificate: bytes | None,
    ):
        self._host, self._port = parts.hostname or "", parts.port or 8501
        path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        self._path = path + (f"/versions/{version}" if version is not None else "") + ":predict"
        self._signature = signature
        self._context = None
        if secure:  # verifies the certificate and the name
            self._context = ssl.create_default_context(cadata=certificate.decode() if certificate else None)
        self._address = f"{'https' if secure else 'http'}://{_host(parts)}:{self._port}"

    def predict(self, encoded_images: list[bytes], timeout_s: float) -> list[Prediction]:
        instances = [{"b64": base64.b64encode(image).decode()} for image in encoded_images]
        body = json.dumps({"signature_name": self._signature, "instances": instances}).encode()
        status, content = _within(timeout_s, lambda: self._post(body, timeout_s), self._address)
        try:
            if status != 200:
                message = json.loads(content).get("error", "") if content.startswith(b"{") else ""
                raise RequestFailed(f"{self._address} returned {status}: {message}", status in _RETRIED_STATUS)
            return [
                _prediction(row["valid"], row["class_names"], row["probabilities"])
                for row in json.loads(content)["predictions"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise RequestFailed(f"{self._address} returned an unexpected response: {error!r}", False) from error

    def _post(self, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        if self._context:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            try:
                connection.connect()
            except ssl.SSLError as error:
                problem = "can't be verified" if isinstance(error, ssl.SSLCertVerificationError) else "has no TLS"
                raise RequestFailed(f"{self._address} {problem}: {error}", False, False) from error
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read(_MAX_RESPONSE_BYTES + 1)
            if len(content) > _MAX_RESPONSE_BYTES:
                raise RequestFailed(f"{self._address} returned more than {_MAX_RESPONSE_BYTES} bytes", False)
            return response.status, content
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailed(f"{self._address} doesn't respond: {error!r}", True, False) from error
        finally:
            connection.close()


def _host(parts: urllib.parse.SplitResult) -> str:
    return f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""


def _prediction(valid: bool, names: Iterable, probabilities: Iterable) -> Prediction:
    if not valid:
        return Prediction(False, (), ())
    names, probabilities = tuple(map(str, names)), tuple(map(float, probabilities))
    if len(names) != len(probabilities):
        raise ValueError(f"{len(names)} names of {len(probabilities)} probabilities")
    return Prediction(True, names, probabilities)


def _within(timeout_s: float, function: Callable[[], _Result], address: str) -> _Result:
    """Returns or raises what a function does, or raises RequestFailed after some seconds, whatever it waits for: a
    socket's timeout starts again with each byte, and the lookup of a name has none."""
    results = queue.SimpleQueue()

    def work():
        try:
            results.put((function(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=timeout_s)
    except queue.Empty:
        raise RequestFailed(f"{address} doesn't respond in time", True, False) from None
    if error:
        raise error
    return result
