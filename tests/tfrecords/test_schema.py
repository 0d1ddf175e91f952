"""dataset.json and the checks of shards."""

import json
import shutil

import pytest

from alexnet_tf.tfrecords import schema


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
            3, (1, 2), (schema.Shard("train-00000-of-00001", 3, 40, "ab", (1,)),), (("a.png", "broken"),)
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
