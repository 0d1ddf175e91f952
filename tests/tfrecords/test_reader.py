"""The input pipelines: what is in their batches, and that it follows from the seed."""

import dataclasses
import io
import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from batches import CROP_PX, assert_equal_batches, numbers_in, training_batches
from conftest import TINY_IMAGE_PX, tiny_image
from PIL import Image

from alexnet_tf.tfrecords import dataset_builder, reader, records, schema, statistics, storage


def rewrite_first_shard(data_dir, change):
    """Passes the examples of the first training shard through `change`, and updates dataset.json and index.npz."""
    description = schema.load_description(data_dir)
    split = description.splits["train"]
    path = data_dir / split.shards[0].name
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    for example in examples:
        change(example.features.feature)
    written = [example.SerializeToString() for example in examples]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in written:
            writer.write(record)
    with np.load(data_dir / records.INDEX_FILE) as saved:
        sizes = dict(saved)
    sizes["train"][: len(written)] = [len(record) for record in written]
    index = records.save_index(data_dir, {name: [of_split] for name, of_split in sizes.items()})
    shard = dataclasses.replace(split.shards[0], bytes=path.stat().st_size, end=storage.read_end(path))
    split = dataclasses.replace(split, shards=(shard, *split.shards[1:]))
    checksums = description.checksums | {records.INDEX_FILE: index}
    dataclasses.replace(description, splits=description.splits | {"train": split}, checksums=checksums).save(data_dir)


@pytest.fixture
def copy(tiny_data_dir, tmp_path):
    return shutil.copytree(tiny_data_dir, tmp_path / "data")


