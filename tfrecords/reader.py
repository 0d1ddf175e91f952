"""Reads TFRecords into batches with tf.data: uint8 pixels, a color offset for each image, and labels.

The network's first layer subtracts the mean and adds the color noise. A pipeline that outputs floats is half as fast.
"""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from alexnet_tf.cpus import available_cpus
from alexnet_tf.tfrecords import crops, decoding, epochs, records, schema, statistics
from alexnet_tf.tfrecords import data_service as tf_data_service
from alexnet_tf.tfrecords.augmentation import Augmentation


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of a data set that one of several workers reads.

    Attributes:
        worker: index of this worker.
        num_workers: number of workers.
        replicas: number of devices that each worker feeds. They take its batches in turn.
    """

    worker: int = 0
    num_workers: int = 1
    replicas: int = 1

    @property
    def all_replicas(self) -> int:
        return self.num_workers * self.replicas


def steps_per_epoch(description: schema.DatasetDescription, batch_size: int) -> int:
    """Number of full batches in an epoch.

    Each epoch leaves out the remaining images, different ones each time. A short batch would give its images more
    weight, and would change the gradient under a distribution strategy.

    Raises:
        ValueError: if the training images do not fill one batch.
    """
    count = schema.split_of(description, "train").count
    if not 1 <= batch_size <= count:
        raise ValueError(
            f"`batch_size` must be from 1 to the number of training images, {count}. Received: {batch_size}"
        )
    return count // batch_size


def evaluation_steps(description: schema.DatasetDescription, batch_size: int, all_replicas: int) -> int:
    """Number of batches that each replica gets in one pass over the validation images.

    Raises:
        ValueError: if there are fewer images than replicas.
    """
    local_batch = _evaluation_batch(description, batch_size, "validation", all_replicas)
    most_images = -(-description.splits["validation"].count // all_replicas)
    return -(-most_images // local_batch)


def make_training_dataset(
    data_dir: str | pathlib.Path,
    batch_size: int,
    crop_px: int,
    *,
    description: schema.DatasetDescription | None = None,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    start_epoch: int = 0,
    start_step: int = 0,
    share: Share = Share(),
    data_service: str | None = None,
    data_service_job: str | None = None,
) -> tf.data.Dataset:
    """Makes the endless training set: shuffled, cropped, flipped, with a color offset for each image.

    All random numbers follow from the seed, the epoch, the step and the image's position in the global batch. So the
    batches do not depend on the parallelism or the number of workers, and reading can begin at any step.

    Args:
        data_dir: folder of a data set.
        batch_size: global batch size, of all workers and replicas together.
        crop_px: side of the random crop, in pixels.
        description: the description, if it is not that of dataset.json because damaged records are skipped.
        seed: any integer.
        augmentation: how the images are changed at random; None for the paper's crops, flips and color noise.
        start_epoch, start_step: where to begin.
        share: the part to read.
        data_service: None, or the address of a tf.data service that does the work, "host:port" (service.py). Its
            workers take the windows of an epoch in no fixed order. After an interruption, images that were being read
            may come twice, and others not at all.
        data_service_job: name under which several workers share what the service reads. It must be the same on all
            workers, and a new one each time a run starts.

    Returns: a `tf.data.Dataset` of ({"image": uint8 (batch, crop_px, crop_px, 3), "color_offset": float32 (batch, 3)},
    int32 labels (batch,)), where `batch` is the batch size of one replica. With `mean_at_crop` images are float32.

    Raises:
        ValueError: if an argument is out of range, or a shard is missing or cut short.

    Source: section 4.1.
    """
    description, augmentation = description or schema.load_description(data_dir), augmentation or Augmentation()
    _check_training_arguments(description, batch_size, crop_px, augmentation, start_epoch, start_step, share)
    pixel_statistics = statistics.Statistics.load(data_dir)
    noise = pixel_statistics.color_noise(augmentation.color_noise)
    stored = records.Records.open(data_dir, description, "train")
    if data_service:
        share, data_service_job = _share_of_service(data_service, data_service_job, share)
    order = epochs.EpochOrder(stored.count, stored.mean_bytes, batch_size, seed)
    local_batch = batch_size // share.num_workers
    worker_slice = slice(share.worker * local_batch, (share.worker + 1) * local_batch)

    def draw(epoch, step):
        # For all workers' images at once: for each image separately it takes longer.
        draws, offsets = augmentation.draw(order.step_key(epoch, step), epoch, batch_size, noise)
        return draws[worker_slice], offsets[worker_slice]

    def decode(record, drawn):
        encoded, size, label = records.parse_record(record, description)
        image = augmentation.apply(encoded, description.encoding, size, drawn[0], crop_px, pixel_statistics.mean_image)
        return {"image": image, "color_offset": drawn[1]}, label

    dataset = epochs.read_epochs(order, stored, draw, worker_slice, start_epoch, start_step)
    # Twice the number of cores is faster than AUTOTUNE. But the service's machines may have more cores than this one.
    calls = tf.data.AUTOTUNE if data_service else 2 * available_cpus()
    dataset = dataset.map(decode, num_parallel_calls=calls, deterministic=True)
    dataset = dataset.batch(local_batch // share.replicas, drop_remainder=True)
    if data_service:
        dataset = dataset.apply(tf_data_service.distribute(data_service, data_service_job))
    return dataset.prefetch(2 * share.replicas)


def make_evaluation_dataset(
    data_dir: str | pathlib.Path,
    batch_size: int,
    crop_px: int,
    *,
    description: schema.DatasetDescription | None = None,
    split: str = "validation",
    views: int = 1,
    share: Share = Share(),
) -> tf.data.Dataset:
    """Makes the dataset of one pass over a split, in the order of the files. The last batch may be short.

    Args:
        data_dir: folder of a data set.
        batch_size: global batch size, of all workers and replicas together.
        crop_px: side of the crops, in pixels. They are crops of the central square of the image.
        description: see `make_training_dataset`.
        split: "train" or "validation".
        views: 1 for the center crop, 10 for the paper's ten views in the order of `crops.ten_views`.
        share: the part to read. The images of each replica are consecutive in the files. Every replica has the same
            number of batches, `evaluation_steps`, and none of them is empty: without images the mean loss would be NaN.

    Returns: a `tf.data.Dataset` of (images, int32 labels (batch,)). Images are uint8 (batch, crop_px, crop_px, 3), or
    with ten views (batch, 10, crop_px, crop_px, 3).

    Raises:
        ValueError: if an argument is out of range, or a shard is missing or cut short.

    Source: section 4.1.
    """
    if views not in (1, 10):
        raise ValueError(f"`views` must be 1 or 10. Received: views={views}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    description = description or schema.load_description(data_dir)
    stored = records.Records.open(data_dir, description, split)
    crops.check_crop_px(crop_px, description.image_px)
    count, replicas = description.splits[split].count, share.all_replicas
    local_batch = _evaluation_batch(description, batch_size, split, replicas)
    datasets = []
    for replica in range(share.worker * share.replicas, (share.worker + 1) * share.replicas):
        begin, end = count * replica // replicas, count * (replica + 1) // replicas
        dataset = stored.read_range(begin, end).apply(tf.data.experimental.assert_cardinality(end - begin))
        dataset = dataset.map(
            lambda record: _decode_views(record, description, crop_px, views),
            num_parallel_calls=2 * available_cpus(),
            deterministic=True,
        )
        datasets.append(dataset.batch(local_batch).prefetch(2))
    if len(datasets) == 1:
        return datasets[0]
    return tf.data.Dataset.choose_from_datasets(datasets, tf.data.Dataset.range(len(datasets)).repeat())


def read_labels(data_dir: str | pathlib.Path, description: schema.DatasetDescription, split: str) -> np.ndarray:
    """Reads the labels of a split in the order of `make_evaluation_dataset`, int32 (n,), without decoding images."""
    stored = records.Records.open(data_dir, description, split)
    labels = stored.read_range(0, stored.count).map(lambda record: records.parse_record(record, description)[2])
    return np.fromiter(labels.as_numpy_iterator(), "int32")


def read_filenames(data_dir: str | pathlib.Path, description: schema.DatasetDescription, split: str) -> np.ndarray:
    """Reads the names of a split's image files, in the order of `read_labels`; "" where a record has none."""
    stored = records.Records.open(data_dir, description, split)
    features = {schema.FILENAME: tf.io.FixedLenFeature((), tf.string, "")}
    names = stored.read_range(0, stored.count).map(lambda record: tf.io.parse_single_example(record, features))
    return np.array([str(each[schema.FILENAME], "utf-8", "replace") for each in names.as_numpy_iterator()], str)


