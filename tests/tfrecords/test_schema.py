"""dataset.json and the checks of shards."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet_tf.tfrecords import dataset_builder, reader, schema, storage


@pytest.fixture
def data_dir(tiny_data_dir, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_data_dir, tmp_path / "data")


class TestShardName:
    def test_numbers_are_padded(self):
        assert schema.shard_name("train", 3, 16) == "train-00003-of-00016"


class TestDatasetDescription:
    def test_save_then_load_gives_an_equal_one(self, tmp_path):
        split = schema.Split(
            2, (1, 2), (schema.Shard("train-00000-of-00001", 3, 40, "ab", (1,), "0a"),), (("a.png", "broken"),)
        )
        description = schema.DatasetDescription(("é", "b"), 64, False, "png", {"train": split}, {"seed": 1})
        description.save(tmp_path)
        assert schema.load_description(tmp_path) == description
        assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]

    def test_splits_agree_with_the_shards(self, tiny_data_dir):
        for split, count in (("train", 46), ("validation", 10)):
            content = schema.load_description(tiny_data_dir).splits[split]
            assert (
                content.count == sum(content.count_per_class) == sum(shard.count for shard in content.shards) == count
            )
            assert content.count_per_class == (count // 2, count // 2)


class TestLoadDescription:
    def test_missing_file_names_the_command_that_builds_it(self, tmp_path):
        with pytest.raises(ValueError, match=rf"alexnet-tfrecords .*--data_dir={tmp_path}"):
            schema.load_description(tmp_path)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format_version": 2}', '{"format_version": 1}'])
    def test_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(ValueError, match=r"dataset\.json (is damaged|must have format version 2)"):
            schema.load_description(tmp_path)

    def test_other_format_version_is_reported(self, data_dir):
        path = data_dir / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 3}))
        with pytest.raises(ValueError, match="Received: format_version=3"):
            schema.load_description(data_dir)

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda c: c.update(class_names="even"), "`class_names` must be a list of strings. Received: 'even'"),
            (lambda c: c.update(class_names=["even", 1]), "`class_names` must be a list of strings"),
            (lambda c: c.update(class_names=["even", "odd", "third"]), "46 records of its shards in all 3 classes"),
            (lambda c: c.update(encoding="webp"), "`encoding` must be one of .*Received: 'webp'"),
            (lambda c: c["splits"]["train"].update(count=45), "'train' must count the 46 records.*Received: 45 in all"),
            (lambda c: c["splits"]["train"].update(count_per_class=[20, 20]), "Received: 46 in all, 40 in 2 classes"),
            (lambda c: c["splits"]["train"].update(shards=[]), "the split 'train' must have a shard"),
            (lambda c: c["splits"]["train"]["shards"].pop(), "the split 'train' must count"),
            (lambda c: c.update(settings=[]), "`settings` must be an object"),
        ],
    )
    def test_content_that_no_builder_writes_is_named(self, data_dir, change, message):
        path = data_dir / "dataset.json"
        content = json.loads(path.read_text())
        change(content)
        del content["checksum"]  # data sets of version 0.1 have none
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"dataset\.json is damaged: .*{message}"):
            schema.load_description(data_dir)

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
    def test_edited_file_is_refused(self, data_dir, change):
        path = data_dir / "dataset.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"dataset\.json must be as it was written.*It was edited"):
            reader.make_evaluation_dataset(data_dir, 2, 32)

    def test_file_written_by_version_0_1_is_read(self):
        description = schema.load_description(pathlib.Path(__file__).parent.parent / "goldens" / "run")
        assert description.splits["train"].count == 3000
        assert description.exif_orientation is None


class TestSplitOf:
    def test_unknown_split_lists_the_known(self, tiny_data_dir):
        with pytest.raises(ValueError, match=r"train.*validation.*Received: split='test'"):
            schema.split_of(schema.load_description(tiny_data_dir), "test")


class TestCheckShardSizes:
    def test_missing_shard_is_named(self, data_dir):
        (data_dir / "train-00002-of-00005").unlink()
        with pytest.raises(ValueError, match=r"train-00002-of-00005 .*no such file"):
            schema.check_shard_sizes(data_dir, schema.load_description(data_dir).splits["train"])

    def test_cut_short_shard_is_named_with_both_sizes(self, data_dir):
        path = data_dir / "train-00002-of-00005"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(
            ValueError, match=rf"train-00002-of-00005 must hold {size:,} bytes.*Found: {size - 7:,} bytes"
        ):
            schema.check_shard_sizes(data_dir, schema.load_description(data_dir).splits["train"])

    def test_foreign_shard_of_the_same_size_is_named(self, data_dir):
        first, second = (data_dir / f"train-0000{number}-of-00005" for number in (0, 1))
        content = bytearray(first.read_bytes())
        content[-1] ^= 1
        first.write_bytes(content)
        with pytest.raises(ValueError, match=r"train-00000-of-00005 must end with .*a shard of another data set"):
            reader.make_training_dataset(data_dir, 2, 32)
        first.write_bytes(b"")
        assert storage.read_end(first) == ""
        assert storage.read_end(second) == second.read_bytes()[-4:].hex()


class TestChecksums:
    @pytest.mark.parametrize("name", ["statistics.npz", "index.npz"])
    def test_foreign_file_of_the_same_shapes_is_refused(self, name, data_dir):
        path = data_dir / name
        with np.load(path) as arrays:
            foreign = {key: array.copy() for key, array in arrays.items()}
        if name == "statistics.npz":
            foreign["mean_image"] += 1
        else:  # the same bytes in each shard
            foreign["train"][:2] += np.array([1, -1], "int32")
        np.savez_compressed(path, **foreign)
        with pytest.raises(ValueError, match=rf"{name} must belong to dataset\.json beside it"):
            reader.make_training_dataset(data_dir, 2, 32)
        path = data_dir / "dataset.json"
        content = json.loads(path.read_text())
        del content["checksum"], content["checksums"]  # as version 0.1 wrote it
        path.write_text(json.dumps(content))
        reader.make_training_dataset(data_dir, 2, 32)

    def test_order_and_compression_of_the_arrays_do_not_matter(self):
        one, two = np.arange(3), np.ones((2, 2))
        assert schema.array_checksum({"a": one, "b": two}) == schema.array_checksum({"b": two, "a": one})
        others = ({"a": one, "b": two.T.astype("float32")}, {"a": one, "b": two.ravel()}, {"a": two, "b": one})
        assert schema.array_checksum({"a": one, "b": two}) not in map(schema.array_checksum, others)


class TestClassNames:
    @pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "a\u2028b", "a\r", "\udcff"])
    def test_control_characters_are_refused_when_data_is_built_and_read(self, name, tiny_data_dir, tmp_path):
        with pytest.raises(ValueError, match="must hold no control characters"):
            schema.DatasetDescription((name, "b"), 64, False, "png", splits={}, settings={})
        content = json.loads((tiny_data_dir / "dataset.json").read_text())
        (tmp_path / "dataset.json").write_text(json.dumps(content | {"class_names": ["a", name]}))
        with pytest.raises(ValueError, match=r"dataset\.json is damaged: Names of classes must hold no control"):
            schema.load_description(tmp_path)

    def test_folder_of_such_a_name_is_refused_before_anything_is_built(self, tmp_path):
        for split in ("train", "validation"):
            for name in ("a", "two\nlines"):
                (tmp_path / "images" / split / name).mkdir(parents=True)
                Image.new("RGB", (64, 64)).save(tmp_path / "images" / split / name / "1.png")
        with pytest.raises(ValueError, match=r"Received: 'two\\nlines'"):
            dataset_builder.build_dataset(f"folder:{tmp_path / 'images'}", tmp_path / "data", num_processes=1)
        assert not list((tmp_path / "data").glob("*"))

    @pytest.mark.parametrize("name", ["a|b", "<img>", "猫", "a b", "n01\ttench", "نیم‌فاصله"])
    def test_other_names_are_kept(self, name):
        schema.check_class_names([name])
