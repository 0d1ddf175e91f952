"""The messages of TensorFlow Serving's Predict, without TensorFlow.

`tensorflow_serving.apis.predict_pb2` imports TensorFlow, which takes 5 s; these messages take 0.05 s. They hold the
fields that the client uses, under the numbers of tensorflow_serving/apis/{model,predict}.proto and
tensorflow/core/framework/{tensor,tensor_shape,types}.proto.
"""

import math
import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"

_DT_FLOAT, _DT_STRING, _DT_BOOL = 1, 7, 10
# Where a tensor's values are, for each of its types, and their format in `tensor_content`, which holds no strings.
_VALUES = {_DT_FLOAT: ("float_val", "f"), _DT_STRING: ("string_val", None), _DT_BOOL: ("bool_val", "?")}
_MAX_VALUES = 10_000_000


def _message_classes() -> dict[str, Any]:
    """The classes of a request and a response."""
    field = descriptor_pb2.FieldDescriptorProto
    integer, text, many = field.TYPE_INT64, field.TYPE_STRING, field.LABEL_REPEATED
    # Each field: name, number, type (of messages: their name), and whether it is repeated.
    fields = {
        "Dim": [("size", 1, integer)],
        "TensorShapeProto": [("dim", 2, "Dim", many)],
        "TensorProto": [
            ("dtype", 1, field.TYPE_INT32),  # an enumeration there, which is sent in the same way
            ("tensor_shape", 2, "TensorShapeProto"),
            ("tensor_content", 4, field.TYPE_BYTES),
            ("float_val", 5, field.TYPE_FLOAT, many),
            ("string_val", 8, field.TYPE_BYTES, many),
            ("bool_val", 11, field.TYPE_BOOL, many),
        ],
        "NamedTensor": [("key", 1, text), ("value", 2, "TensorProto")],  # an entry of a map of tensors
        "Version": [("value", 1, integer)],  # google.protobuf.Int64Value
        "ModelSpec": [("name", 1, text), ("version", 2, "Version"), ("signature_name", 3, text)],
        "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "NamedTensor", many)],
        "PredictResponse": [("outputs", 1, "NamedTensor", many)],
    }
    file = descriptor_pb2.FileDescriptorProto(name="predict_subset.proto", package="alexnet_tf", syntax="proto3")
    for message_name, rows in fields.items():
        description = file.message_type.add(name=message_name)
        for name, number, kind, *label in rows:
            added = description.field.add(name=name, number=number, label=label[0] if label else field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, f".alexnet_tf.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()  # of its own: the process may hold the complete messages as well
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"alexnet_tf.{name}"))
        for name in ("PredictRequest", "PredictResponse")
    }


_CLASSES = _message_classes()


def encode_request(model: str, version: int | None, signature: str, encoded_images: list[bytes]) -> bytes:
    """Serializes a PredictRequest with the input `images`, a string tensor (len(encoded_images),)."""
    request = _CLASSES["PredictRequest"]()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    images = request.inputs.add(key="images").value
    images.dtype = _DT_STRING
    images.tensor_shape.dim.add(size=len(encoded_images))
    images.string_val.extend(encoded_images)
    return request.SerializeToString()


def decode_response(response: bytes) -> dict[str, list]:
    """Reads a serialized PredictResponse.

    Returns:
        A dict from the name of an output to its values, a list (batch,) or a list of lists (batch, columns), of float,
        bytes or bool. Outputs of other types or of more dimensions are skipped.

    Raises:
        ValueError: if it is no PredictResponse, or a tensor's values don't match its shape.
    """
    try:
        outputs = _CLASSES["PredictResponse"].FromString(response).outputs
    except message.DecodeError as error:
        raise ValueError(f"no PredictResponse: {error}") from error
    tensors = {entry.key: entry.value for entry in outputs}
    return {
        name: _to_list(tensor)
        for name, tensor in tensors.items()
        if tensor.dtype in _VALUES and len(tensor.tensor_shape.dim) in (1, 2)
    }


def _to_list(tensor) -> list:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    if min(shape) < 0 or max(*shape, count) > _MAX_VALUES:
        raise ValueError(f"a tensor of shape {shape}")
    field, code = _VALUES[tensor.dtype]
    if tensor.tensor_content and code:
        content = memoryview(tensor.tensor_content)
        values = list(content.cast(code)) if len(content) == count * struct.calcsize(code) else []
    else:
        values = list(getattr(tensor, field))
        if 0 < len(values) < count:  # by the definition of TensorProto the last value is repeated
            values += values[-1:] * (count - len(values))
    if len(values) != count:
        raise ValueError(f"{len(values)} values in a tensor of shape {shape}")
    if len(shape) == 1:
        return values
    return [values[first : first + shape[1]] for first in range(0, count, shape[1])] if count else [[]] * shape[0]
