"""Reading files on a disk and through TensorFlow's file systems."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from batches import assert_equal_batches, training_batches
from google_storage import google_storage
from made_records import write_records
from programs import ENVIRONMENT, run, train_flags

from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import in_place, reader, schema, storage, verify

CONTENT = b"0123456789"


@pytest.fixture(params=["disk", "ram"])
def folder(request, tmp_path):
    """A folder on a disk, or in TensorFlow's file system in memory, with files of ten bytes."""
    path = str(tmp_path) if request.param == "disk" else f"ram://{tmp_path.name}"
    tf.io.gfile.makedirs(path)
    for name in ("b", "a", ".hidden"):
        with tf.io.gfile.GFile(f"{path}/{name}", "wb") as file:
            file.write(CONTENT)
    return path


def copy(source, target):
    """Copies the files of a local folder into another folder, which may be remote."""
    tf.io.gfile.makedirs(target)
    for path in source.iterdir():
        tf.io.gfile.copy(str(path), f"{target}/{path.name}", overwrite=True)


class TestFiles:
    def test_content_size_end_and_checksum(self, folder):
        path = storage.join(folder, "a")
        assert storage.read_bytes(path) == CONTENT
        assert storage.size(path) == len(CONTENT)
        assert storage.read_end(path) == CONTENT[-4:].hex()
        assert storage.sha256(path) == hashlib.sha256(CONTENT).hexdigest()
        with storage.open_binary(path) as file:
            file.seek(3)
            assert file.read(2) == b"34"

    def test_list_has_no_hidden_files_and_no_folders(self, folder, tmp_path):
        assert storage.list_files(folder) == ["a", "b"]
        (tmp_path / "only").joinpath("folder").mkdir(parents=True)
        assert storage.list_files(tmp_path / "only") == []

    def test_missing_files_are_named(self, folder):
        path = storage.join(folder, "c")
        assert storage.size(path) is None
        assert storage.size(folder) is None
        with pytest.raises(FileNotFoundError, match=path):
            storage.read_bytes(path)
        with pytest.raises(FileNotFoundError, match=path):
            storage.list_files(path)

        with pytest.raises(NotADirectoryError):
            storage.list_files(storage.join(folder, "a"))

    def test_unknown_file_system_is_named(self):
        with pytest.raises(OSError, match=r"nowhere://a can't be read: TensorFlow reads .*ram://"):
            storage.list_files("nowhere://a")


class TestPaths:
    def test_join_keeps_absolute_paths(self):
        assert storage.join("gs://bucket/data/", "a") == "gs://bucket/data/a"
        assert storage.join("data", "a") == "data/a"
        assert storage.join("data", "/b/a") == "/b/a"
        assert storage.join("data", "gs://bucket/a") == "gs://bucket/a"
        assert storage.join("gs://bucket/data", "/b/a") == "/b/a"

    def test_absolute_keeps_remote_paths(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert storage.absolute("a") == str(tmp_path / "a")
        assert storage.absolute("gs://bucket/a/") == "gs://bucket/a"


class TestDataSets:
    def test_remote_data_set_equals_local_one(self, tiny_data_dir, tmp_path):
        remote = f"ram://{tmp_path.name}/data"
        copy(tiny_data_dir, remote)
        description = schema.load_description(remote)
        assert description == schema.load_description(tiny_data_dir)
        assert_equal_batches(training_batches(remote, 4, seed=1), training_batches(tiny_data_dir, 4, seed=1))
        labels = [reader.read_labels(folder, description, "validation") for folder in (tiny_data_dir, remote)]
        np.testing.assert_array_equal(*labels)
        assert verify.verify_dataset(remote) == []

    def test_missing_remote_data_set_is_named(self):
        with pytest.raises(ValueError, match=r"ram://nothing/dataset.json does not exist.* on a disk and copy it"):
            schema.load_description("ram://nothing")

    @pytest.mark.slow
    def test_remote_records_in_place(self, tiny_data_dir, tmp_path):
        copy(tiny_data_dir, f"ram://{tmp_path.name}/others")
        for folder, index_dir in (
            (tiny_data_dir, tmp_path / "local"),
            (f"ram://{tmp_path.name}/others", tmp_path / "remote"),
        ):
            in_place.index_in_place(f"tfrecords:{folder}", index_dir, image_px=40)
        remote = schema.load_description(tmp_path / "remote")
        assert remote.splits["train"].shards[0].name == f"ram://{tmp_path.name}/others/train-00000-of-00005"
        local, read = (training_batches(tmp_path / name, 4, seed=1) for name in ("local", "remote"))
        assert_equal_batches(read, local)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.long
class TestGoogleStorage:
    def test_only_part_of_a_large_file_is_read(self, tmp_path):
        path = tmp_path / "buckets" / "bucket" / "records"
        write_records(path, [(bytes(100_000), label) for label in range(200)])
        code = (
            "from alexnet_tf.tfrecords import record_files, records; import tensorflow as tf;"
            "positions = tf.data.Dataset.from_tensors(('gs://bucket/records', tf.constant(0, tf.int64)));"
            "read = lambda *each: records.read_records(*each, tf.constant(1, tf.int64));"
            "print(len(list(records.read_in_parallel(positions, read))))"
        )
        with google_storage(tmp_path / "buckets", tmp_path) as (environment, requests):
            command = [sys.executable, "-c", code]
            result = subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, text=True, check=False)
        assert result.stdout == "1\n", result.stderr
        assert 100_000 < sum(size for _, _, size in requests) < 3e6 < path.stat().st_size

    def test_training_on_a_bucket_equals_a_disk_and_writes_nothing(self, own_dir, tmp_path):
        shutil.copytree(own_dir, tmp_path / "buckets" / "bucket" / "data")
        flags = ("--batch_size=10", "--epochs=1")
        with google_storage(tmp_path / "buckets", tmp_path) as (environment, requests):
            for name, folder in (
                ("disk", own_dir),
                ("bucket", "gs://bucket/data"),
                ("in_place", "tfrecords:gs://bucket/data"),
            ):
                result = run("train", *train_flags(folder, tmp_path / name, *flags), environment=environment)
                assert result.returncode == 0, result.stderr
                assert bool(requests) == (name != "disk")
            result = run("tfrecords.build", "--verify", "--data_dir=gs://bucket/data", environment=environment)
            assert result.returncode == 0 and "no problems" in result.stdout, result.stderr
            missing = train_flags("gs://bucket/nothing", tmp_path / "missing", *flags)
            result = run("train", *missing, environment=environment)
        assert {method for method, _, _ in requests} == {"GET"}
        assert result.returncode == 2
        assert "train: error: gs://bucket/nothing/dataset.json does not exist" in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
        weights, read = (load_model(tmp_path / name).get_weights() for name in ("disk", "bucket"))
        for expected, weight in zip(weights, read, strict=True):
            np.testing.assert_array_equal(weight, expected)
        names = [shard.name for shard in schema.load_description(tmp_path / "in_place" / "data").splits["train"].shards]
        assert names[0] == f"gs://bucket/data/{schema.load_description(own_dir).splits['train'].shards[0].name}"
