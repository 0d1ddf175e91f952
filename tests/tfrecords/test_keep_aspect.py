"""Data sets whose images keep their aspect ratio."""

import numpy as np
import pytest
from batches import CROP_PX, training_batches
from made_photos import save_image

from alexnet_tf.tfrecords import dataset_builder, reader, statistics, verify


@pytest.fixture(scope="module", params=["png", "raw", "jpeg"])
def wide_data_dir(request, tmp_path_factory):
    """Images of two shapes, red 3 x row and green 3 x column, so that a crop shows its position."""
    root = tmp_path_factory.mktemp("wide")
    for number in range(24):
        height, width = (80, 40) if number % 2 else (40, 60)
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([3 * y, 3 * x, np.full_like(x, 8 * number)], axis=-1).astype("uint8")
        save_image(root / "images" / "ab"[number % 2] / f"{number}.png", pixels)
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
    def test_training_crops_cover_the_complete_image(self, wide_data_dir):
        tops, lefts = {0: set(), 1: set()}, {0: set(), 1: set()}
        for images, _, labels in training_batches(wide_data_dir, 60):
            for image, label in zip(images.astype(int), labels, strict=True):
                tops[label].add(round(image[0, :, 0].mean() / 3))
                lefts[label].add(round(min(image[:, 0, 1].mean(), image[:, -1, 1].mean()) / 3))
        near = 2 if "jpeg" in (wide_data_dir / "dataset.json").read_text() else 0
        for found, last in ((tops[0], 7), (lefts[0], 27), (tops[1], 47), (lefts[1], 7)):
            assert abs(max(found) - last) <= near and min(found) <= near

    def test_evaluation_crops_come_from_the_central_square(self, wide_data_dir):
        near = 4 if "jpeg" in (wide_data_dir / "dataset.json").read_text() else 0
        for views, crop in ((1, 4), (10, 0)):
            dataset = reader.make_evaluation_dataset(wide_data_dir, 4, CROP_PX, split="train", views=views)
            for images, labels in dataset:
                for image, label in zip(images.numpy().astype(int), labels.numpy(), strict=True):
                    first = image if views == 1 else image[0]
                    top, left = (crop, 10 + crop) if label == 0 else (20 + crop, crop)
                    assert np.abs(first[0, :, 0].mean() - 3 * top) <= near
                    assert np.abs(first[:, 0, 1].mean() - 3 * left) <= near

    def test_mean_image_is_that_of_the_central_square(self, wide_data_dir):
        mean = statistics.Statistics.load(wide_data_dir).mean_image
        assert mean.shape == (40, 40, 3)
        np.testing.assert_allclose(mean[:, 20, 0] - mean[0, 20, 0], 3 * np.arange(40), atol=1e-3)
