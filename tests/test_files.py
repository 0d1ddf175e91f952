"""Files that are complete or not there."""

import errno
import json
import os
import pathlib
import threading

import pytest

from alexnet_tf import files


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

    def test_content_is_on_the_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        events, fsync, replace = [], os.fsync, pathlib.Path.replace

        def recorded_fsync(descriptor):
            events.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().read_bytes())
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(pathlib.Path, "replace", lambda *paths: events.append("named") or replace(*paths))
        files.write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
        assert events == [b"new", "named"]


class TestWriteText:
    def test_text_is_written_in_utf_8_as_it_is(self, tmp_path):
        files.write_text(tmp_path / "file", "é\r\n")
        assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\r\n"

    def test_names_that_are_not_utf8_keep_their_bytes(self, tmp_path):
        files.write_text(tmp_path / "file", os.fsdecode(b"\xff.png"))
        assert (tmp_path / "file").read_bytes() == b"\xff.png"


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


class TestPublish:
    def test_everything_is_synced_and_renamed(self, tmp_path, monkeypatch):
        synced, folder = [], tmp_path / "new"
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / "file").touch()
        monkeypatch.setattr(files, "sync", lambda path: synced.append(path.relative_to(tmp_path).as_posix()))
        files.publish(folder, tmp_path / "name")
        assert synced == ["new/inside", "new/inside/file", "new", "."]
        assert [path.name for path in tmp_path.rglob("*")] == ["name", "inside", "file"]


class TestSoleUser:
    @pytest.mark.parametrize("name", ["", "lock"])
    def test_second_user_of_a_folder_or_file_is_refused(self, name, tmp_path):
        with (
            files.sole_user(tmp_path / name),
            pytest.raises(ValueError, match="in use"),
            files.sole_user(tmp_path / name, "in use"),
        ):
            pass
        with files.sole_user(tmp_path / name, "in use"):
            pass

    def test_second_user_without_a_message_waits(self, tmp_path):
        order = []

        def use():
            with files.sole_user(tmp_path / "lock"):
                order.append("second")

        with files.sole_user(tmp_path / "lock"):
            second = threading.Thread(target=use)
            second.start()
            second.join(0.2)
            order.append("first")
        second.join()
        assert order == ["first", "second"]
