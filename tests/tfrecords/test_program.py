"""How errors are shown."""

import re

import pytest
import tensorflow as tf

from alexnet_tf.tfrecords import program


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
def decode(encoded):
    tf.debugging.assert_equal(tf.size(encoded), 1, message="one image at a time")
    return tf.io.decode_jpeg(encoded[0])


@tf.function
def decode_pixels(encoded):
    return tf.io.decode_jpeg(encoded)


class TestReason:
    @pytest.mark.parametrize(
        "fail, message",
        [
            (lambda: decode(tf.constant([b"no image"])), r"Unknown image file format\. One of .*"),
            (lambda: decode(tf.constant([b"a", b"b"])), r"assertion failed: \[one image at a time\] .*"),
            (lambda: next(iter(tf.data.TFRecordDataset("/nowhere"))), "/nowhere; No such file or directory"),
        ],
    )
    def test_of_tensorflows_errors_it_is_the_line_that_says_why(self, fail, message):
        with pytest.raises(tf.errors.OpError) as caught:
            fail()
        assert len(str(caught.value).splitlines()) > 3 or "nowhere" in message
        reason = program.reason(caught.value)
        assert re.fullmatch(message + r"( \[\d+ more lines with --debug\])?", reason)
        assert "{{" not in reason and "Op:" not in reason

    def test_of_an_error_while_a_graph_is_traced_it_is_its_last_line(self):
        with pytest.raises(Exception, match="in user code") as caught:
            decode_pixels(tf.zeros((2, 2)))
        assert re.match("TypeError: .*string", program.reason(caught.value))

    def test_of_others_it_is_the_first_line(self):
        assert program.reason(ValueError("One.")) == "One."
        assert program.reason(ValueError("One.\nTwo.\n\nThree.")) == "One. [2 more lines with --debug]"
        assert program.reason(OSError()) == "OSError()"
