"""Reading by windows: starting anywhere, skipping records, images that are not square."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from batches import CROP_PX, assert_equal_batches, numbers_in, training_batches
from PIL import Image

from alexnet_tf.tfrecords import dataset_builder, epochs, reader, records, schema, statistics, verify


@pytest.fixture
def data_dir(tiny_data_dir, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_data_dir, tmp_path / "data")


def damage(data_dir, name, record):
    description = schema.load_description(data_dir)
    split = name.partition("-")[0]
    names = [shard.name for shard in description.splits[split].shards]
    offset = records.load_index(data_dir, description)[split][names.index(name)][record]
    content = bytearray((data_dir / name).read_bytes())
    content[offset + 30] ^= 1
    (data_dir / name).write_bytes(content)


class TestWindows:
    def test_nothing_before_the_window_of_the_start_is_read(self, data_dir, monkeypatch):
        monkeypatch.setattr(epochs, "WINDOW_IMAGES", 20)  # two steps
        batches = training_batches(data_dir, 4)
        before = {number for images, _, _ in batches[:2] for number in numbers_in(images)}
        for name, record, number in list(self.places(data_dir)):
            if number in before:
                damage(data_dir, name, record)
        assert_equal_batches(training_batches(data_dir, 1, start_step=3), batches[3:])
        with pytest.raises(tf.errors.DataLossError):
            training_batches(data_dir, 1)

    @staticmethod
    def places(data_dir):
        """(shard, record, the image's number) of all training images."""
        for shard in schema.load_description(data_dir).splits["train"].shards:
            for record, content in enumerate(tf.data.TFRecordDataset(str(data_dir / shard.name))):
                encoded = tf.train.Example.FromString(content.numpy()).features.feature[schema.ENCODED]
                yield shard.name, record, int(tf.io.decode_png(encoded.bytes_list.value[0])[0, 0, 2])


class TestSkippedRecords:
    def test_all_but_the_damaged_are_read(self, data_dir):
        before = {number: (name, record) for name, record, number in TestWindows.places(data_dir)}
        for place in [("train-00001-of-00005", 0), ("train-00001-of-00005", 4), ("train-00003-of-00005", 8)]:
            damage(data_dir, *place)
        cut = data_dir / "train-00004-of-00005"
        cut.write_bytes(cut.read_bytes()[:-3])  # the tenth of ten records
        description, problems = verify.skip_damaged_records(data_dir, schema.load_description(data_dir), 4)
        assert [(pathlib.PurePath(problem.path).name, problem.record) for problem in problems] == [
            ("train-00001-of-00005", 0),
            ("train-00001-of-00005", 4),
            ("train-00003-of-00005", 8),
            ("train-00004-of-00005", 9),
        ]
        assert description.splits["train"].count == 42
        skipped = {(pathlib.PurePath(problem.path).name, problem.record) for problem in problems}
        expected = sorted(number for number, place in before.items() if place not in skipped)
        dataset = reader.make_evaluation_dataset(data_dir, 10, CROP_PX, description=description, split="train")
        assert sorted(n for images, _ in dataset for n in numbers_in(images.numpy())) == expected
        epoch = training_batches(data_dir, 4, description=description)
        numbers = [n for images, _, _ in epoch for n in numbers_in(images)]
        assert len(numbers) == len(set(numbers)) == 40 and set(numbers) <= set(expected)

    def test_whole_shard_may_be_missing(self, data_dir):
        (data_dir / "train-00002-of-00005").unlink()
        description, problems = verify.skip_damaged_records(data_dir, schema.load_description(data_dir), 9)
        assert description.splits["train"].count == 46 - len(problems) == 37
        assert len(training_batches(data_dir, 3, description=description)) == 3

    def test_split_whose_records_are_all_skipped_is_named(self, data_dir):
        for path in data_dir.glob("validation-*"):
            path.unlink()
        description, _ = verify.skip_damaged_records(data_dir, schema.load_description(data_dir), 10, ("validation",))
        with pytest.raises(ValueError, match=r"'validation' of .* must have a record\. All 10 are skipped"):
            reader.make_evaluation_dataset(data_dir, 10, CROP_PX, description=description)

    def test_other_errors_are_not_blamed_on_skipped_records(self, data_dir):
        damage(data_dir, "train-00001-of-00005", 3)
        description, _ = verify.skip_damaged_records(data_dir, schema.load_description(data_dir), 1)
        error = tf.errors.InvalidArgumentError(None, None, "of the model")
        with pytest.raises(tf.errors.InvalidArgumentError), verify.naming_damaged_shards(data_dir, description):
            raise error

    def test_more_than_allowed_are_refused_and_named(self, data_dir):
        damage(data_dir, "train-00001-of-00005", 3)
        with pytest.raises(ValueError, match=r"At most 0 .*Found: 1\. The first: .*train-00001-of-00005, record 3:"):
            verify.skip_damaged_records(data_dir, schema.load_description(data_dir), 0)

    def test_description_with_them_can_be_saved(self, data_dir, tmp_path):
        damage(data_dir, "train-00001-of-00005", 3)
        description, _ = verify.skip_damaged_records(data_dir, schema.load_description(data_dir), 1)
        description.save(tmp_path)
        assert schema.load_description(tmp_path) == description


@pytest.fixture(scope="module", params=["png", "raw", "jpeg"])
def wide_data_dir(request, tmp_path_factory):
    """Images of two shapes, red 3 x row and green 3 x column: they show where a crop is from."""
    root = tmp_path_factory.mktemp("wide")
    for number in range(24):
        rows, columns = (80, 40) if number % 2 else (40, 60)
        y, x = np.mgrid[:rows, :columns]
        pixels = np.stack([3 * y, 3 * x, np.full_like(x, 8 * number)], axis=-1).astype("uint8")
        path = root / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    dataset_builder.build_dataset(
        f"folder:{root / 'images'}",
        root / "data",
        image_px=40,
        keep_aspect=True,
        encoding=request.param,
        num_train_shards=2,
        num_validation_shards=1,
        num_processes=1,
    )
    assert verify.verify_dataset(root / "data") == []
    return root / "data"


class TestKeepAspect:
    def test_crops_are_from_the_complete_image(self, wide_data_dir):
        tops, lefts = {0: set(), 1: set()}, {0: set(), 1: set()}
        for images, _, labels in training_batches(wide_data_dir, 60):
            for image, label in zip(images.astype(int), labels, strict=True):
                tops[label].add(round(image[0, :, 0].mean() / 3))
                lefts[label].add(round(min(image[:, 0, 1].mean(), image[:, -1, 1].mean()) / 3))
        near = 2 if "jpeg" in (wide_data_dir / "dataset.json").read_text() else 0
        for found, last in ((tops[0], 7), (lefts[0], 27), (tops[1], 47), (lefts[1], 7)):
            assert abs(max(found) - last) <= near and min(found) <= near

    def test_evaluation_is_of_the_central_square(self, wide_data_dir):
        near = 4 if "jpeg" in (wide_data_dir / "dataset.json").read_text() else 0
        for views, crop in ((1, 4), (10, 0)):
            dataset = reader.make_evaluation_dataset(wide_data_dir, 4, CROP_PX, split="train", views=views)
            for images, labels in dataset:
                for image, label in zip(images.numpy().astype(int), labels.numpy(), strict=True):
                    first = image if views == 1 else image[0]
                    top, left = (crop, 10 + crop) if label == 0 else (20 + crop, crop)
                    assert np.abs(first[0, :, 0].mean() - 3 * top) <= near
                    assert np.abs(first[:, 0, 1].mean() - 3 * left) <= near

    def test_statistics_are_of_the_central_square(self, wide_data_dir):
        mean = statistics.Statistics.load(wide_data_dir).mean_image
        assert mean.shape == (40, 40, 3)
        np.testing.assert_allclose(mean[:, 20, 0] - mean[0, 20, 0], 3 * np.arange(40), atol=1e-3)
