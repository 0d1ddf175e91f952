"""The images of a run: what each option changes in them."""

import dataclasses

import numpy as np
import pytest

from alexnet_tf.tfrecords import augmentation, reader
from alexnet_tf.training import inputs

STEPS_PER_EPOCH = 4  # of 46 images in batches of 10


@pytest.fixture(scope="module")
def open_data(make_config):
    return lambda **changes: inputs.open_data(make_config(**changes))


def numbers(images):
    return images[:, 0, 0, 2].tolist()


@pytest.mark.parametrize("counts", [(40, 6), (40, 0, 6)])
def test_balanced_class_weights_of_all_images_have_the_mean_1(counts, open_data):
    data = open_data(class_weights="balanced")
    split = dataclasses.replace(data.description.splits["train"], count_per_class=counts)
    description = dataclasses.replace(data.description, splits={"train": split})
    weights = dataclasses.replace(data, description=description).class_weights
    expected = [46 / np.count_nonzero(counts) / count if count else 0 for count in counts]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert np.average(weights, weights=counts) == pytest.approx(1)


class TestOpenData:
    def test_sizes_and_settings_are_those_of_the_data_and_the_batch(self, open_data):
        data = open_data()
        assert (data.num_classes, data.training_images, data.image_px) == (2, 46, 56)
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
            (
                {"variant": "paper"},
                r"at least 224 pixels, .*Received: .* with 60 pixels\. .*--image_px=256 builds",
            ),
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
    @pytest.fixture
    def reader_arguments(self, open_data, monkeypatch):
        """A function from options to the arguments that the reader receives for the batches from step 5 on."""

        def reader_arguments(**changes):
            received = {}
            monkeypatch.setattr(reader, "make_training_dataset", lambda *_, **arguments: received.update(arguments))
            data = dataclasses.replace(open_data(**changes), service_job="77")
            data.training(5, reader.Share(1, 2))
            assert received.pop("description") is data.description
            return received

        return reader_arguments

    def test_defaults_reach_the_reader(self, reader_arguments):
        assert reader_arguments() == {
            "seed": 0,
            "augmentation": augmentation.Augmentation(),
            "start_epoch": 1,  # of 4 steps
            "start_step": 1,
            "share": reader.Share(1, 2),
            "data_service": None,
            "data_service_job": "77 5",
        }

    @pytest.mark.parametrize(
        "options",
        [
            {"seed": 7, "color_noise": "eigenvalue", "color_noise_epochs": 0, "images_per_crop": 5},
            {"flip": False, "mean_at_crop": True},
            {"crop_scale": (0.1, 1.0), "crop_ratio": (0.5, 2.0), "data_service": "host:1"},
        ],
    )
    def test_options_reach_the_reader(self, options, reader_arguments):
        received = reader_arguments(**options)
        received |= dataclasses.asdict(received["augmentation"])
        assert {name: received[name] for name in options} == options

    def test_last_crop_offset_reaches_the_reader(self, reader_arguments):
        assert reader_arguments(last_crop_offset=True)["augmentation"].last_offset

    def test_center_crops_reach_the_reader(self, reader_arguments):
        assert reader_arguments(crops="center")["augmentation"].center_crops

    def test_batches_are_those_of_the_step(self, open_data, small_data_dir):
        expected = reader.make_training_dataset(small_data_dir, 10, 56, start_epoch=1, start_step=1)
        batches = (next(iter(dataset)) for dataset in (open_data().training(5, reader.Share()), expected))
        (inputs, labels), (expected_inputs, expected_labels) = batches
        np.testing.assert_array_equal(labels, expected_labels)
        for name in ("image", "color_offset"):
            np.testing.assert_array_equal(inputs[name], expected_inputs[name])
