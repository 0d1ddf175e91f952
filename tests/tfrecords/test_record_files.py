"""Third-party TFRecords: by TensorFlow's ImageNet scripts, by TensorFlow Datasets, and with other features."""

import collections
import gzip
import io
import pickle
import zlib

import numpy as np
import pytest
from batches import read_all
from made_records import write_records
from PIL import Image

from alexnet_tf.tfrecords import in_place, reader, record_files, schema, sources


def _png(number):
    file = io.BytesIO()
    Image.fromarray(np.full((40 + number % 3, 48, 3), number % 256, "uint8")).save(file, format="PNG")
    return file.getvalue()


def write_numbers(path, numbers, offset=0, **arguments):
    """Writes images with their numbers as pixel values. Image i has class i % 4."""
    write_records(path, [(_png(number), number % 4 + offset) for number in numbers], **arguments)


def write_labels(folder, train, test):
    for name, labels in (("train", train), ("test", test)):
        write_records(folder / name, [(_png(number), label) for number, label in enumerate(labels)])


@pytest.fixture
def imagenet_dir(tmp_path):
    """As by TensorFlow's first ImageNet scripts: labels start at 1. Records are sorted by class within a file."""
    folder, texts = tmp_path / "imagenet", {label: f"class {label - 1}" for label in range(1, 5)}
    for shard in range(2):
        numbers = sorted(range(shard, 60, 2), key=lambda number: number % 4)
        write_numbers(folder / f"train-{shard:05d}-of-00002", numbers, offset=1, texts=texts)
    write_numbers(folder / "validation-00000-of-00001", range(60, 72), offset=1, texts=texts)
    (folder / "train-notes.txt").write_text("not records")
    return folder


def open_files(folder, **record_format):
    return sources.open_source(f"tfrecords:{folder}", validation_fraction=0.25, record_format=record_format)


def index_in_place(folder):
    return in_place.index_in_place(f"tfrecords:{folder}", folder.with_name("index"), image_px=32)


class TestRecordFiles:
    def test_records_of_imagenet_scripts_are_mixed(self, imagenet_dir):
        source = pickle.loads(pickle.dumps(open_files(imagenet_dir, label_offset=1)))
        assert source.class_names == ("class 0", "class 1", "class 2", "class 3")
        found = read_all(source, "train")
        numbers = [np.asarray(Image.open(io.BytesIO(content)))[0, 0, 0] for _, content, _ in found]
        assert sorted(numbers) == list(range(60)) and numbers != sorted(numbers)
        assert all(label == number % 4 for number, (*_, label) in zip(numbers, found, strict=True))
        assert [entry[0] for entry in source.read("train", 7, 9)] == [entry[0] for entry in found[7:9]]
        assert collections.Counter(label for *_, label in read_all(source, "validation")) == dict.fromkeys(range(4), 3)

    def test_seed_determines_the_order_and_the_held_out_records(self, tmp_path):
        write_numbers(tmp_path / "train-00000-of-00001", range(40))
        one, same, other = (sources.open_source(f"tfrecords:{tmp_path}", seed=seed) for seed in (1, 1, 2))
        for split in ("train", "validation"):
            names = [[name for name, *_ in read_all(source, split)] for source in (one, same, other)]
            assert names[0] == names[1] and set(names[0]) != set(names[2])

    def test_records_of_tensorflow_datasets_have_class_names(self, tfds_dir):
        (folder,) = (tfds_dir / "train_only").iterdir()
        source = open_files(folder)
        assert source.class_names == ("even", "odd")
        assert (source.count("train"), source.count("validation")) == (16, 4)
        for split in schema.SPLITS:
            labels = [label for *_, label in read_all(source, split)]
            assert labels.count(0) == labels.count(1) == len(labels) / 2

    @pytest.mark.parametrize(
        ("record_format", "message"),
        [
            ({}, r"--label_offset must be 1 .* Received: labels 1 to 4"),
            ({"label_offset": 2}, r"from 0 to 2 after subtracting --label_offset=2, .* Received: -1 to 2"),
            ({"label_offset": 1, "class_names": "two"}, r"from 0 to 1 after subtracting --label_offset=1, .*: 0 to 3"),
            ({"label_offset": 1, "class_names": "none"}, "--class_names must be a file"),
            ({"image_key": "pixels"}, r"--image_key .* pixels, None. Features .*: image/class/label, image"),
        ],
        ids=str,
    )
    def test_wrong_format_is_an_error(self, record_format, message, imagenet_dir, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "two").write_text("a\nb\n")
        with pytest.raises(ValueError, match=message):
            open_files(imagenet_dir, **record_format)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("train-00001-of-00002", lambda content: content[:-9], "train-00001-of-00002 must be complete"),
            ("train-00000-of-00002", gzip.compress, "train-00000-of-00002 must not be compressed.* gzip file"),
            ("train-00000-of-00002", zlib.compress, "train-00000-of-00002 must not be compressed.* zlib file"),
            (
                "train_validation-00001-of-00002",
                lambda _: b"",
                "name of one split. Received: .*/train_validation-00001",
            ),
        ],
        ids=["truncated", "gzip", "zlib", "two splits"],
    )
    def test_unusable_file_is_an_error(self, name, change, message, imagenet_dir):
        path = imagenet_dir / name
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))
        with pytest.raises(ValueError, match=message):
            open_files(imagenet_dir, label_offset=1)

    def test_folder_without_records(self, tmp_path):
        (tmp_path / "images.zip").write_bytes(b"PK")
        with pytest.raises(ValueError, match="zip is not a folder"):
            open_files(tmp_path / "images.zip")
        with pytest.raises(ValueError, match=r"`train` in their names.* Found: images.zip"):
            open_files(tmp_path)


