"""dataset.json and the checks of shards."""

import json

import numpy as np
import pytest
from made_photos import photo, save_image

from alexnet_tf.tfrecords import arrays, dataset_builder, reader, schema


class TestDatasetDescription:
    def test_save_and_load(self, tmp_path):
        split = schema.Split(
            2, (1, 2), (schema.Shard("train-00000-of-00001", 3, 40, "ab", (1,), end="0a"),), (("a.png", "broken"),)
        )
        description = schema.DatasetDescription(("é", "b"), 64, False, "png", {"train": split}, {"seed": 1})
        description.save(tmp_path)
        assert schema.load_description(tmp_path) == description
        assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


class TestLoadDescription:
    def test_missing_file_names_the_command(self, tmp_path):
        with pytest.raises(ValueError, match=rf"alexnet-tfrecords .*--data_dir={tmp_path}"):
            schema.load_description(tmp_path)

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "{}", "[" * 100_000, '{"format_version": 2}', '{"format_version": 3}']
    )
    def test_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(ValueError, match=r"dataset\.json (is damaged|must have format|was edited or is damaged)"):
            schema.load_description(tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda c: c["class_names"].reverse(),
            lambda c: c.update(encoding="raw"),
            lambda c: c.update(image_px=39),
            lambda c: c["settings"].update(exif_orientation=False),
            lambda c: c["splits"]["train"].update(count_per_class=[22, 24]),
        ],
    )
    def test_edited_file_is_refused(self, copy, change):
        path = copy / "dataset.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"dataset\.json was edited"):
            reader.make_evaluation_dataset(copy, 2, 32)

    def test_shard_in_another_folder_is_refused(self, tmp_path):
        shard = schema.Shard("../train-00000-of-00001", 1, 40, "ab", end="0a")
        split = schema.Split(1, (1, 0), (shard,))
        schema.DatasetDescription(("a", "b"), 64, False, "png", {"train": split}, {}).save(tmp_path)
        with pytest.raises(ValueError, match=r"must be in the same folder. Received: '../train-00000-of-00001'"):
            schema.load_description(tmp_path)


class TestShards:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda content: None, "must have .* bytes according to dataset.json. Found: no such file"),
            (lambda content: content[:-7], "must have [0-9,]+ bytes according to dataset.json. Found: [0-9,]+ bytes"),
            (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "must end with .*belongs to another data set"),
        ],
        ids=["missing", "truncated", "of the same size"],
    )
    def test_other_shard_is_refused(self, change, message, copy):
        path = copy / "train-00002-of-00005"
        content = change(path.read_bytes())
        path.write_bytes(content) if content else path.unlink()
        with pytest.raises(ValueError, match=f"{path} {message}"):
            reader.make_training_dataset(copy, 2, 32)


class TestChecksums:
    @pytest.mark.parametrize("name", ["statistics.npz", "index.npz"])
    def test_other_file_of_the_same_shapes_is_refused(self, name, copy):
        path = copy / name
        with np.load(path) as saved:
            foreign = dict(saved)
        if name == "statistics.npz":
            foreign["mean_image"] += 1
        else:  # the same bytes in each shard
            foreign["train"][:2] += np.array([1, -1], "int32")
        np.savez_compressed(path, **foreign)
        with pytest.raises(ValueError, match=rf"{name} .*does not match dataset\.json"):
            reader.make_training_dataset(copy, 2, 32)

    def test_order_of_arrays_does_not_matter(self):
        one, two = np.arange(3), np.ones((2, 2))
        expected = arrays.checksum({"a": one, "b": two})
        assert arrays.checksum({"b": two, "a": one}) == expected
        others = ({"a": one, "b": two.T.astype("float32")}, {"a": one, "b": two.ravel()}, {"a": two, "b": one})
        assert expected not in map(arrays.checksum, others)


class TestClassNames:
    @pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "a\u2028b", "a\r", "\udcff"])
    def test_control_characters_are_refused(self, name):
        with pytest.raises(ValueError, match="must not contain control characters"):
            schema.DatasetDescription((name, "b"), 64, False, "png", splits={}, settings={})

    def test_folder_with_such_a_name_is_not_built(self, tmp_path):
        for split in ("train", "validation"):
            for name in ("a", "two\nlines"):
                save_image(tmp_path / "images" / split / name / "1.png", photo())
        with pytest.raises(ValueError, match=r"Received: 'two\\nlines'"):
            dataset_builder.build_dataset(f"folder:{tmp_path / 'images'}", tmp_path / "data", num_processes=1)
        assert not list((tmp_path / "data").glob("*"))

    @pytest.mark.parametrize("content", ["\ufeffécluse\r\nb\r\n", "écluse\nb\n\n \n"], ids=["windows", "empty lines"])
    def test_byte_order_mark_and_empty_last_lines_of_a_file_are_ignored(self, content):
        assert schema.parse_class_names(content.encode(), "names.txt") == ["écluse", "b"]

    @pytest.mark.parametrize(
        "content, message",
        [
            (b"a\n\nc\n", "Line 2 of names.txt is empty"),
            (b"a\nb\na\n", "Line 3 of names.txt is the same as line 1: 'a'"),
            (b"\xff", "must be text in UTF-8. names.txt: "),
        ],
        ids=["empty line", "duplicate", "encoding"],
    )
    def test_other_files_are_refused(self, content, message):
        with pytest.raises(ValueError, match=message):
            schema.parse_class_names(content, "names.txt")

    @pytest.mark.parametrize("name", ["a|b", "<img>", "猫", "a b", "n01\ttench", "نیم‌فاصله"])
    def test_other_names_are_allowed(self, name):
        schema.check_class_names([name])
