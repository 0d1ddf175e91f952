"""The images of a run: what each flag about the data changes in them."""

import itertools

import numpy as np
import pytest

from alexnet_tf.tfrecords import reader
from alexnet_tf.training import inputs

STEPS_PER_EPOCH = 4  # of 46 images in batches of 10


def open_data(folder, **changes):
    arguments = {"variant": "testing", "batch_size": 10, "on_bad_record": "fail", "max_bad_records": 100}
    return inputs.open_data(folder, **arguments | changes)


def batches(folder, count=1, first_step=0, **changes):
    arguments = {
        "seed": 0,
        "schedule": "plateau",
        "color_noise": "standard_deviation",
        "color_noise_epochs": None,
        "images_per_crop": 1,
        "last_crop_offset": False,
        "data_service": None,
        "start_number": 1,
    }
    make = inputs.training_input(open_data(folder), **arguments | changes)
    batches = itertools.islice(make(first_step, reader.Share()), count)
    return [(batch["image"].numpy(), batch["color_offset"].numpy()) for batch, _ in batches]


def numbers(images):
    return images[:, 0, 0, 2].tolist()


def corners(images):
    """Where each crop begins: (row, column)."""
    return np.minimum(images[:, 0, 0, :2], images[:, 0, -1, :2]) // 4


class TestOpenData:
    def test_sizes_and_settings_are_those_of_the_data_and_the_batch(self, small_data_dir):
        data = open_data(small_data_dir)
        assert (data.classes, data.training_images, data.image_px) == (2, 46, 56)
        assert {name: value for name, value in data.settings.items() if not name.startswith("data.")} == {
            "source": data.description.settings["source"],
            "classes": 2,
            "steps_per_epoch": STEPS_PER_EPOCH,
            "records_left_out": [],
        }
        assert open_data(small_data_dir, batch_size=20).steps_per_epoch == 2
        assert data.validation_steps(replicas=1) == 1
        assert open_data(small_data_dir, batch_size=2).validation_steps(replicas=2) == 5

    def test_images_have_the_size_of_the_variant(self, small_data_dir):
        assert open_data(small_data_dir, variant="paper").image_px == 224

    @pytest.mark.parametrize("batch_size", [0, 47])
    def test_batch_that_the_images_do_not_fill_is_refused(self, batch_size, small_data_dir):
        with pytest.raises(ValueError, match=f"`batch_size` must be from 1 to .* 46. Received: {batch_size}"):
            open_data(small_data_dir, batch_size=batch_size)

    def test_damaged_record_is_skipped_on_request_alone(self, damaged_data_dir):
        assert open_data(damaged_data_dir).training_images == 46
        data = open_data(damaged_data_dir, on_bad_record="skip", max_bad_records=1)
        assert data.training_images == 45
        (problem,) = data.skipped
        assert data.settings["records_left_out"] == [f"train-00001-of-00003, record {problem.record}"]
        assert data.fingerprint != open_data(damaged_data_dir).fingerprint

    def test_more_damaged_records_than_allowed_are_refused(self, damaged_data_dir):
        with pytest.raises(ValueError, match=r"At most 0 records may be damaged \(--max_bad_records\). Found: 1"):
            open_data(damaged_data_dir, on_bad_record="skip", max_bad_records=0)


class TestValidationInput:
    def test_images_are_those_of_the_validation_split_in_order(self, small_data_dir):
        (batch,) = inputs.validation_input(open_data(small_data_dir))(reader.Share())
        images, labels = batch
        assert images.shape == (10, 56, 56, 3)
        assert sorted(numbers(images.numpy())) == list(range(100, 110))
        np.testing.assert_array_equal(labels, images[:, 0, 0, 2] % 2)

    def test_worker_has_its_share(self, small_data_dir):
        make = inputs.validation_input(open_data(small_data_dir))
        halves = [[n for images, _ in make(reader.Share(w, 2)) for n in numbers(images.numpy())] for w in (0, 1)]
        assert sorted(halves[0] + halves[1]) == list(range(100, 110)) and len(halves[0]) == 5

    def test_images_too_small_for_the_network_are_refused_at_once(self, small_data_dir):
        with pytest.raises(ValueError, match=r"`crop_px` must be .* image side, 60. Received: crop_px=224"):
            inputs.validation_input(open_data(small_data_dir, variant="paper"))


