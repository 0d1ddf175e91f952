"""Keeps TensorFlow's log messages off the terminal, except its errors."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from alexnet_tf import import_hook

# TensorFlow logs some lines before it reads TF_CPP_MIN_LOG_LEVEL. The last is an error to TensorFlow on every machine
# without NVIDIA's driver: 303 means that the driver's library was not found.
_NOISE = re.compile(
    rb"[IW]\d{4} \d\d:\d\d:|WARNING: All log messages before absl::InitializeLog|To enable the following instructions:"
    rb"|E\d{4} .*failed call to cuInit: .*\(303\)"
)


def silence_tensorflow() -> None:
    """Hides TensorFlow's information and warnings from now on. Its errors still appear on stderr.

    Call it before TensorFlow is imported; later it has no effect. A level that the user has set is kept.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules:
        import_hook.around_import("tensorflow", _import_quietly)


def _import_quietly(module, execute):
    with _filtered_stderr():
        execute()
        module.config.list_physical_devices()  # looks for GPUs, and logs that there is no driver


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Writes to stderr, at the end of the block, what was written to it in the block, without TensorFlow's noise.

    A file and not a pipe: the lines of a process that crashes are not lost in a thread, and no thread must run.
    """
    import tempfile  # not with the module, which every program imports

    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        terminal = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            os.write(2, b"".join(line for line in written if not _NOISE.match(line)))