class TestLabels:
    @pytest.mark.parametrize("label", [2**32 + 1, 2**31, -(2**31) - 1, 2**62 + 5, 30_000])
    def test_hashes_and_large_numbers_are_refused(self, tmp_path, label):
        write_labels(tmp_path, [0, 1, label], [0, 1, label])
        for open_anything in (open_files, index_in_place):
            with pytest.raises(ValueError, match=rf"Labels must .*{label}"):
                open_anything(tmp_path)

    def test_splits_must_have_the_same_labels(self, tmp_path):
        write_labels(tmp_path, [0, 1, 2], [1, 2, 3])
        for open_anything in (open_files, index_in_place):
            with pytest.raises(ValueError, match=r"splits of .* must have the same labels, .* In only one: 0, 3"):
                open_anything(tmp_path)
        (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
        assert open_files(tmp_path, class_names=tmp_path / "names.txt").class_names == (*"abcd",)

    def test_label_with_two_names_is_refused(self, tmp_path):
        for name, texts in (("train", "abcd"), ("test", "bacd")):
            write_numbers(tmp_path / name, range(4), texts=texts)
        with pytest.raises(ValueError, match=r"label 0 is 'a' and 'b'"):
            open_files(tmp_path)


class TestFindFiles:
    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["train-00000-of-00004"], r"4 files train-\*-of-00004. Found: 1. The first that is missing has number 1"),
            (["train-00001-of-00002", "val-00000-of-00001"], "missing has number 0"),
            (["train-00000-of-00001", "val-00000-of-00002"], r"2 files val-\*-of-00002"),
            (["train-0-of-99999999999"], "Found: 1"),
            (["train-00000-of-00001", "train-00000-of-00001.bak"], r"not part of the data set: .*\.bak"),
            (["train-00000-of-00001", "train-00000-of-00001 (1)"], r"not part of the data set: .*\(1\)"),
            (["train-00000-of-00001", "train"], "not part of the data set: train"),
            (["train.tfrecord", "train.tfrecord.bak"], "not part of the data set: train.tfrecord.bak"),
            (["train.tfrecord", "train.tfrecord~"], "not part of the data set: train.tfrecord~"),
            (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "one set of files per split"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_missing_shards_and_leftovers_are_refused(self, tmp_path, names, message):
        for name in names:
            (tmp_path / name).touch()
        with pytest.raises(ValueError, match=message):
            record_files.find_files(str(tmp_path))

    @pytest.mark.parametrize(
        "names",
        [
            ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"],
            ["cats-train-00000-of-00001", "dogs-train-00000-of-00002", "dogs-train-00001-of-00002"],
            ["a-train.tfrecord-00000-of-00001", "a-test.tfrecord-00000-of-00001", "a-val.tfrecord-00000-of-00001"],
            ["train_1.tfrecord", "train_2.tfrecord"],
            ["train-00000-of-00001.tfrecord", "val-00000-of-00001", "test-00000-of-00009"],  # `test` is not used
        ],
        ids=" ".join,
    )
    def test_complete_sets_are_found(self, tmp_path, names):
        for name in names:
            (tmp_path / name).touch()
        found = record_files.find_files(str(tmp_path))
        assert len(found["train"]) == sum("train" in name for name in names)


class TestProgram:
    def test_data_set_from_records(self, imagenet_dir, tmp_path, run_build):
        before = {path: path.read_bytes() for path in imagenet_dir.iterdir()}
        arguments = [f"--source=tfrecords:{imagenet_dir}", f"--data_dir={tmp_path / 'data'}", "--image_px=32"]
        arguments += ["--encoding=png", "--num_processes=1"]
        assert run_build(*arguments, "--label_offset=1").status == 0
        assert before == {path: path.read_bytes() for path in imagenet_dir.iterdir()}
        description = schema.load_description(tmp_path / "data")
        assert description.class_names == ("class 0", "class 1", "class 2", "class 3")
        assert {name: split.count for name, split in description.splits.items()} == {"train": 60, "validation": 12}
        labels = reader.read_labels(tmp_path / "data", description, "train")
        images = reader.read_images(tmp_path / "data", description, "train", range(60))
        assert (images[:, 0, 0, 0] % 4 == labels).all()
        result = run_build(*arguments, "--label_offset=0")
        assert result.status == 2
        assert "record_format was {'label_offset': 1} and is now {'label_offset': 0}" in result.stderr

    def test_keys_and_class_names_from_flags(self, tmp_path, run_build):
        for split, numbers in (("train", range(12)), ("test", range(12, 20))):
            write_numbers(tmp_path / f"my_{split}.tfrecord", numbers, image_key="jpeg", label_key="y")
        (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
        arguments = [f"--source=tfrecords:{tmp_path}", f"--data_dir={tmp_path / 'data'}", "--image_px=32"]
        arguments += ["--image_key=jpeg", "--label_key=y", f"--class_names={tmp_path / 'names.txt'}"]
        assert run_build(*arguments, "--encoding=png", "--num_processes=1").status == 0
        description = schema.load_description(tmp_path / "data")
        assert description.class_names == ("a", "b", "c", "d")
        assert description.splits["validation"].count_per_class == (2, 2, 2, 2)

    def test_training_on_a_folder_of_records_names_the_way(self, imagenet_dir):
        with pytest.raises(ValueError, match=rf"--source=tfrecords:{imagenet_dir} --data_dir=ANOTHER"):
            schema.load_description(imagenet_dir)
