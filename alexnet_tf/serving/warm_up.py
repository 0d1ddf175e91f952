"""Warm-up requests: TensorFlow Serving runs them before it serves a new version, so that no client waits."""

# pyright: reportAttributeAccessIssue=false
# The protos' modules are generated at import.

import importlib.util
import pathlib

import tensorflow as tf

from alexnet_tf.serving import signatures
from alexnet_tf.tfrecords import images, schema

FILE = "assets.extra/tf_serving_warmup_requests"  # where TensorFlow Serving looks for it in a version


def write(folder: pathlib.Path, model_name: str, crop_px: int, has_top: bool = True) -> bool:
    """Writes a request for each signature.

    Args:
        folder: the version's folder.
        model_name: the model's name in the server's configuration.
        crop_px: side of the network's input, in pixels.
        has_top: whether the network has its classifier, and so the signatures that classify.

    Returns: whether they were written. They need tensorflow-serving-api, which has the protos.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        return False
    from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

    pixels = tf.cast(tf.random.stateless_uniform((1, crop_px, crop_px, 3), (0, 0), 0, 256, tf.int32), tf.uint8)
    encoded = images.encode_image(pixels[0].numpy(), "jpeg", 95)
    inputs = {name: {"images": tf.constant([encoded])} for name in ("serving_default", "features")}
    if has_top:
        inputs["ten_view"] = inputs["features"]
    inputs |= {"predict": {"pixels": tf.cast(pixels, tf.float32)}, "predict_uint8": {"pixels": pixels}}
    (folder / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest()
            _set_model(request, model_name, signature)
            for key, tensor in tensors.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(tensor))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString(deterministic=True))
        if not has_top:
            return True
        request = classification_pb2.ClassificationRequest()
        _set_model(request, model_name, signatures.CLASSIFY)
        example = request.input.example_list.examples.add()
        example.features.feature[schema.ENCODED].bytes_list.value.append(encoded)
        log = prediction_log_pb2.ClassifyLog(request=request)
        writer.write(prediction_log_pb2.PredictionLog(classify_log=log).SerializeToString(deterministic=True))
    return True


def _set_model(request, model_name: str, signature: str) -> None:
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
