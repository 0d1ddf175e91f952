"""The client's own messages against TensorFlow Serving's."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from alexnet_tf.serving import predict_messages


class TestEncodeRequest:
    @pytest.mark.parametrize("version", [None, 3])
    @pytest.mark.parametrize("images", [[], [b""], [b"\xff\xd8", b"\x00", b"third"]])
    def test_request_is_tensorflow_servings(self, version, images):
        expected = predict_pb2.PredictRequest()
        expected.model_spec.name, expected.model_spec.signature_name = "alexnet", "ten_view"
        if version is not None:
            expected.model_spec.version.value = version
        expected.inputs["images"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
        encoded = predict_messages.encode_request("alexnet", version, "ten_view", images)
        received = predict_pb2.PredictRequest.FromString(encoded)
        if images:
            assert received == expected
        np.testing.assert_array_equal(tf.make_ndarray(received.inputs["images"]), np.array(images, object))


class TestDecodeResponse:
    def response(self, **tensors):
        response = predict_pb2.PredictResponse()
        response.model_spec.name = "alexnet"  # the fields that the client does not use are skipped
        for name, tensor in tensors.items():
            response.outputs[name].CopyFrom(tensor)
        return response.SerializeToString()

    def test_every_form_of_a_tensor_is_read(self):
        names = np.array([[b"a", b"\xff"], [b"", b"d"]], object)
        rows = np.float32([[0.5, 0.25], [0, 1]])
        as_fields = tf.make_tensor_proto(rows)  # make_tensor_proto packs numbers, TensorFlow Serving does not
        as_fields.ClearField("tensor_content")
        as_fields.float_val.extend(rows.ravel().tolist())
        repeated = tf.make_tensor_proto(True, shape=[3])  # one value stands for all
        filled_up = tf.make_tensor_proto(0.5, shape=[4])  # the last one for the rest
        filled_up.float_val.append(0.25)
        outputs = predict_messages.decode_response(
            self.response(
                names=tf.make_tensor_proto(names),
                packed=tf.make_tensor_proto(rows),
                as_fields=as_fields,
                valid=tf.make_tensor_proto([True, False]),
                repeated=repeated,
                filled_up=filled_up,
                one=tf.make_tensor_proto([[0.5]]),
                empty=tf.make_tensor_proto(np.zeros((2, 0), "float32")),
                none=tf.make_tensor_proto(np.zeros((0, 5), "float32")),
                ids=tf.make_tensor_proto([[1, 2]]),
            )
        )
        assert outputs == {
            "names": names.tolist(),
            "packed": rows.tolist(),
            "filled_up": [0.5, 0.25, 0.25, 0.25],
            "as_fields": rows.tolist(),
            "valid": [True, False],
            "repeated": [True] * 3,
            "one": [[0.5]],
            "empty": [[], []],
            "none": [],
        }

    @pytest.mark.parametrize("shape", [[3], [2, 2], [-1], [10**9], [10**18, 0]])
    def test_values_that_do_not_match_the_shape_are_refused(self, shape):
        tensor = tf.make_tensor_proto([0.5, 0.25])
        del tensor.tensor_shape.dim[:]
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        with pytest.raises(ValueError, match="a tensor of shape"):
            predict_messages.decode_response(self.response(tensor=tensor))

    def test_other_bytes_are_refused(self):
        with pytest.raises(ValueError, match="no PredictResponse"):
            predict_messages.decode_response(b"\xff nonsense")
