"""An epoch in which the number of workers changes: each image is still read once."""

import random

import numpy as np
import pytest
from batches import CROP_PX

from alexnet_tf.tfrecords import epochs, reader, records

# (number of workers, their first step) and images in a step: 46 images are 7 steps of 6, or 3 steps of 12.
CHANGES = [
    (((2, 0), (3, 2), (1, 6)), 6),
    pytest.param(((2, 0), (1, 4)), 6, marks=pytest.mark.slow),
    pytest.param(((3, 0), (2, 1), (4, 2)), 12, marks=pytest.mark.slow),
    pytest.param(((1, 0), (2, 3)), 6, marks=pytest.mark.slow),
    pytest.param(((2, 0), (3, 1)), 6, marks=pytest.mark.slow),
    pytest.param(((3, 0), (2, 2), (6, 5)), 6, marks=pytest.mark.slow),
]


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(records, "WINDOW", 8)
    monkeypatch.setattr(records, "SHARDS_IN_WINDOW", 2)


def read(data_dir, batch_size, readers, start_step, count, start_epoch=1):
    """What the last of the readers read in some steps.

    Returns: the images' numbers, ints (steps, workers, images); their color offsets, float32 (steps, batch_size, 3).
    """
    num_workers, images, offsets = readers[-1][0], [], []
    for worker in range(num_workers):
        dataset = reader.make_training_dataset(
            data_dir,
            batch_size,
            CROP_PX,
            start_epoch=start_epoch,
            start_step=start_step,
            share=reader.Share(worker, num_workers, readers=readers),
        )
        batches = [batch for batch, _ in dataset.take(count)]
        images.append([batch["image"][:, 0, 0, 2].numpy() for batch in batches])
        offsets.append([batch["color_offset"].numpy() for batch in batches])
    return np.stack(images, axis=1), np.concatenate(offsets, axis=1)


class TestImages:
    @pytest.mark.parametrize("readers, batch_size", CHANGES, ids=str)
    def test_epoch_holds_each_image_once_whenever_the_number_changes(
        self, readers, batch_size, tiny_data_dir, small_windows
    ):
        steps = 46 // batch_size
        ends = [first for _, first in readers[1:]] + [steps]
        seen = []
        for index, ((_, first), end) in enumerate(zip(readers, ends, strict=True)):
            images, _ = read(tiny_data_dir, batch_size, readers[: index + 1], first, end - first)
            assert images.shape == (end - first, readers[index][0], batch_size // readers[index][0])
            seen += images.ravel().tolist()
        assert len(seen) == len(set(seen)) == steps * batch_size

    def test_next_epoch_and_all_random_draws_are_as_without_the_change(self, tiny_data_dir, small_windows):
        images, offsets = read(tiny_data_dir, 6, ((1, 0), (2, 2)), 6, 1 + 7)
        others, _ = read(tiny_data_dir, 6, ((2, 0),), 0, 7, start_epoch=2)
        np.testing.assert_array_equal(images[1:], others)
        assert len(set(others.ravel())) == 42
        _, offsets_of_one = read(tiny_data_dir, 6, ((1, 0),), 6, 1 + 7)
        np.testing.assert_array_equal(offsets, offsets_of_one)
        assert len(np.unique(offsets)) == offsets.size

    @pytest.mark.parametrize(
        "readers, steps",
        [
            (((3, 0), (2, 2)), (4,)),
            pytest.param(((2, 0), (3, 1)), range(2, 7), marks=pytest.mark.slow),
            pytest.param(((3, 0), (2, 2), (6, 3)), range(4, 7), marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_second_interruption_changes_nothing(self, readers, steps, tiny_data_dir, small_windows):
        first = readers[-1][1]
        images, offsets = read(tiny_data_dir, 6, readers, first, 7 - first)
        for step in steps:
            others, other_offsets = read(tiny_data_dir, 6, readers, step, 7 - step)
            np.testing.assert_array_equal(others, images[step - first :])
            np.testing.assert_array_equal(other_offsets, offsets[step - first :])


class TestPieces:
    def test_any_changes_leave_each_image_to_one_worker(self):
        chance = random.Random(2012)
        for _ in range(200):
            batch_size, steps = chance.choice([12, 60, 120]), chance.randrange(1, 30)
            firsts = [0, *sorted(chance.choices(range(steps), k=chance.randrange(4)))]
            readers = [(chance.choice([1, 2, 3, 4, 6, 12]), first) for first in firsts]
            shares, share = readers[0][0], steps * batch_size // readers[0][0]
            times_read = np.zeros((shares, share), int)

            def pieces(count, step, worker, readers=readers, batch_size=batch_size, steps=steps):
                return epochs.pieces_left(readers[:count], step, steps, batch_size, worker)

            def images(found, share=share):
                return [piece.worker * share + image for piece in found for image in range(piece.first, piece.end)]

            for count, (workers, first) in enumerate(readers, 1):
                end = readers[count][1] if count < len(readers) else steps
                for worker in range(workers):
                    left = images(pieces(count, first, worker))
                    assert len(left) == (steps - first) * batch_size // workers
                    read = left[: (end - first) * batch_size // workers]
                    np.add.at(times_read.ravel(), read, 1)
                    if end < steps:
                        assert images(pieces(count, end, worker)) == left[len(read) :]
            assert np.all(times_read == 1)

    def test_one_number_of_workers_reads_its_own_shares(self):
        assert epochs.pieces_left(((3, 0),), 5, 100, 30, 2) == [epochs.Piece(2, 3, 50, 1000)]

    def test_neighboring_pieces_of_a_share_are_one(self):
        # Each of two workers has 80 images left; the first of four continues where the first of two stopped.
        assert epochs.pieces_left(((2, 0), (4, 2)), 2, 10, 20, 1) == [epochs.Piece(0, 2, 60, 100)]
        assert epochs.pieces_left(((2, 0), (1, 2)), 2, 10, 20, 0) == [
            epochs.Piece(0, 2, 20, 100),
            epochs.Piece(1, 2, 20, 100),
        ]


@pytest.mark.parametrize(
    "readers", [((2, 1), (1, 2)), ((2, 0),), ((2, 0), (1, 3)), ((3, 0), (1, 1)), ((2, 0), (4, 2), (1, 1))], ids=str
)
def test_readers_that_cannot_be_are_refused(readers, tiny_data_dir):
    with pytest.raises(ValueError, match=r"`readers` must be pairs .*, 2, the last of 1 workers\. Received: \(\("):
        reader.make_training_dataset(tiny_data_dir, 8, CROP_PX, start_step=2, share=reader.Share(readers=readers))
