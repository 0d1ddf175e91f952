"""Files that are complete or not there."""

import errno
import hashlib
import json

import pytest

from alexnet_tf.tfrecords import files


class TestWriteAtomically:
    def test_failing_write_leaves_the_old_file_alone_and_names_it(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def fail(file):
            file.write(b"new")
            raise OSError(errno.ENOSPC, "disk full")

        with pytest.raises(OSError, match=f"{path} can't be written: disk full") as caught:
            files.write_atomically(path, fail)
        assert caught.value.errno == errno.ENOSPC
        assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"old"}

    def test_new_content_replaces_the_old_and_no_other_file_is_left(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old and longer")
        files.write_atomically(path, lambda file: file.write(b"new"))
        assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"new"}


class TestWriteText:
    def test_text_is_written_in_utf_8_as_it_is(self, tmp_path):
        files.write_text(tmp_path / "file", "é\r\n")
        assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\r\n"


class TestWriteJson:
    def test_content_is_indented_and_ends_with_a_newline(self, tmp_path):
        files.write_json(tmp_path / "file", {"a": [1, None]})
        text = (tmp_path / "file").read_text()
        assert json.loads(text) == {"a": [1, None]}
        assert text.startswith('{\n  "a": [') and text.endswith("}\n")


class TestSync:
    def test_files_and_folders_are_synced(self, tmp_path):
        (tmp_path / "file").touch()
        files.sync(tmp_path / "file")
        files.sync(tmp_path)


class TestSha256:
    def test_is_that_of_the_content(self, tmp_path):
        (tmp_path / "file").write_bytes(b"content")
        assert files.sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
