"""The order of an epoch: a permutation that does not depend on the number of workers."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from batches import CROP_PX, assert_equal_batches, numbers_in, training_batches

from alexnet_tf.tfrecords import epochs, reader, records, schema
from alexnet_tf.tfrecords.augmentation import Augmentation

AUGMENTATION = Augmentation(images_per_crop=5)
LEFT_OUT = ((0, 3), (2, 5), (4, 1), (4, 8))  # (shard, record)
# (images, batch size, bytes of a record): one window or several; short blocks, a last block that is shorter, one step.
SIZES = [(46, 10, 1e3), (5000, 128, 3e4), (100_003, 100, 1e5), (70_000, 128, 2e5), (9, 9, 1e9), (1, 1, 1.0)]


def epoch_of(order, epoch=0):
    """The numbers of the records in an epoch, (steps, batch_size)."""
    return np.concatenate([order.window(epoch, window).numpy() for window in range(order.windows)])


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of two steps of 12 images, and blocks of 4 of the 46 records."""
    monkeypatch.setattr(epochs, "WINDOW_IMAGES", 24)
    monkeypatch.setattr(epochs, "MIN_BLOCKS", 10)


class TestEpochOrder:
    @pytest.mark.parametrize("count, batch_size, record_bytes", SIZES)
    def test_epoch_has_each_record_once_except_the_rest(self, count, batch_size, record_bytes):
        order = epochs.EpochOrder(count, record_bytes, batch_size, seed=1)
        numbers = epoch_of(order)
        assert numbers.shape == (count // batch_size, batch_size)
        assert len(set(numbers.ravel())) == numbers.size
        assert numbers.min() >= 0 and numbers.max() < count

    def test_epochs_and_seeds_have_different_orders(self):
        orders = [epochs.EpochOrder(1003, 1e4, 100, seed) for seed in (0, 0, 1)]
        first, same, other = (epoch_of(order) for order in orders)
        second = epoch_of(orders[0], 1)
        np.testing.assert_array_equal(first, same)
        for numbers in (other, second):
            assert (numbers != first).mean() > 0.99
            assert set(numbers.ravel()) != set(first.ravel())  # the three that are left out

    def test_each_record_may_come_at_any_place(self):
        order = epochs.EpochOrder(12, 1e3, 4, seed=0)
        read = tf.function(lambda epoch: order.window(epoch, 0))
        steps = np.stack([np.argsort(read(tf.constant(epoch)).numpy().ravel()) for epoch in range(600)])
        counts = np.stack([np.bincount(column, minlength=12) for column in steps.T])
        assert counts.min() > 20 and counts.max() < 85  # 50 on average

    def test_batch_has_records_from_all_over_the_epoch(self):
        order = epochs.EpochOrder(100_000, 3e4, 128, seed=0)
        assert order.block_length == 32
        blocks = epoch_of(order) // order.block_length
        assert np.mean([len(set(step)) for step in blocks]) > 110
        assert np.abs(blocks.mean(axis=1) / blocks.max() - 0.5).max() < 0.15

    @pytest.mark.parametrize("record_bytes", [1e3, 3.5e4, 2e5, 1e7])
    def test_windows_and_blocks_are_bounded(self, record_bytes):
        order = epochs.EpochOrder(200_000, record_bytes, 10, seed=0)
        largest = max(len(order.window(0, window)) for window in (0, order.windows // 2, order.windows - 1))
        assert largest * 10 <= epochs.WINDOW_IMAGES
        assert largest == 1 or largest * 10 * record_bytes <= epochs.WINDOW_BYTES
        assert order.block_length == 1 or order.block_length * record_bytes <= epochs.BLOCK_BYTES
        assert largest * 10 >= min(epochs.WINDOW_IMAGES, epochs.WINDOW_BYTES / record_bytes) / 2 or largest == 1

    def test_windows_of_an_epoch_are_of_one_size(self):
        order = epochs.EpochOrder(40_000, 3e4, 100, seed=0)
        sizes = {len(order.window(0, window)) for window in range(order.windows)}
        assert max(sizes) - min(sizes) <= 1 and order.windows > 5


class TestWorkers:
    @pytest.fixture(autouse=True)
    def _small(self, small_windows):
        pass

    def read(self, data_dir, num_workers, count, **arguments):
        """The batches of all workers, put together."""
        of_workers = []
        for worker in range(num_workers):
            share = reader.Share(worker, num_workers)
            dataset = reader.make_training_dataset(
                data_dir, 12, CROP_PX, augmentation=AUGMENTATION, share=share, **arguments
            )
            batches = itertools.islice(dataset, count)
            of_workers.append([(inputs["image"], inputs["color_offset"], labels) for inputs, labels in batches])
        return [
            tuple(np.concatenate(each) for each in zip(*step, strict=True)) for step in zip(*of_workers, strict=True)
        ]

    @pytest.mark.slow
    def test_any_number_of_workers_reads_the_same_batches(self, tiny_data_dir):
        expected = self.read(tiny_data_dir, 1, 6)
        numbers = np.array([numbers_in(images) for images, _, _ in expected])
        assert len(set(numbers[:3].ravel())) == len(set(numbers[3:].ravel())) == 36
        assert_equal_batches(self.read(tiny_data_dir, 2, 6), expected)
        resumed = self.read(tiny_data_dir, 3, 2, start_epoch=1, start_step=1)
        assert_equal_batches(resumed, expected[4:])

    def test_replicas_take_a_workers_batches_in_turn(self, tiny_data_dir):
        expected = self.read(tiny_data_dir, 1, 3)
        share = reader.Share(1, 2, replicas=3)
        dataset = reader.make_training_dataset(tiny_data_dir, 12, CROP_PX, augmentation=AUGMENTATION, share=share)
        images = [inputs["image"].numpy() for inputs, _ in dataset.take(9)]
        for step, (whole, _, _) in enumerate(expected):
            np.testing.assert_array_equal(np.concatenate(images[3 * step : 3 * step + 3]), whole[6:])


class TestLeftOutRecords:
    @pytest.fixture
    def description(self, tiny_data_dir):
        description = schema.load_description(tiny_data_dir)
        split = description.splits["train"]
        shards = tuple(
            dataclasses.replace(shard, left_out=tuple(record for number, record in LEFT_OUT if number == index))
            for index, shard in enumerate(split.shards)
        )
        split = dataclasses.replace(split, count=46 - len(LEFT_OUT), shards=shards)
        return dataclasses.replace(description, splits=description.splits | {"train": split})

    def test_segments_end_before_a_gap(self, tiny_data_dir, description):
        found = records.Records.open(tiny_data_dir, description, "train")
        assert found.count == 42
        paths, offsets, counts = found.segments(tf.range(42, dtype=tf.int64))
        index = records.load_index(tiny_data_dir, description)["train"]
        assert list(counts.numpy()) == [3, len(index[0]) - 4, len(index[1]), 5, len(index[2]) - 6, len(index[3]), 1, 6,
                                        len(index[4]) - 9]  # fmt: skip
        assert [path.decode()[-14:-9] for path in paths.numpy()] == [
            f"{shard:05d}" for shard in (0, 0, 1, 2, 2, 3, 4, 4, 4)
        ]
        assert offsets.numpy()[1] == index[0][4]

    def test_segments_end_with_their_file(self):
        begins, ends = tf.constant([0, 100], tf.int64), tf.constant([100, 200], tf.int64)
        found = records.Records(tf.constant(["a", "b"]), tf.constant([0, 1]), begins, ends)
        paths, offsets, counts = found.segments(tf.range(2, dtype=tf.int64))
        assert [*paths.numpy()] == [b"a", b"b"] and [*offsets.numpy()] == [0, 100] and [*counts.numpy()] == [1, 1]

    @pytest.mark.slow
    def test_started_at_any_step_the_batches_are_the_rest_of_all(self, tiny_data_dir, description, small_windows):
        complete = training_batches(tiny_data_dir, 8, description=description)
        for epoch, step in ((0, 1), (0, 3), (1, 2)):
            begun = training_batches(
                tiny_data_dir, 8 - 4 * epoch - step, start_epoch=epoch, start_step=step, description=description
            )
            assert_equal_batches(begun, complete[4 * epoch + step :])
        left_out = set(range(46)) - {number for images, _, _ in complete for number in numbers_in(images)}
        assert len(left_out) in (4, 5, 6)
