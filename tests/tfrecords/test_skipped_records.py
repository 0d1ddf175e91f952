"""Damaged records: an error names them, or they are skipped."""

import pathlib

import pytest
import tensorflow as tf
from batches import CROP_PX, assert_equal_batches, numbers_in, training_batches

from alexnet_tf.tfrecords import epochs, reader, records, schema, verify

SHARD = "train-00001-of-00005"


def damage(data_dir, name, record):
    description = schema.load_description(data_dir)
    split = name.partition("-")[0]
    names = [shard.name for shard in description.splits[split].shards]
    offset = records.load_index(data_dir, description)[split][names.index(name)][record]
    content = bytearray((data_dir / name).read_bytes())
    content[offset + 30] ^= 1
    (data_dir / name).write_bytes(content)


def stored_images(data_dir):
    """For each training image, by its number, the (shard, record) that holds it."""
    description = schema.load_description(data_dir)
    shards = description.splits["train"].shards
    places = [(shard.name, record) for shard in shards for record in range(shard.count)]
    images = reader.read_images(data_dir, description, "train", range(len(places)))
    return dict(zip(numbers_in(images), places, strict=True))


class TestSkipDamagedRecords:
    def test_all_other_records_are_read(self, copy):
        stored = stored_images(copy)
        damaged = [(SHARD, 0), (SHARD, 4), ("train-00003-of-00005", 8)]
        for place in damaged:
            damage(copy, *place)
        cut = copy / "train-00004-of-00005"
        cut.write_bytes(cut.read_bytes()[:-3])
        damaged.append((cut.name, 9))  # the last of ten
        description, problems = verify.skip_damaged_records(copy, schema.load_description(copy), 4)
        assert [(pathlib.PurePath(problem.path).name, problem.record) for problem in problems] == damaged
        assert description.splits["train"].count == 42
        expected = {number for number, place in stored.items() if place not in damaged}
        dataset = reader.make_evaluation_dataset(copy, 10, CROP_PX, description=description, split="train")
        assert sorted(n for images, _ in dataset for n in numbers_in(images.numpy())) == sorted(expected)
        epoch = training_batches(copy, 4, description=description)
        numbers = [n for images, _, _ in epoch for n in numbers_in(images)]
        assert len(numbers) == len(set(numbers)) == 40 and set(numbers) <= expected

    def test_missing_shard_is_skipped(self, copy):
        (copy / "train-00002-of-00005").unlink()
        description, problems = verify.skip_damaged_records(copy, schema.load_description(copy), 9)
        assert description.splits["train"].count == 46 - len(problems) == 37
        assert len(training_batches(copy, 3, description=description)) == 3

    def test_split_without_a_good_record_is_an_error(self, copy):
        for path in copy.glob("validation-*"):
            path.unlink()
        description, _ = verify.skip_damaged_records(copy, schema.load_description(copy), 10, ("validation",))
        with pytest.raises(ValueError, match=r"'validation' of .* must have a record\. All 10 are skipped"):
            reader.make_evaluation_dataset(copy, 10, CROP_PX, description=description)

    def test_more_than_max_records_is_an_error_that_names_the_first(self, copy):
        damage(copy, SHARD, 3)
        with pytest.raises(ValueError, match=rf"At most 0 .*Found: 1\. The first: .*{SHARD}, record 3:"):
            verify.skip_damaged_records(copy, schema.load_description(copy), 0)


class TestNamingDamagedShards:
    def test_error_names_the_damaged_record(self, copy):
        damage(copy, "train-00002-of-00005", 5)
        with (
            pytest.raises(ValueError, match=r"train-00002-of-00005, record 5: it can't be read: corrupted record"),
            verify.naming_damaged_shards(copy, schema.load_description(copy)),
        ):
            training_batches(copy, 5)

    @pytest.mark.parametrize(
        "error", [KeyError(), tf.errors.DataLossError(None, None, ""), tf.errors.InvalidArgumentError(None, None, "")]
    )
    def test_other_errors_pass_through(self, error, copy):
        damage(copy, SHARD, 3)
        description, _ = verify.skip_damaged_records(copy, schema.load_description(copy), 1)
        with pytest.raises(type(error)), verify.naming_damaged_shards(copy, description):
            raise error


def test_resume_reads_nothing_before_the_window_of_its_step(copy, monkeypatch):
    monkeypatch.setattr(epochs, "WINDOW_IMAGES", 20)  # two steps
    stored, batches = stored_images(copy), training_batches(copy, 4)
    for images, _, _ in batches[:2]:
        for number in numbers_in(images):
            damage(copy, *stored[number])
    assert_equal_batches(training_batches(copy, 1, start_step=3), batches[3:])
    with pytest.raises(tf.errors.DataLossError):
        training_batches(copy, 1)
