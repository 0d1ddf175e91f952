"""The input pipelines: what is in their batches, and that it follows from the seed."""

import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from batches import CROP_PX, assert_equal_batches, numbers_in, training_batches
from conftest import TINY_IMAGE_PX, tiny_image
from made_records import stored_records
from PIL import Image

from alexnet_tf.tfrecords import reader, schema, statistics
from alexnet_tf.tfrecords.augmentation import Augmentation


class TestStepsPerEpoch:
    def test_incomplete_batch_is_left_out(self, tiny_data_dir):
        description = schema.load_description(tiny_data_dir)
        assert [reader.steps_per_epoch(description, size) for size in (1, 10, 23, 24, 46)] == [46, 4, 2, 1, 1]


class TestMakeTrainingDataset:
    def test_element_spec(self, tiny_data_dir):
        inputs, labels = reader.make_training_dataset(tiny_data_dir, 10, CROP_PX).element_spec
        assert inputs == {
            "image": tf.TensorSpec((10, CROP_PX, CROP_PX, 3), tf.uint8),
            "color_offset": tf.TensorSpec((10, 3), tf.float32),
        }
        assert labels == tf.TensorSpec((10,), tf.int32)

    def test_images_are_crops_with_their_labels(self, tiny_data_dir):
        for images, _, labels in training_batches(tiny_data_dir, 8):
            for image, label in zip(images, labels, strict=True):
                complete = tiny_image(image[0, 0, 2])
                assert label == image[0, 0, 2] % 2
                top, left = image[0, 0, 0] // 6, min(image[0, 0, 1], image[0, -1, 1]) // 6
                crop = complete[top : top + CROP_PX, left : left + CROP_PX]
                np.testing.assert_array_equal(image, crop if image[0, 0, 1] < image[0, -1, 1] else crop[:, ::-1])

    # 8 x 8 positions in 8 pixels of margin, as section 4.1 counts 32 x 32 in 32; and 2 flips.
    @pytest.mark.parametrize("last_offset, positions", [(False, 8), (True, 9)])
    def test_all_crops_and_flips_are_drawn(self, last_offset, positions, tiny_data_dir):
        drawn = set()
        for images, _, _ in training_batches(tiny_data_dir, 150, last_offset=last_offset):
            flipped = images[:, 0, 0, 1] > images[:, 0, -1, 1]
            left = np.minimum(images[:, 0, 0, 1], images[:, 0, -1, 1]) // 6
            drawn.update(zip((images[:, 0, 0, 0] // 6).tolist(), left.tolist(), flipped.tolist(), strict=True))
        assert drawn == set(itertools.product(range(positions), range(positions), (False, True)))

    def test_center_crops_without_flips(self, tiny_data_dir):
        for images, _, _ in training_batches(tiny_data_dir, 4, center_crops=True, flip=False):
            for image in images:
                complete = tiny_image(image[0, 0, 2])
                np.testing.assert_array_equal(image, complete[4 : 4 + CROP_PX, 4 : 4 + CROP_PX])

    def test_mean_at_crop_subtracts_the_part_at_the_position_before_the_flip(self, tiny_data_dir):
        mean = statistics.Statistics.load(tiny_data_dir).mean_image
        center = mean[4 : 4 + CROP_PX, 4 : 4 + CROP_PX]
        arguments = {"seed": 3, "last_offset": True}
        batches = [training_batches(tiny_data_dir, 4, mean_at_crop=at, **arguments) for at in (True, False)]
        for (corrected, _, _), (images, _, _) in zip(*batches, strict=True):
            for image, pixels in zip(corrected, images, strict=True):
                flipped = pixels[0, 0, 1] > pixels[0, -1, 1]
                top, left = pixels[0, 0, 0] // 6, min(pixels[0, 0, 1], pixels[0, -1, 1]) // 6
                own = mean[top : top + CROP_PX, left : left + CROP_PX]
                expected = np.float32(pixels) - (own[:, ::-1] if flipped else own) + center
                np.testing.assert_allclose(image, expected, atol=1e-4)

    def test_images_per_crop_share_crop_and_flip_but_not_color(self, tiny_data_dir):
        drawn = []
        for images, offsets, _ in training_batches(tiny_data_dir, 8, images_per_crop=5):
            for first in (0, 5):
                positions = {(image[0, 0, 0], image[0, 0, 1], image[0, -1, 1]) for image in images[first : first + 5]}
                assert len(positions) == 1
                drawn += positions
            assert len({tuple(offset) for offset in offsets}) == 10
        assert len(set(drawn)) > 8

    def test_color_noise_ends_after_its_epochs(self, tiny_data_dir):
        batches = training_batches(tiny_data_dir, 12, color_noise_epochs=2)  # four batches an epoch
        assert [bool(offsets.any()) for _, offsets, _ in batches] == [True] * 8 + [False] * 4
        complete = training_batches(tiny_data_dir, 12)
        assert_equal_batches(batches[:8], complete[:8])
        for (images, _, labels), (other_images, _, other_labels) in zip(batches, complete, strict=True):
            np.testing.assert_array_equal(images, other_images)
            np.testing.assert_array_equal(labels, other_labels)
        later = training_batches(tiny_data_dir, 5, color_noise_epochs=2, start_epoch=1, start_step=3)
        assert_equal_batches(later, batches[7:])

    def test_batches_do_not_depend_on_the_number_of_cpus(self, tiny_data_dir, monkeypatch):
        batches = []
        for cpus in (1, 4):
            monkeypatch.setattr(reader, "available_cpus", lambda cpus=cpus: cpus)
            batches.append(training_batches(tiny_data_dir, 5))
        assert_equal_batches(*batches)

    def test_batches_follow_from_their_seed_and_not_from_the_global_one(self, tiny_data_dir):
        batches = []
        try:
            for global_seed, seed in ((0, 5), (1, 5), (1, 6)):  # 0 is what keras.utils.set_random_seed(0) sets
                tf.random.set_seed(global_seed)
                batches.append(training_batches(tiny_data_dir, 2, seed=seed))
        finally:
            tf.random.set_seed(None)  # for the tests that follow
        one, same, other = batches
        assert_equal_batches(one, same)
        assert numbers_in(one[0][0]) != numbers_in(other[0][0])
        assert not np.allclose(one[0][1], other[0][1])

    def test_crop_of_the_whole_image_is_the_image(self, tiny_data_dir):
        ((inputs, _),) = reader.make_training_dataset(tiny_data_dir, 10, TINY_IMAGE_PX).take(1)
        assert set(inputs["image"][:, 0, 0, 0].numpy()) == {0}

    def test_jpeg_crop_equals_pillows(self, own_dir):
        (complete, _), (crop, _) = (next(iter(reader.make_evaluation_dataset(own_dir, 5, side))) for side in (64, 32))
        *_, encoded = next(stored_records(own_dir, "validation"))
        np.testing.assert_array_equal(complete[0], np.asarray(Image.open(io.BytesIO(encoded))))
        # The decoder interpolates color across the border of a crop, which has no neighbors there.
        np.testing.assert_array_equal(crop[:, 1:-1, 1:-1], complete[:, 17:47, 17:47])

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ({"batch_size": 0}, r"`batch_size` must be from 1 .*46\. Received: 0"),
            ({"batch_size": 47}, r"`batch_size` must be from 1 .*46\. Received: 47"),
            ({"crop_px": 0}, r"from 1 to the image side, 40\. Received: crop_px=0"),
            ({"crop_px": 41}, r"from 1 to the image side, 40\. Received: crop_px=41"),
            ({"start_step": 4}, "`start_step` must be from 0 to 3"),
            ({"start_step": -1}, "`start_step` must be from 0 to 3"),
            ({"start_epoch": -1}, "`start_epoch` must not be negative"),
            ({"augmentation": Augmentation(color_noise="loud")}, "`color_noise` must be one of"),
        ],
        ids=str,
    )
    def test_argument_out_of_range_is_an_error(self, tiny_data_dir, argument, message):
        with pytest.raises(ValueError, match=message):
            reader.make_training_dataset(tiny_data_dir, **{"batch_size": 10, "crop_px": CROP_PX} | argument)


class TestMakeEvaluationDataset:
    def test_center_crops_come_in_the_order_of_the_files(self, tiny_data_dir):
        batches = list(reader.make_evaluation_dataset(tiny_data_dir, 4, CROP_PX))
        assert [len(labels) for _, labels in batches] == [4, 4, 2]
        images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        assert sorted(numbers_in(images)) == list(range(100, 110))
        assert labels.dtype == np.int32
        for image, label in zip(images, labels, strict=True):
            np.testing.assert_array_equal(image, tiny_image(image[0, 0, 2])[4:36, 4:36])
            assert label == image[0, 0, 2] % 2
        again = np.concatenate([batch for batch, _ in reader.make_evaluation_dataset(tiny_data_dir, 10, CROP_PX)])
        np.testing.assert_array_equal(again, images)

    def test_ten_views(self, tiny_data_dir):
        ((images, _),) = reader.make_evaluation_dataset(tiny_data_dir, 10, CROP_PX, views=10)
        assert images.shape == (10, 10, CROP_PX, CROP_PX, 3)
        for views in images.numpy():
            complete = tiny_image(views[0, 0, 0, 2])
            five = [complete[:32, :32], complete[:32, 8:], complete[8:, :32], complete[8:, 8:], complete[4:36, 4:36]]
            np.testing.assert_array_equal(views, five + [view[:, ::-1] for view in five])

    def test_training_split(self, tiny_data_dir):
        images = np.concatenate(
            [i for i, _ in reader.make_evaluation_dataset(tiny_data_dir, 7, CROP_PX, split="train")]
        )
        assert sorted(numbers_in(images)) == list(range(46))

    def test_number_of_batches(self, tiny_data_dir):
        assert len(reader.make_evaluation_dataset(tiny_data_dir, 4, CROP_PX)) == 3

    @pytest.mark.parametrize(
        "arguments", [{"views": 5}, {"split": "test"}, {"crop_px": 41}, {"batch_size": 0}], ids=str
    )
    def test_argument_out_of_range_is_an_error(self, tiny_data_dir, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}={value!r}"):
            reader.make_evaluation_dataset(tiny_data_dir, **{"batch_size": 4, "crop_px": CROP_PX} | arguments)
