"""The images of a run: what each option changes in them."""

import dataclasses
import itertools

import numpy as np
import pytest

from alexnet_tf.tfrecords import reader
from alexnet_tf.training import inputs

STEPS_PER_EPOCH = 4  # of 46 images in batches of 10


@pytest.fixture(scope="module")
def open_data(make_config):
    return lambda **changes: inputs.open_data(make_config(**changes))


@pytest.fixture(scope="module")
def batches(open_data):
    def batches(count=1, first_step=0, **changes):
        batches = itertools.islice(open_data(**changes).training(first_step, reader.Share()), count)
        return [(batch["image"].numpy(), batch["color_offset"].numpy()) for batch, _ in batches]

    return batches


def numbers(images):
    return images[:, 0, 0, 2].tolist()


def corners(images):
    """The position of each crop: (row, column)."""
    return np.minimum(images[:, 0, 0, :2], images[:, 0, -1, :2]) // 4


class TestOpenData:
    def test_sizes_and_settings_are_those_of_the_data_and_the_batch(self, open_data):
        data = open_data()
        assert (data.classes, data.training_images, data.image_px) == (2, 46, 56)
        assert {name: value for name, value in data.settings.items() if not name.startswith("data.")} == {
            "source": data.description.settings["source"],
            "classes": 2,
            "steps_per_epoch": STEPS_PER_EPOCH,
            "records_left_out": [],
        }
        assert data.validation_steps(replicas=1) == 1
        assert open_data(batch_size=20).steps_per_epoch == 2
        assert open_data(batch_size=2).validation_steps(replicas=2) == 5

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"batch_size": 0}, "`batch_size` must be from 1 to .* 46. Received: 0"),
            ({"batch_size": 47}, "`batch_size` must be from 1 to .* 46. Received: 47"),
            ({"variant": "paper"}, r"`crop_px` must be .* image side, 60. Received: crop_px=224"),
        ],
    )
    def test_batch_and_network_that_the_images_do_not_fill_are_refused(self, changes, message, open_data):
        with pytest.raises(ValueError, match=message):
            open_data(**changes)

    def test_damaged_record_is_skipped_only_on_request(self, damaged_data_dir, open_data):
        damaged = {"data_dir": str(damaged_data_dir)}
        assert open_data(**damaged).training_images == 46
        data = open_data(**damaged, on_bad_record="skip", max_bad_records=1)
        assert data.training_images == 45
        (problem,) = data.skipped
        assert data.settings["records_left_out"] == [f"train-00001-of-00003, record {problem.record}"]
        assert data.fingerprint != open_data(**damaged).fingerprint


class TestValidation:
    def test_images_are_those_of_the_validation_split_in_order(self, open_data):
        ((images, labels),) = open_data().validation(reader.Share())
        assert images.shape == (10, 56, 56, 3)
        assert sorted(numbers(images.numpy())) == list(range(100, 110))
        np.testing.assert_array_equal(labels, images[:, 0, 0, 2] % 2)

    def test_each_worker_has_its_share(self, open_data):
        data = open_data()
        halves = [[n for x, _ in data.validation(reader.Share(w, 2)) for n in numbers(x.numpy())] for w in (0, 1)]
        assert sorted(halves[0] + halves[1]) == list(range(100, 110)) and len(halves[0]) == 5


class TestTraining:
    def test_seed_determines_order_crops_and_noise(self, batches):
        ((images, offsets),) = batches()
        assert set(numbers(images)) <= set(range(46))
        ((same_images, same_offsets),) = batches()
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(offsets, same_offsets)
        ((other_images, other_offsets),) = batches(seed=1)
        assert numbers(images) != numbers(other_images)
        assert not np.array_equal(offsets, other_offsets)

    def test_dataset_can_begin_at_any_step(self, batches):
        in_turn = batches(count=STEPS_PER_EPOCH + 2)
        for first_step in (1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1):
            ((images, offsets),) = batches(first_step=first_step)
            np.testing.assert_array_equal(images, in_turn[first_step][0])
            np.testing.assert_array_equal(offsets, in_turn[first_step][1])

    def test_color_noise_scales_are_ordered(self, batches):
        sizes = {
            scale: np.abs(batches(color_noise=scale)[0][1]).mean()
            for scale in ("none", "eigenvalue_unit_range", "standard_deviation", "eigenvalue")
        }
        assert sizes["none"] == 0
        assert 0 < sizes["eigenvalue_unit_range"] < sizes["standard_deviation"] < sizes["eigenvalue"]

    @pytest.mark.parametrize(
        "schedule, color_noise_epochs, epochs",
        [("plateau", 1, 1), ("plateau", 0, 0), ("original", None, 66), ("original", 70, 70)],
    )
    def test_color_noise_ends_with_its_last_epoch(self, schedule, color_noise_epochs, epochs, batches):
        arguments = {"schedule": schedule, "color_noise_epochs": color_noise_epochs}
        for epoch in (epochs - 1, epochs):
            if epoch >= 0:
                ((_, offsets),) = batches(first_step=epoch * STEPS_PER_EPOCH, **arguments)
                assert np.any(offsets) == (epoch < epochs), epoch

    def test_color_noise_of_other_schedules_never_ends(self, batches):
        ((_, offsets),) = batches(first_step=1000 * STEPS_PER_EPOCH)
        assert np.any(offsets)

    def test_consecutive_images_share_a_crop(self, batches):
        ((images, _),) = batches(images_per_crop=5)
        assert len(np.unique(corners(images[:5]), axis=0)) == len(np.unique(corners(images[5:]), axis=0)) == 1
        ((images, _),) = batches()
        assert len(np.unique(corners(images[:5]), axis=0)) > 1

    @pytest.mark.parametrize("last_crop_offset, positions", [(False, [0, 1, 2, 3]), (True, [0, 1, 2, 3, 4])])
    def test_crops_touch_the_last_edge_only_on_request(self, last_crop_offset, positions, batches):
        images = np.concatenate([i for i, _ in batches(count=12, last_crop_offset=last_crop_offset)])
        assert np.unique(corners(images)).tolist() == positions

    def test_data_service_and_the_name_of_the_job_reach_the_reader(self, open_data, monkeypatch):
        received = {}
        monkeypatch.setattr(reader, "make_training_dataset", lambda *_, **arguments: received.update(arguments))
        data = dataclasses.replace(open_data(data_service="host:1"), service_job="77")
        data.training(5, reader.Share())
        assert (received["data_service"], received["data_service_job"]) == ("host:1", "77 5")
        assert (received["start_epoch"], received["start_step"]) == (1, 1)
