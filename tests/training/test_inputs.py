"""The images of a run: what each option changes in them."""

import dataclasses
import functools

import numpy as np
import pytest
from made_photos import encoded
from made_records import state, write_records
from PIL import Image

from alexnet_tf.tfrecords import dataset_builder, reader
from alexnet_tf.tfrecords.augmentation import Augmentation
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

    def test_damaged_record_is_skipped_only_on_request(self, damaged_data_dir, open_data):
        damaged = {"data_dir": str(damaged_data_dir)}
        assert open_data(**damaged).training_images == 46
        data = open_data(**damaged, on_bad_record="skip", max_bad_records=1)
        assert data.training_images == 45
        (problem,) = data.skipped
        assert data.settings["records_left_out"] == [f"train-00001-of-00003, record {problem.record}"]
        with pytest.raises(ValueError, match="At most 0 records may be damaged"):
            open_data(**damaged, on_bad_record="skip", max_bad_records=0)


@pytest.mark.slow
class TestSources:
    def test_folder_of_images_becomes_a_data_set_in_the_run_once(
        self, open_data, small_data_dir, tmp_path, monkeypatch, capsys
    ):
        build = functools.partial(dataset_builder.build_dataset, num_processes=1)
        monkeypatch.setattr(dataset_builder, "build_dataset", build)
        source = {"data_dir": f"folder:{small_data_dir.parent / 'images'}", "run_dir": str(tmp_path)}
        data = open_data(**source)
        assert data.folder == str(tmp_path / "data")
        assert data.description.image_px == 64  # for crops of 56
        assert {name: split.count for name, split in data.description.splits.items()} == {"train": 46, "validation": 10}
        assert "Making" in capsys.readouterr().out
        open_data(**source)
        assert capsys.readouterr().out == f"Using {tmp_path / 'data'}, which is complete.\n"

    def test_third_party_records_are_indexed_in_the_run_and_stay(self, open_data, tmp_path, capsys):
        for split, count in (("train", 46), ("validation", 10)):
            content = encoded(Image.new("RGB", (90, 70), "red"), "JPEG")
            images = [(content, number % 2 + 1) for number in range(count)]
            write_records(tmp_path / "others" / f"{split}-00000-of-00001", images, "jpeg", "y")
        (tmp_path / "names").write_text("odd\neven\n")
        before = state(tmp_path / "others")
        source = {"data_dir": f"tfrecords:{tmp_path / 'others'}", "run_dir": str(tmp_path / "run"), "label_offset": 1}
        source |= {"image_key": "jpeg", "label_key": "y", "class_names": str(tmp_path / "names")}
        data = open_data(**source, crop_scale=(0.08, 1.0))
        made = data.description
        assert (made.image_px, made.class_names, made.in_place) == (64, ("odd", "even"), True)  # 64 for crops of 56
        batch, _ = next(iter(data.training(0, reader.Share())))
        assert np.abs(batch["image"] - np.array([254, 0, 0])).max() <= 1  # JPEG's red
        assert state(tmp_path / "others") == before
        open_data(**source)
        assert "which is complete" in capsys.readouterr().out


class TestValidation:
    def test_images_are_those_of_the_validation_split_in_order(self, open_data):
        ((images, labels),) = open_data().validation(reader.Share())
        assert images.shape == (10, 56, 56, 3)
        assert sorted(numbers(images.numpy())) == list(range(100, 110))
        np.testing.assert_array_equal(labels, images[:, 0, 0, 2] % 2)
        halves = [images for worker in (0, 1) for images, _ in open_data().validation(reader.Share(worker, 2))]
        np.testing.assert_array_equal(np.concatenate(halves), images)


class TestTraining:
    @pytest.mark.parametrize(
        "options, augmentation",
        [
            ({}, {}),
            *(
                (options, options)
                for options in (
                    {"color_noise": "eigenvalue", "color_noise_epochs": 0, "images_per_crop": 5},
                    {"flip": False, "mean_at_crop": True},
                    {"crop_scale": (0.1, 1.0), "crop_ratio": (0.5, 2.0)},
                )
            ),
            ({"last_crop_offset": True}, {"last_offset": True}),
            ({"crops": "center"}, {"center_crops": True}),
        ],
    )
    def test_options_reach_the_reader(self, options, augmentation, open_data, monkeypatch):
        received = {}
        monkeypatch.setattr(reader, "make_training_dataset", lambda *_, **arguments: received.update(arguments))
        data = dataclasses.replace(open_data(**options, seed=7, data_service="host:1"), service_job="77")
        data.training(5, reader.Share(1, 2))
        assert received == {
            "description": data.description,
            "seed": 7,
            "augmentation": Augmentation(**augmentation),
            "start_epoch": 1,  # of 4 steps
            "start_step": 1,
            "share": reader.Share(1, 2),
            "data_service": "host:1",
            "data_service_job": "77 5",
        }

    def test_batches_are_those_of_the_step(self, open_data, small_data_dir):
        expected = reader.make_training_dataset(small_data_dir, 10, 56, start_epoch=1, start_step=1)
        batches = (next(iter(dataset)) for dataset in (open_data().training(5, reader.Share()), expected))
        (inputs, labels), (expected_inputs, expected_labels) = batches
        np.testing.assert_array_equal(labels, expected_labels)
        for name in ("image", "color_offset"):
            np.testing.assert_array_equal(inputs[name], expected_inputs[name])
