"""Thousands of damaged images and requests: nothing crashes, and only the damaged rows change."""

import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import image_files

grpc = pytest.importorskip("grpc")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
import model_server  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(export_dir):
    return model_server.Model(export_dir, "alexnet")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Real images in each format and color mode, as files."""
    files = []
    kinds = [("JPEG", "L", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}), ("PNG", "RGBA", {})]
    kinds += [("PNG", "P", {}), ("BMP", "RGB", {}), ("GIF", "L", {}), ("WEBP", "RGB", {})]
    paths = image_files(tmp_path_factory.mktemp("images"), len(kinds))
    for path, (kind, mode, options) in zip(paths, kinds, strict=True):
        buffer = io.BytesIO()
        Image.open(path).convert(mode).resize((61, 47)).save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def mutate(content, random):
    """Flips, removes, inserts or repeats bytes, or writes large numbers into the header."""
    content = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(content) + 1))
        length = int(random.integers(1, 60))
        kind = random.integers(6)
        if kind == 0 and content:
            content[place % len(content)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            content[place:place] = random.bytes(length)
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            content[place:place] = content[place : place + length]
        else:
            place %= 64  # sizes stand there
            content[place : place + 4] = bytes(random.choice([0, 1, 127, 128, 255], 4).astype("uint8"))
    return bytes(content)


def test_no_mutated_image_crashes_or_changes_another_row(model, originals):
    random = np.random.default_rng(0)
    good = originals[:6]
    alone = model.run("serving_default", {"images": np.array(good, object)})
    assert alone["valid"].all()
    readable = 0
    for _ in range(125):  # 16 mutated images among six good ones
        mutated = [mutate(originals[random.integers(len(originals))], random) for _ in range(16)]
        order = random.permutation(22)
        rows = np.array([*good, *mutated], object)[order]
        outputs = model.run("serving_default", {"images": rows})
        back = np.argsort(order)
        for name, expected in alone.items():
            if name == "probabilities":
                np.testing.assert_allclose(outputs[name][back][:6], expected, atol=1e-5)
            else:
                np.testing.assert_array_equal(outputs[name][back][:6], expected)
        valid = outputs["valid"][back][6:]
        readable += valid.sum()
        mutated_rows = outputs["probabilities"][back][6:]
        assert np.isfinite(mutated_rows).all()
        assert (mutated_rows[~valid] == 0).all()
        assert (mutated_rows[valid].sum(axis=1) > 0).all()
        assert ((outputs["class_ids"][back][6:] >= 0).all(axis=1) == valid).all()
    assert 100 < readable < 1900  # some are still images, many are not


def requests_to(signature, name, spec, contents):
    """A valid gRPC request and a valid REST request to a signature, as bytes."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "alexnet", signature
    if spec.dtype == tf.string:
        values, instances = np.array(contents, object), [{"b64": "aGVsbG8="}]
    else:
        values = np.zeros((1, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
        instances = values.tolist()
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request.SerializeToString(), json.dumps({"signature_name": signature, "instances": instances}).encode()


@pytest.mark.parametrize(
    "signature", ["serving_default", "ten_view", "features", "classify", "predict", "predict_uint8"]
)
def test_no_mutated_request_crashes_the_server(signature, model, originals):
    random = np.random.default_rng(1)
    ((name, spec),) = model.saved.signatures[signature].structured_input_signature[1].items()
    grpc_request, rest_request = requests_to(signature, name, spec, originals[:2])
    with model_server.ModelServer(model) as server, grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        url = f"http://localhost:{server.rest_port}/v1/models/alexnet:predict"
        statuses = set()
        for _ in range(200):
            try:
                predict(mutate(grpc_request, random), timeout=30)
                statuses.add("OK")
            except grpc.RpcError as error:
                statuses.add(error.code().name)
            try:
                urllib.request.urlopen(url, mutate(rest_request, random), timeout=30)
                statuses.add(200)
            except urllib.error.HTTPError as error:
                statuses.add(error.code)
        assert {"INVALID_ARGUMENT", 400} <= statuses
        assert not statuses & {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        response = predict_pb2.PredictResponse.FromString(predict(grpc_request, timeout=30))
        for output in response.outputs.values():
            values = tf.make_ndarray(output)
            assert values.dtype.kind not in "f" or np.isfinite(values).all()


@pytest.mark.parametrize(
    "inputs",
    [
        *({}, {"other": [b"x"]}, {"images": [b"x"], "other": [b"x"]}),
        *({"images": b"x"}, {"images": [[b"x"]]}, {"images": [1]}, {"images": [1.5]}),
    ],
)
def test_request_with_wrong_inputs_is_refused(inputs, model):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "alexnet", "serving_default"
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    with model_server.ModelServer(model) as server, grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(
                request.SerializeToString(), timeout=30
            )
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