class TestStepsPerEpoch:
    def test_incomplete_batch_is_left_out(self, tiny_data_dir):
        description = schema.load_description(tiny_data_dir)
        assert [reader.steps_per_epoch(description, size) for size in (1, 10, 23, 24, 46)] == [46, 4, 2, 1, 1]

    @pytest.mark.parametrize("batch_size", [0, -1, 47])
    def test_batch_size_out_of_range_is_an_error(self, tiny_data_dir, batch_size):
        with pytest.raises(ValueError, match=rf"`batch_size` must be from 1 .*46\. Received: {batch_size}"):
            reader.steps_per_epoch(schema.load_description(tiny_data_dir), batch_size)


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

    def test_all_crops_and_flips_of_the_paper_are_drawn(self, tiny_data_dir):
        drawn = set()
        for images, _, _ in training_batches(tiny_data_dir, 150):
            flipped = images[:, 0, 0, 1] > images[:, 0, -1, 1]
            left = np.minimum(images[:, 0, 0, 1], images[:, 0, -1, 1]) // 6
            drawn.update(zip((images[:, 0, 0, 0] // 6).tolist(), left.tolist(), flipped.tolist(), strict=True))
        # 8 x 8 positions in 8 pixels of margin, as section 4.1 counts 32 x 32 in 32; and 2 flips.
        assert drawn == set(itertools.product(range(8), range(8), (False, True)))

    def test_last_offset_adds_the_right_and_bottom_edges(self, tiny_data_dir):
        drawn = {
            (image[0, 0, 0] // 6, min(image[0, 0, 1], image[0, -1, 1]) // 6)
            for images, _, _ in training_batches(tiny_data_dir, 150, last_offset=True)
            for image in images
        }
        assert drawn == set(itertools.product(range(9), range(9)))

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
        for images, offsets, _ in training_batches(tiny_data_dir, 8, images_per_crop=5):
            for first in (0, 5):
                places = {(image[0, 0, 0], image[0, 0, 1], image[0, -1, 1]) for image in images[first : first + 5]}
                assert len(places) == 1
            assert len({tuple(offset) for offset in offsets}) == 10
        every = [
            im[0, 0, :2].tolist() for ims, _, _ in training_batches(tiny_data_dir, 8, images_per_crop=5) for im in ims
        ]
        assert len({tuple(place) for place in every}) > 8

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
        assert not any(o.any() for _, o, _ in training_batches(tiny_data_dir, 4, color_noise_epochs=0))

    def test_images_per_crop_below_one_is_an_error(self, tiny_data_dir):
        with pytest.raises(ValueError, match="images_per_crop=0"):
            reader.make_training_dataset(tiny_data_dir, 10, CROP_PX, images_per_crop=0)

    def test_batches_do_not_depend_on_parallelism(self, tiny_data_dir):
        expected = training_batches(tiny_data_dir, 9, num_parallel_calls=1)
        for calls in (2, 7):
            assert_equal_batches(training_batches(tiny_data_dir, 9, num_parallel_calls=calls), expected)

    def test_batches_follow_from_the_seed(self, tiny_data_dir):
        one, same, other = (training_batches(tiny_data_dir, 2, seed=seed) for seed in (5, 5, 6))
        assert_equal_batches(one, same)
        assert numbers_in(one[0][0]) != numbers_in(other[0][0])
        assert not np.allclose(one[0][1], other[0][1])

    def test_batches_do_not_depend_on_the_global_seed(self, tiny_data_dir):
        batches = []
        try:
            for seed in (0, 1):  # 0 is what keras.utils.set_random_seed(0) sets
                tf.random.set_seed(seed)
                batches.append(training_batches(tiny_data_dir, 2))
        finally:
            tf.random.set_seed(None)  # for the tests that follow
        assert_equal_batches(*batches)

    @pytest.mark.parametrize("start", [{"start_step": 4}, {"start_step": -1}, {"start_epoch": -1}], ids=str)
    def test_start_out_of_range_is_an_error(self, tiny_data_dir, start):
        with pytest.raises(ValueError, match="`start_"):
            reader.make_training_dataset(tiny_data_dir, 10, CROP_PX, **start)

    def test_color_offsets_have_the_covariance_of_the_noise(self, tiny_data_dir, monkeypatch):
        matrix = np.float32([[10, 0, 0], [5, 2, 0], [1, 1, 1]])  # unlike the small data set's, which is diagonal
        monkeypatch.setattr(statistics.Statistics, "color_noise", lambda *_: matrix)
        offsets = np.concatenate([batch[1] for batch in training_batches(tiny_data_dir, 400)])
        covariance = matrix @ matrix.T
        np.testing.assert_allclose(np.cov(offsets.T), covariance, atol=0.1 * np.abs(covariance).max())
        assert np.abs(offsets.mean(axis=0)).max() < 0.1 * np.sqrt(covariance.max())

    def test_color_noise_none_is_zero(self, tiny_data_dir):
        assert not training_batches(tiny_data_dir, 1, color_noise="none")[0][1].any()

    def test_crop_of_the_whole_image_is_the_image(self, tiny_data_dir):
        ((inputs, _),) = reader.make_training_dataset(tiny_data_dir, 10, TINY_IMAGE_PX).take(1)
        assert set(inputs["image"][:, 0, 0, 0].numpy()) == {0}

    def test_jpeg_crop_equals_pillows(self, tmp_path):
        dataset_builder.build_dataset(
            "fashion_mnist", tmp_path, image_px=40, num_train_shards=1, num_validation_shards=1, num_processes=1
        )
        (complete, _), (crop, _) = (
            next(iter(reader.make_evaluation_dataset(tmp_path, 50, side))) for side in (40, CROP_PX)
        )
        # The decoder interpolates color across the crop's border; gray images do not show that.
        np.testing.assert_array_equal(crop, complete[:, 4:36, 4:36])
        (shard,) = tmp_path.glob("validation-*")
        record = next(iter(tf.data.TFRecordDataset(str(shard)))).numpy()
        (encoded,) = tf.train.Example.FromString(record).features.feature[schema.ENCODED].bytes_list.value
        np.testing.assert_array_equal(complete[0], np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))

    def test_shard_cut_short_is_an_error(self, copy):
        path = copy / "train-00003-of-00005"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match="train-00003-of-00005 must have"):
            reader.make_training_dataset(copy, 10, CROP_PX)

    @pytest.mark.parametrize("crop_px", [0, TINY_IMAGE_PX + 1])
    def test_crop_out_of_range_is_an_error(self, tiny_data_dir, crop_px):
        with pytest.raises(ValueError, match=rf"from 1 to the image side, 40\. Received: crop_px={crop_px}"):
            reader.make_training_dataset(tiny_data_dir, 10, crop_px)

    def test_unknown_color_noise_is_an_error(self, tiny_data_dir):
        with pytest.raises(ValueError, match="`color_noise` must be one of"):
            reader.make_training_dataset(tiny_data_dir, 10, CROP_PX, color_noise="loud")

    @pytest.mark.parametrize("label", [-1, 2])
    def test_label_out_of_range_is_an_error_that_names_the_image(self, copy, label):
        def change(feature):
            feature[schema.LABEL].int64_list.value[0] = label

        rewrite_first_shard(copy, change)
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)from 0 to 1.*\.png.*\[{label}\]"):
            training_batches(copy, 5)

    def test_record_without_a_label_is_an_error(self, copy):
        rewrite_first_shard(copy, lambda feature: feature.pop(schema.LABEL))
        with pytest.raises(tf.errors.InvalidArgumentError, match=schema.LABEL):
            training_batches(copy, 5)


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
