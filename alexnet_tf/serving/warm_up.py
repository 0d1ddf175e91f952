"""Requests that TF Serving answers before it takes a new version into use, so that no user waits for its first run."""

import importlib.util

import tensorflow as tf

from alexnet_tf.serving import signatures
from alexnet_tf.tfrecords import images, schema

FILE = "assets.extra/tf_serving_warmup_requests"  # in a version, where TF Serving looks for it


def write(folder, model_name, crop_px):
    """Writes a request to each signature.

    Args:
        folder: the version's.
        model_name: name of the model, as the server's configuration has it.
        crop_px: side of what the network sees, in pixels.

    Returns: whether they could be written: without tensorflow-serving-api, whose protos they are, they can't.
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        return False
    from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

    pixels = tf.cast(tf.random.stateless_uniform((1, crop_px, crop_px, 3), (0, 0), 0, 256, tf.int32), tf.uint8)
    encoded = images.encode_image(pixels[0].numpy(), "jpeg", 95)
    inputs = {name: {"images": tf.constant([encoded])} for name in ("serving_default", "ten_view", "features")}
    inputs |= {"predict": {"pixels": tf.cast(pixels, tf.float32)}, "predict_uint8": {"pixels": pixels}}
    (folder / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest()
            _address(request, model_name, signature)
            for key, tensor in tensors.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(tensor))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString(deterministic=True))
        request = classification_pb2.ClassificationRequest()
        _address(request, model_name, signatures.CLASSIFY)
        example = request.input.example_list.examples.add()
        example.features.feature[schema.ENCODED].bytes_list.value.append(encoded)
        log = prediction_log_pb2.ClassifyLog(request=request)
        writer.write(prediction_log_pb2.PredictionLog(classify_log=log).SerializeToString(deterministic=True))
    return True


def _address(request, model_name, signature):
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
