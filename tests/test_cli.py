"""How a program starts, and how errors are shown."""

import os
import re
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags

from alexnet_tf import cli


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
def decode(encoded):
    with tf.control_dependencies([tf.debugging.assert_equal(tf.size(encoded), 1, message="one image at a time")]):
        return tf.io.decode_jpeg(encoded[0])


@tf.function
def decode_pixels(encoded):
    return tf.io.decode_jpeg(encoded)


class TestFlags:
    @pytest.fixture
    def number(self):
        flags.DEFINE_float("number_of_this_test", 0.5, "A number.", lower_bound=0, upper_bound=1)
        yield "number_of_this_test"
        delattr(flags.FLAGS, "number_of_this_test")

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    def test_numbers_must_be_finite(self, value, number, capsys):
        with pytest.raises(SystemExit) as ending:
            cli._parse_flags(["program", f"--{number}={value}"])
        assert ending.value.code == 2
        assert f"`{number}` must be a finite number" in capsys.readouterr().err or value != "nan"
        assert cli._parse_flags(["program", f"--{number}=0.25", "rest"]) == ["program", "rest"]

    @pytest.mark.parametrize(
        "given, message",
        [
            ([], "--needed_of_this_test is required (--help lists the flags)"),
            (["--flagfile=nowhere.flags"], "`flagfile` can't be read: No such file or directory: 'nowhere.flags'"),
        ],
    )
    def test_messages_of_absl_are_in_plain_words(self, given, message, capsys):
        flags.DEFINE_string("needed_of_this_test", None, "A path.", required=True)
        try:
            with pytest.raises(SystemExit):
                cli._parse_flags(["program", *given])
        finally:
            delattr(flags.FLAGS, "needed_of_this_test")
        assert capsys.readouterr().err.endswith(f": error: {message}\n")


class TestStart:
    def test_names_that_the_terminal_lacks_are_escaped(self):
        script = "from alexnet_tf.cli import start; start('x', lambda: 0, lambda _: print('\\udcff 猫'))"
        environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
        result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
        assert (result.returncode, result.stdout) == (0, b"\\udcff \\u732b\n"), result.stderr

    def test_lack_of_memory_is_one_line(self):
        script = "from alexnet_tf.cli import start; start('x', lambda: 0, lambda _: bytearray(2**62))"
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        assert (result.returncode, result.stderr) == (2, b"-c: error: not enough memory\n")


class TestCheckOutputs:
    def test_folder_of_an_output_must_exist(self, tmp_path):
        path = tmp_path / "missing" / "features.npz"
        with pytest.raises(ValueError, match=f"`output` must be in a folder that exists. Received: {path}"):
            cli.check_outputs("output", [path], overwrite=True)
        cli.check_outputs("output", [path], overwrite=True, makes_folder=True)
        cli.check_outputs("output", [tmp_path / "features.npz"], overwrite=False)

    @pytest.mark.parametrize(
        "what, overwrite, message",
        [
            ("file", False, "unless with --overwrite"),
            ("input", True, "a file that is read"),
            ("link", True, "a file that is read"),
            ("folder", True, "name a file"),
        ],
    )
    def test_files_are_overwritten_only_on_request_and_inputs_never(self, what, overwrite, message, tmp_path):
        (tmp_path / "folder").mkdir()
        for name in ("file", "input"):
            (tmp_path / name).touch()
        (tmp_path / "link").symlink_to(tmp_path / "input")
        with pytest.raises(ValueError, match=f"`output` must .*{message}.*{tmp_path / what}"):
            cli.check_outputs("output", [tmp_path / what], overwrite, [tmp_path / "input"])
        cli.check_outputs("output", [tmp_path / "file"], overwrite=True, inputs=[tmp_path / "input"])


class TestReason:
    @pytest.mark.parametrize(
        "fail, message",
        [
            (lambda: decode(tf.constant([b"no image"])), r"Unknown image file format\. One of .*"),
            (lambda: decode(tf.constant([b"a", b"b"])), r"assertion failed: \[one image at a time\] .*"),
            (lambda: next(iter(tf.data.TFRecordDataset("/nowhere"))), "/nowhere; No such file or directory"),
        ],
    )
    def test_tensorflow_error_shows_the_root_cause_line(self, fail, message):
        with pytest.raises(tf.errors.OpError) as caught:
            fail()
        assert len(str(caught.value).splitlines()) > 3 or "nowhere" in message
        reason = cli.reason(caught.value)
        assert re.fullmatch(message + r"( \[\d+ more lines with --debug\])?", reason)
        assert "{{" not in reason and "Op:" not in reason

    def test_tracing_error_shows_its_last_line(self):
        with pytest.raises(Exception, match="in user code") as caught:
            decode_pixels(tf.zeros((2, 2)))
        assert re.match("TypeError: .*string", cli.reason(caught.value))

    def test_other_errors_show_their_first_line(self):
        assert cli.reason(ValueError("One.")) == "One."
        assert cli.reason(ValueError("One.\nTwo.\n\nThree.")) == "One. [2 more lines with --debug]"
        assert cli.reason(OSError()) == "OSError()"
