"""A client of TensorFlow Serving's gRPC and REST APIs, with deadlines, retries and verified TLS."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import json
import pathlib
import random
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterable
from typing import Any, TypeAlias

from alexnet_tf import cli

# The server is down, restarting or overloaded: a retry may succeed. It does not for any other status.
_RETRIED_STATUS = (429, 502, 503, 504)
# gRPC's details when there is no response, and when a retry is in vain: no TLS on the port, no trusted certificate.
_NO_RESPONSE = r"(?i)failed to connect|resolution failed|handshake|socket closed|connection reset|deadline exceeded"
_NEVER_CONNECTS = "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER"
_FIRST_WAIT_S, _MAX_WAIT_S = 0.1, 5.0
_MAX_RESPONSE_BYTES = 256 * 1024 * 1024
_MAX_CLASSES = 1000  # in a prediction; the signatures return five
_MAX_MESSAGE = 500  # characters of a server's error message

Connection: TypeAlias = "GrpcConnection | RestConnection"


class RequestFailed(Exception):
    """A request failed, or the response was not a prediction.

    Attributes:
        transient: whether a retry may succeed.
        responded: whether the server responded. If it did not after all retries, it is down.
    """

    def __init__(self, message: str, transient: bool, responded: bool = True):
        super().__init__(message)
        self.transient, self.responded = transient, responded


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The server's prediction for one image.

    Attributes:
        valid: whether the server could decode the image.
        class_names: the most probable classes, the most probable first; empty if the image is not valid.
        probabilities: their probabilities.
    """

    valid: bool
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]


