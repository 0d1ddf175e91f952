"""Warm-up requests: TensorFlow Serving runs them before it serves a new version, so that no client waits."""

# pyright: reportAttributeAccessIssue=false
# The protos' modules are generated at import.

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf.serving import signatures
from alexnet_tf.tfrecords import images, schema

FILE = "assets.extra/tf_serving_warmup_requests"  # where TensorFlow Serving looks for it in a version


def write(folder: pathlib.Path, model_name: str, functions: Mapping[str, Any]) -> bool:
    """Writes a request for each signature.

    Args:
        folder: the version's folder.
        model_name: the model's name in the server's configuration.
        functions: from `signatures.make_signatures`.

    Returns: whether they were written. They need tensorflow-serving-api, which has the protos.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        return False
    from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

    shape = functions["predict"].input_signature[0].shape[1:]
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape), "uint8")
    encoded = images.encode_image(pixels[0], "jpeg", 95)
    example = {"features": {"feature": {schema.ENCODED: {"bytes_list": {"value": [encoded]}}}}}
    (folder / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for name, function in functions.items():
            (spec,), model_spec = function.input_signature, {"name": model_name, "signature_name": name}
            if name == signatures.CLASSIFY:
                request = classification_pb2.ClassificationRequest(
                    model_spec=model_spec, input={"example_list": {"examples": [example]}}
                )
                log = prediction_log_pb2.PredictionLog(classify_log={"request": request})
            else:
                values = [encoded] if spec.dtype == tf.string else pixels.astype(spec.dtype.as_numpy_dtype)
                request = predict_pb2.PredictRequest(
                    model_spec=model_spec, inputs={spec.name: tf.make_tensor_proto(values)}
                )
                log = prediction_log_pb2.PredictionLog(predict_log={"request": request})
            writer.write(log.SerializeToString(deterministic=True))
    return True