class TestTrainingInput:
    def test_seed_determines_order_crops_and_noise(self, small_data_dir):
        ((images, offsets),) = batches(small_data_dir)
        assert set(numbers(images)) <= set(range(46))
        ((same_images, same_offsets),) = batches(small_data_dir)
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(offsets, same_offsets)
        ((other_images, other_offsets),) = batches(small_data_dir, seed=1)
        assert numbers(images) != numbers(other_images)
        assert not np.array_equal(offsets, other_offsets)

    def test_any_step_is_the_first(self, small_data_dir):
        in_turn = batches(small_data_dir, count=STEPS_PER_EPOCH + 2)
        for first_step in (1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1):
            ((images, offsets),) = batches(small_data_dir, first_step=first_step)
            np.testing.assert_array_equal(images, in_turn[first_step][0])
            np.testing.assert_array_equal(offsets, in_turn[first_step][1])

    def test_color_noise_has_the_size_asked_for(self, small_data_dir):
        sizes = {
            scale: np.abs(batches(small_data_dir, color_noise=scale)[0][1]).mean()
            for scale in ("none", "eigenvalue_unit_range", "standard_deviation", "eigenvalue")
        }
        assert sizes["none"] == 0
        assert 0 < sizes["eigenvalue_unit_range"] < sizes["standard_deviation"] < sizes["eigenvalue"]

    @pytest.mark.parametrize(
        "schedule, color_noise_epochs, epochs",
        [("plateau", 1, 1), ("plateau", 0, 0), ("original", None, 66), ("original", 70, 70)],
    )
    def test_color_noise_ends_with_its_last_epoch(self, schedule, color_noise_epochs, epochs, small_data_dir):
        arguments = {"schedule": schedule, "color_noise_epochs": color_noise_epochs}
        for epoch in (epochs - 1, epochs):
            if epoch >= 0:
                ((_, offsets),) = batches(small_data_dir, first_step=epoch * STEPS_PER_EPOCH, **arguments)
                assert np.any(offsets) == (epoch < epochs), epoch

    def test_color_noise_of_other_schedules_never_ends(self, small_data_dir):
        ((_, offsets),) = batches(small_data_dir, first_step=1000 * STEPS_PER_EPOCH)
        assert np.any(offsets)

    def test_images_in_a_row_share_a_crop(self, small_data_dir):
        ((images, _),) = batches(small_data_dir, images_per_crop=5)
        assert len(np.unique(corners(images[:5]), axis=0)) == len(np.unique(corners(images[5:]), axis=0)) == 1
        ((images, _),) = batches(small_data_dir)
        assert len(np.unique(corners(images[:5]), axis=0)) > 1

    @pytest.mark.parametrize("last_crop_offset, positions", [(False, [0, 1, 2, 3]), (True, [0, 1, 2, 3, 4])])
    def test_crops_touch_the_last_edge_on_request_alone(self, last_crop_offset, positions, small_data_dir):
        images = np.concatenate([i for i, _ in batches(small_data_dir, count=12, last_crop_offset=last_crop_offset)])
        assert np.unique(corners(images)).tolist() == positions

    def test_data_service_and_the_number_of_the_start_reach_the_reader(self, small_data_dir, monkeypatch):
        received = {}
        monkeypatch.setattr(reader, "make_training_dataset", lambda *_, **arguments: received.update(arguments) or [])
        batches(small_data_dir, data_service="host:1", start_number=77, first_step=5)
        assert (received["data_service"], received["data_service_job"]) == ("host:1", "77 5")
        assert (received["start_epoch"], received["start_step"]) == (1, 1)