def read_images(
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    indices: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Reads the central squares of some images of a split, and no others.

    Args:
        data_dir, description, split: see `make_evaluation_dataset`.
        indices: ints (n,), in the order of `make_evaluation_dataset`.

    Returns: uint8 (n, image_px, image_px, 3).
    """
    return np.stack(list(read_squares(data_dir, description, split, indices).as_numpy_iterator()))


def read_squares(
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    indices: Sequence[int] | np.ndarray,
) -> tf.data.Dataset:
    """Like `read_images`, but returns a `tf.data.Dataset` of uint8 (image_px, image_px, 3)."""
    stored = records.Records.open(data_dir, description, split)
    positions = tf.data.Dataset.from_tensor_slices(np.asarray(indices, "int64"))
    dataset = records.read_in_parallel(positions, lambda index: stored.read_range(index, index + 1))
    return dataset.map(
        lambda record: _decode_center(record, description, description.image_px)[0],
        num_parallel_calls=2 * available_cpus(),
        deterministic=True,
    )


def _decode_views(record, description, crop_px, views):
    """The center crop or the ten views of a record's image, and its label."""
    if views == 1:
        return _decode_center(record, description, crop_px)
    square, label = _decode_center(record, description, description.image_px)
    return crops.ten_views(square, crop_px), label


def _decode_center(record, description, side):
    """The center crop of `side` pixels of the central square of a record's image, and its label."""
    encoded, size, label = records.parse_record(record, description)
    offsets = crops.center_offset(size, description.image_px) + crops.center_offset(description.image_px, side)
    top, left = tf.unstack(offsets)
    return decoding.decode_crop(encoded, description.encoding, size, top, left, side), label


def _evaluation_batch(description, batch_size, split, replicas):
    """The batch size of one replica: its part of `batch_size`, or the next size with which all replicas have the same
    number of batches although some have one image more than others."""
    count = schema.split_of(description, split).count
    if count < replicas:
        raise ValueError(f"The split {split!r} must have an image for each of {replicas} replicas. It has {count}.")
    fewest, local_batch = count // replicas, -(-batch_size // replicas)
    while count % replicas and fewest % local_batch == 0:
        local_batch += 1
    return local_batch


def _check_training_arguments(description, batch_size, crop_px, augmentation, start_epoch, start_step, share):
    crops.check_crop_px(crop_px, description.image_px)
    steps = steps_per_epoch(description, batch_size)
    if start_epoch < 0:
        raise ValueError(f"`start_epoch` must not be negative. Received: start_epoch={start_epoch}")
    if not 0 <= start_step < steps:
        raise ValueError(f"`start_step` must be from 0 to {steps - 1}, the last of an epoch. Received: {start_step}")
    if augmentation.mean_at_crop and (description.keep_aspect or description.encoding == schema.ORIGINAL):
        raise ValueError(
            "`mean_at_crop` needs a data set of square images, built without `keep_aspect` and `in_place`."
        )
    if batch_size % share.all_replicas:
        raise ValueError(
            f"`batch_size` must be a multiple of the number of replicas, {share.all_replicas}. Received: {batch_size}"
        )


def _share_of_service(address, job_name, share):
    """The part that a tf.data service reads, which is everything, and the job's name if several workers share it."""
    tf_data_service.check_reachable(address)
    if share.num_workers > 1 and not job_name:
        raise ValueError("`data_service_job` must be given if several workers share a data service.")
    return Share(replicas=share.all_replicas), job_name if share.num_workers > 1 else None
