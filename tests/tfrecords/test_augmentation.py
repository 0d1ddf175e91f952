"""Augmentation: crops of random size and aspect ratio are torchvision's windows, resized like Pillow."""

import math

import numpy as np
import pytest
import tensorflow as tf
from batches import assert_equal_batches, training_batches
from made_photos import encoded, photo
from PIL import Image

from alexnet_tf.tfrecords.augmentation import RATIO, Augmentation

SIZES = [(256, 256), (256, 400), (700, 256), (256, 1024), (20, 3)]


def reference_window(height, width, scale, ratio, uniform, randint):
    """torchvision's RandomResizedCrop: (top, left, height, width)."""
    for _ in range(10):
        area = height * width * uniform(*scale)
        aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return randint(height - rows), randint(width - columns), rows, columns
    if width / height < ratio[0]:
        rows, columns = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        rows, columns = height, round(height * ratio[1])
    else:
        rows, columns = height, width
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def windows(augmentation, size, draws):
    """`window` for each row of draws, as an array."""
    compute = tf.function(lambda row: tf.stack(augmentation.window(tf.constant(size), row)))
    return tf.vectorized_map(compute, tf.constant(draws, tf.float32)).numpy()


class TestWindow:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("scale, ratio", [((0.08, 1), RATIO), ((0.9, 1), (0.2, 0.3))])
    def test_same_random_numbers_give_torchvisions_window(self, size, scale, ratio):
        draws = np.random.default_rng(0).random((500, 23), "float32")
        augmentation = Augmentation(crop_scale=scale, crop_ratio=ratio)
        for row, window in zip(np.float64(draws), windows(augmentation, size, draws), strict=True):
            in_turn = iter(row[:20].reshape(2, 10).T.ravel())
            places = iter(row[20:])
            expected = reference_window(
                *size,
                scale,
                ratio,
                lambda low, high, in_turn=in_turn: low + (high - low) * next(in_turn),
                lambda most, places=places: int(next(places) * (most + 1)),
            )
            assert tuple(window) == expected

    @pytest.mark.slow
    def test_windows_have_torchvisions_distribution(self):
        size = (256, 400)
        random = np.random.default_rng(1)
        augmentation = Augmentation(crop_scale=(0.08, 1))
        ours = windows(augmentation, size, np.random.default_rng(2).random((100_000, 23), "float32"))
        theirs = np.array(
            [
                reference_window(
                    *size, (0.08, 1), (3 / 4, 4 / 3), random.uniform, lambda most: random.integers(most + 1)
                )
                for _ in range(100_000)
            ]
        )
        for of_window in (
            lambda w: w[:, 2] * w[:, 3],
            lambda w: w[:, 3] / w[:, 2],
            lambda w: w[:, 0],
            lambda w: w[:, 1],
            lambda w: w[:, 0] + w[:, 2] / 2,
            lambda w: w[:, 1] + w[:, 3] / 2,
        ):
            a, b = np.sort(of_window(ours)), np.sort(of_window(theirs))
            both = np.concatenate([a, b])
            gap = np.abs(np.searchsorted(a, both, "right") - np.searchsorted(b, both, "right")).max() / 100_000
            assert gap < 1.95 * math.sqrt(2 / 100_000)  # Kolmogorov-Smirnov test at a level of 0.001

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"crop_scale": (0, 1)}, r"`crop_scale` must be two numbers above 0 and at most 1.*\(0, 1\)"),
            ({"crop_scale": (0.5, 0.1)}, "the smaller first"),
            ({"crop_scale": (0.08, 1), "crop_ratio": (-1, 1)}, "`crop_ratio` must be"),
            ({"images_per_crop": 0}, "`images_per_crop` must be at least 1. Received: images_per_crop=0"),
        ],
    )
    def test_numbers_out_of_range_are_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Augmentation(**arguments)


class TestApply:
    @pytest.mark.parametrize("encoding", ["jpeg", "png"])
    def test_window_is_resized_like_pillow(self, encoding):
        image = photo(256, 400)
        content = encoded(image, encoding.upper(), **({"quality": 95} if encoding == "jpeg" else {}))
        stored = Image.fromarray(tf.io.decode_image(content).numpy()) if encoding == "png" else None
        augmentation = Augmentation(crop_scale=(0.08, 1), flip=False)
        size = tf.constant((256, 400))
        for row in np.random.default_rng(3).random((20, 23), "float32"):
            top, left, height, width = (int(each) for each in augmentation.window(size, tf.constant(row)))
            if encoding == "jpeg":
                whole = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE").numpy()
                stored = Image.fromarray(whole)
            box = stored.crop((left, top, left + width, top + height))
            expected = np.asarray(box.resize((64, 64), Image.Resampling.BILINEAR))
            result = augmentation.apply(tf.constant(content), encoding, size, tf.constant(row), 64).numpy()
            assert result.dtype == np.uint8
            # Rounding differs, and at the edges of a JPEG crop the chroma lacks its neighbors.
            difference = np.abs(np.int32(result) - expected)
            assert difference.max() <= (1 if encoding == "png" else 4) and difference.mean() < 0.5


class TestDraw:
    def test_color_offsets_have_the_covariance_of_the_noise(self):
        matrix = np.float32([[10, 0, 0], [5, 2, 0], [1, 1, 1]])
        _, offsets = Augmentation().draw(tf.constant([0, 1], tf.int64), 0, 20_000, matrix)
        covariance = matrix @ matrix.T
        np.testing.assert_allclose(np.cov(offsets.numpy().T), covariance, atol=0.03 * np.abs(covariance).max())
        assert np.abs(np.mean(offsets, axis=0)).max() < 0.03 * np.sqrt(covariance.max())

    def test_crops_do_not_depend_on_the_start(self, tiny_data_dir):
        options = {"crop_scale": (0.1, 0.5), "seed": 3}
        first = training_batches(tiny_data_dir, 4, **options)
        assert_equal_batches(training_batches(tiny_data_dir, 3, start_step=1, **options), first[1:])
        # Red is 6 x row, so its range is the number of rows in the crop: 13 to 28 of 40, with averaged ends.
        spans = np.concatenate([np.ptp(np.int32(images[..., 0]), axis=(1, 2)) for images, _, _ in first]) / 6
        assert spans.min() < 14 and spans.max() > 22 and len(set(spans)) > 10