def connect(
    address: str,
    model: str,
    *,
    version: int | None = None,
    signature: str = "serving_default",
    ca_certificate: str | pathlib.Path | None = None,
) -> Connection:
    """Prepares a connection to a served model. Nothing is sent yet.

    Args:
        address: `grpc://host:8500` or `http://host:8501`, or `grpcs://` and `https://` for TLS. The server's
            certificate must match its name and be signed by an authority that this machine trusts, or by
            `ca_certificate`.
        model: the model's name on the server.
        version: version number; None for the newest.
        signature: "serving_default" or "ten_view".
        ca_certificate: PEM file of the authority that signed the server's certificate. The connection then uses TLS
            with any address.

    Raises:
        ValueError: if the address or the certificate is invalid, or gRPC's packages are not installed.
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
    kind, default_port = (GrpcConnection, 8500) if parts.scheme.startswith("grpc") else (RestConnection, 8501)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return kind(f"{host}:{parts.port or default_port}", secure, certificate, model, version, signature)


def predict_with_retries(connection: Connection, encoded_images: list[bytes], deadline_s: float) -> list[Prediction]:
    """Classifies images, and retries transient failures with exponential backoff.

    Args:
        connection: from `connect`.
        encoded_images: contents of image files.
        deadline_s: seconds for all attempts together.

    Returns: one prediction for each image.

    Raises:
        RequestFailed: if the deadline passed, or the server returned an error.
    """
    end = time.monotonic() + deadline_s
    wait_s, attempts = _FIRST_WAIT_S, 0
    while True:
        attempts += 1
        try:
            return connection.predict(encoded_images, max(end - time.monotonic(), 0.001))
        except RequestFailed as error:
            jittered_s = wait_s * random.uniform(0.5, 1)  # clients that failed together should not retry together
            if not error.transient or time.monotonic() + jittered_s >= end:
                count = "1 attempt" if attempts == 1 else f"{attempts} attempts"
                message = f"{error} ({count}, deadline {deadline_s:g} s)"
                raise RequestFailed(message, error.transient, error.responded) from error
        time.sleep(jittered_s)
        wait_s = min(2 * wait_s, _MAX_WAIT_S)


class GrpcConnection:
    """Calls PredictionService.Predict."""

    def __init__(
        self, host: str, secure: bool, certificate: bytes | None, model: str, version: int | None, signature: str
    ):
        try:
            import grpc
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise ValueError(
                "`server` with grpc:// needs the extra packages of pip install --editable '.[serving]'; "
                "http:// works without them."
            ) from error
        options = [("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES), ("grpc.max_send_message_length", -1)]
        if secure:
            channel = grpc.secure_channel(host, grpc.ssl_channel_credentials(certificate), options)
        else:
            channel = grpc.insecure_channel(host, options)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        self._request_class, self._tf, self._error = predict_pb2.PredictRequest, tf, grpc.RpcError
        self._transient = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)
        version_spec = {} if version is None else {"version": {"value": version}}
        self._address, self._model_spec = host, {"name": model, "signature_name": signature, **version_spec}

    def predict(self, encoded_images: list[bytes], timeout_s: float) -> list[Prediction]:
        """Sends one request. Raises `RequestFailed` if it fails or takes longer than `timeout_s` seconds."""
        count = len(encoded_images)
        images = self._tf.make_tensor_proto(encoded_images, self._tf.string, [count])
        request = self._request_class(model_spec=self._model_spec, inputs={"images": images})
        try:
            response = self._predict(request, timeout=timeout_s)
        except self._error as error:
            details = error.details() or ""
            transient = error.code() in self._transient and not re.search(_NEVER_CONNECTS, details)
            # gRPC uses the same codes for the server's own errors and for connections that failed.
            responded = not re.search(_NO_RESPONSE, details)
            raise _failure(self._address, f"returned {error.code().name}: {details}", transient, responded) from error
        try:
            dims = {"valid": 1, "class_names": 2, "probabilities": 2}
            columns = [self._to_list(response, name, count, dims[name]) for name in dims]
            rows = [
                (valid, [name.decode() for name in names], best) for valid, names, best in zip(*columns, strict=True)
            ]
            return _check_predictions(rows, count)
        except (TypeError, ValueError, AttributeError) as error:
            raise _failure(self._address, f"returned an unexpected response: {error!r}") from error

    def _to_list(self, response: Any, name: str, count: int, dims: int) -> list:
        """The values of an output. Its shape is checked before memory is allocated for it."""
        if name not in response.outputs:
            raise ValueError(f"there is no output {name}")
        shape = [dim.size for dim in response.outputs[name].tensor_shape.dim]
        if len(shape) != dims or shape[0] != count or not 0 <= shape[-1] <= max(count, _MAX_CLASSES):
            raise ValueError(f"{name} has shape {shape} for {count} images")
        return self._tf.make_ndarray(response.outputs[name]).tolist()


class RestConnection:
    """Posts to /v1/models/MODEL:predict."""

    def __init__(
        self, host: str, secure: bool, certificate: bytes | None, model: str, version: int | None, signature: str
    ):
        import urllib3  # takes a tenth of a second, which --help need not wait for

        context = None
        if secure:  # verifies the certificate and the host's name
            context = ssl.create_default_context(cadata=certificate.decode() if certificate else None)
        self._pool, self._urllib3 = urllib3.PoolManager(ssl_context=context, maxsize=16), urllib3
        self._address, self._signature = f"{'https' if secure else 'http'}://{host}", signature
        path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        self._path = f"{path}:predict" if version is None else f"{path}/versions/{version}:predict"

    def predict(self, encoded_images: list[bytes], timeout_s: float) -> list[Prediction]:
        """Sends one request. Raises `RequestFailed` if it fails or takes longer than `timeout_s` seconds."""
        instances = [{"b64": base64.b64encode(image).decode()} for image in encoded_images]
        body, result = {"signature_name": self._signature, "instances": instances}, concurrent.futures.Future()

        def post():
            try:
                result.set_result(self._post(body, timeout_s))
            except Exception as error:
                result.set_exception(error)

        # A socket's timeout starts again with every byte, and the lookup of a host has none.
        threading.Thread(target=post, daemon=True).start()
        try:
            status, content = result.result(timeout_s)
        except TimeoutError:
            raise _failure(self._address, "doesn't respond in time", True, False) from None
        try:
            if status != 200:
                message = json.loads(content).get("error", "") if content.startswith(b"{") else ""
                raise _failure(self._address, f"returned {status}: {message}", status in _RETRIED_STATUS)
            rows = [
                (row["valid"], row["class_names"], row["probabilities"]) for row in json.loads(content)["predictions"]
            ]
            return _check_predictions(rows, len(encoded_images))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise _failure(self._address, f"returned an unexpected response: {error!r}") from error

    def _post(self, body: dict, timeout_s: float) -> tuple[int, bytes]:
        """The status and the content of the response."""
        errors = self._urllib3.exceptions
        try:
            response = self._pool.request(
                "POST",
                self._address + self._path,
                json=body,
                timeout=timeout_s,
                retries=False,  # also no redirects: images go to this server only
                preload_content=False,
                decode_content=False,
            )
            content = response.read(_MAX_RESPONSE_BYTES + 1)
        except errors.SSLError as error:
            unverified = isinstance(error.args[0], ssl.SSLCertVerificationError)
            problem = "can't be verified" if unverified else "has no TLS"
            raise _failure(self._address, f"{problem}: {error}", False, False) from error
        except (errors.HTTPError, OSError) as error:
            raise _failure(self._address, f"doesn't respond: {error}", True, False) from error
        if len(content) > _MAX_RESPONSE_BYTES:
            response.close()
            raise _failure(self._address, f"returned more than {_MAX_RESPONSE_BYTES} bytes")
        response.release_conn()
        return response.status, content


def _failure(address: str, problem: str, transient: bool = False, responded: bool = True) -> RequestFailed:
    return RequestFailed(f"{address} {cli.printable(problem[:_MAX_MESSAGE])}", transient, responded)


def _check_predictions(rows: Iterable[tuple[Any, Any, Any]], count: int) -> list[Prediction]:
    """Validates a response: a row of `valid`, `class_names` and `probabilities` for each image.

    Characters of names that a terminal would interpret are replaced.

    Raises:
        ValueError: if a value has another type or range.
    """
    predictions = []
    for valid, names, probabilities in rows:
        if not isinstance(valid, bool):
            raise ValueError(f"`valid` must be true or false. Received: {valid!r}")
        if not valid:
            predictions.append(Prediction(False, (), ()))
            continue
        for value in probabilities:
            # A softmax in float32 may exceed 1 by rounding.
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1.0001:
                raise ValueError("`probabilities` must be from 0 to 1")
        are_strings = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not are_strings or len(names) != len(probabilities):
            raise ValueError(f"`class_names` must be {len(probabilities)} strings")
        predictions.append(Prediction(True, tuple(map(cli.printable, names)), tuple(map(float, probabilities))))
    if len(predictions) != count:
        raise ValueError(f"{len(predictions)} predictions for {count} images")
    return predictions
