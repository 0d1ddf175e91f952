"""Programs print their own words: TensorFlow's log is hidden, its errors are not."""

import os
import subprocess
import sys

import pytest

from alexnet_tf import quiet

NOISE = (
    b"I0000 00:00:1795885454.808441   20426 port.cc:153] oneDNN custom operations are on.\n"
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"E0000 00:00:1795884985.894781    9334 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
)
ERRORS = (
    b"E0000 00:00:1795884985.894781    9334 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_NO_DEVICE (100)\n"
    b"F0000 00:00:1795884985.894781    9334 cpu_feature_guard.cc:1] needs instructions that this processor lacks\n"
    b"ImportError: libfoo.so\n"
)


def test_log_lines_are_hidden_and_errors_are_not(capfd):
    with quiet._filtered_stderr():
        os.write(2, NOISE + ERRORS)
    assert capfd.readouterr().err.encode() == ERRORS


def test_errors_appear_when_the_import_fails(capfd):
    with pytest.raises(ImportError), quiet._filtered_stderr():
        os.write(2, NOISE + ERRORS)
        raise ImportError
    assert capfd.readouterr().err.encode() == ERRORS


@pytest.mark.slow
def test_worker_process_inherits_the_silence():
    script = "import alexnet_tf, tensorflow; tensorflow.constant(1) + 1"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert result.stderr == b""
