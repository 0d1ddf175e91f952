"""From TFRecords to batches, with tf.data: uint8 pixels, each image's color offset beside them, and labels.

The pixels stay bytes. That the mean is subtracted and the color noise added in the network's first layer makes this
pipeline more than twice as fast as one that hands on floats.
"""

import bisect
import dataclasses
import os

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import images, records, schema, service, statistics


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of a data set that one of several workers reads. All workers together read each image once.

    Attributes:
        worker: number of this worker, from 0.
        num_workers: how many there are.
        replicas: how many devices each worker feeds: they get a batch each, in turn.
    """

    worker: int = 0
    num_workers: int = 1
    replicas: int = 1

    @property
    def all_replicas(self):
        return self.num_workers * self.replicas


def steps_per_epoch(description, batch_size):
    """Whole batches in an epoch. Raises ValueError where the training images do not fill one.

    The rest of an epoch is left out, other images in each epoch: a short batch would weigh its images more, and under
    a distribution strategy change the gradient.
    """
    count = schema.split_of(description, "train").count
    if not 1 <= batch_size <= count:
        raise ValueError(
            f"`batch_size` must be from 1 to the number of training images, {count}. Received: {batch_size}"
        )
    return count // batch_size


def evaluation_steps(description, batch_size, split="validation", all_replicas=1):
    """Batches of each replica in one pass over a split.

    Raises:
        ValueError: where there are fewer images than replicas.
    """
    local_batch = _evaluation_batch(description, batch_size, split, all_replicas)
    most = -(-schema.split_of(description, split).count // all_replicas)
    return -(-most // local_batch)


def make_training_dataset(
    data_dir,
    batch_size,
    crop_px,
    *,
    description=None,
    seed=0,
    color_noise="standard_deviation",
    color_noise_epochs=None,
    images_per_crop=1,
    last_offset=False,
    start_epoch=0,
    start_step=0,
    share=Share(),
    data_service=None,
    data_service_job=None,
    num_parallel_calls=None,
):
    """Makes the endless training set: shuffled, cropped, flipped, with a color offset for each image.

    Whatever is random follows from the seed, the epoch, and the image's place in it alone. So the batches are the same
    whatever the parallelism, and those from (start_epoch, start_step) on the same as if all before had been read. To
    begin there takes no longer than to begin at the beginning: each shard is opened where its next record lies.

    Args:
        data_dir: folder of a data set.
        batch_size: images in a step, of all workers and replicas together.
        crop_px: side of the random crop, in pixels.
        description: the data set's `schema.DatasetDescription` where it is not that of dataset.json but has records
            left out.
        seed: any integer.
        color_noise: size of the color noise, a key of `statistics.COLOR_NOISE_SCALES`.
        color_noise_epochs: how many epochs, from the first, have color noise; None for all. (66 in the original
            program.)
        images_per_crop: how many images in a row share the place of the crop and the flip. (32 in the original
            program.)
        last_offset: whether the crop may touch the right and the bottom edge. Section 4.1 counts 32 x 32 places of a
            224 pixel crop in 256 pixels, so the last, 32, is never taken; the original program takes it: 33 x 33.
        start_epoch, start_step: where to begin.
        share: what is read here. Each epoch the shards are dealt out anew, the images of one shard to two workers where
            their shares end within it.
        data_service: address of a tf.data service that does the work, "host:port" (service.py), or None. Its workers
            take the windows of an epoch as they come, so the order of the images is no longer that of the seed. From
            (start_epoch, start_step) on those windows are read that by the seed's order come then: of what its workers
            had in hand some is read again, and as much is not.
        data_service_job: name under which several workers share what the service reads, the same on all, another in
            each start of a run.
        num_parallel_calls: images decoded at once; twice the cores by default, which was measured faster than
            tf.data.AUTOTUNE.

    Returns: a `tf.data.Dataset` of ({"image": uint8 (batch, crop_px, crop_px, 3), "color_offset": float32 (batch, 3)},
    int32 labels (batch,)), where a batch is one replica's.

    Raises:
        ValueError: where an argument is out of its range, or a shard is missing or cut short.

    Source: section 4.1.
    """
    description = description or schema.load_description(data_dir)
    split = schema.split_of(description, "train")
    parts = records.Parts.of(data_dir, description, "train")
    _check_crop(description, crop_px)
    steps = steps_per_epoch(description, batch_size)
    if start_epoch < 0:
        raise ValueError(f"`start_epoch` must not be negative. Received: start_epoch={start_epoch}")
    if not 0 <= start_step < steps:
        raise ValueError(f"`start_step` must be from 0 to {steps - 1}, the last of an epoch. Received: {start_step}")
    noise = tf.constant(statistics.Statistics.load(data_dir).color_noise(color_noise))
    if images_per_crop < 1:
        raise ValueError(f"`images_per_crop` must be at least 1. Received: images_per_crop={images_per_crop}")
    if batch_size % share.all_replicas:
        raise ValueError(
            f"`batch_size` must be a multiple of the number of replicas, {share.all_replicas}. Received: {batch_size}"
        )
    if data_service:
        service.check_reachable(data_service)
        if share.num_workers > 1 and not data_service_job:
            raise ValueError("`data_service_job` must be given where several workers share a data service.")
        data_service_job = data_service_job if share.num_workers > 1 else None
        # Its workers are others than those that train, between which it deals out the images.
        share = Share(replicas=share.all_replicas)
    local_batch = batch_size // share.num_workers
    begin, end = (split.count * worker // share.num_workers for worker in (share.worker, share.worker + 1))
    windows = parts.windows_per_epoch()
    first_image = start_step * local_batch

    def seed_of(epoch):
        return tf.random.fold_in(tf.constant([seed, 0], tf.int64), tf.cast(epoch, tf.int64))

    def first_of_window(window):
        return int(parts.window(seed_of(start_epoch), begin, end, tf.constant(window, tf.int64))[0])

    def read_window(number):
        # The seed of this graph, which holds the operations of one window: without it the program's global seed would
        # come into the order of the images, and a global seed of 0 fails.
        tf.compat.v1.set_random_seed(None)
        epoch, window = number // windows, number % windows
        epoch_seed = seed_of(epoch)
        first, slices = parts.window(epoch_seed, begin, end, window)
        encoded = tf.data.Dataset.from_tensor_slices(slices).interleave(
            records.read_records,
            cycle_length=records.SHARDS_IN_WINDOW,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        order = tf.random.stateless_uniform((), tf.random.fold_in(epoch_seed, window), None, None, tf.int64)
        encoded = encoded.shuffle(
            parts.window_size + records.SHARDS_IN_WINDOW, seed=order, reshuffle_each_iteration=False
        )
        done = tf.where(epoch == start_epoch, tf.maximum(first_image - first, 0), 0)
        left = tf.maximum(steps * local_batch - first, 0)
        noisy = 1.0 if color_noise_epochs is None else tf.cast(epoch < color_noise_epochs, tf.float32)

        def draw(step):
            """What is random about the images of a step, all workers' at once: image by image it took longer."""
            crop_seed, noise_seed = tf.unstack(tf.random.split(tf.random.fold_in(epoch_seed, windows + step)))
            own = slice(share.worker * local_batch, (share.worker + 1) * local_batch)
            first_of_crop = np.arange(batch_size) // images_per_crop * images_per_crop
            crops = tf.gather(tf.random.stateless_uniform((batch_size, 3), crop_seed), first_of_crop[own])
            offsets = noisy * tf.random.stateless_normal((batch_size, 3), noise_seed) @ tf.transpose(noise)
            return tf.data.Dataset.from_tensor_slices((crops, offsets[own]))

        begun = first + done
        draws = tf.data.Dataset.range(begun // local_batch, steps).flat_map(draw).skip(begun % local_batch)
        return tf.data.Dataset.zip(encoded.take(left).skip(done), draws)

    def augment(record, draws):
        (top, left, flip), color_offset = tf.unstack(draws[0]), draws[1]
        encoded, size, label = records.parse_record(record, description)
        places = tf.cast(tf.maximum(size - crop_px + (1 if last_offset else 0), 1), tf.float32)
        top, left = tf.cast(top * places[0], tf.int32), tf.cast(left * places[1], tf.int32)
        image = images.decode_crop(encoded, description.encoding, size, top, left, crop_px)
        # Four times as fast as image[:, ::-1], and only for those that are flipped.
        image = tf.cond(flip < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
        return {"image": image, "color_offset": color_offset}, label

    first_window = bisect.bisect_right(range(windows), first_image, key=first_of_window) - 1
    dataset = tf.data.Dataset.range(start_epoch * windows + first_window, tf.int64.max).flat_map(read_window)
    # While one window is handed on the next is read, across the ends of epochs too: decoding never waits for it.
    dataset = dataset.prefetch(max(1, parts.window_size // 2))
    # The service's machines may have more cores than this one.
    calls = num_parallel_calls or (tf.data.AUTOTUNE if data_service else 2 * os.cpu_count())
    dataset = dataset.map(augment, num_parallel_calls=calls, deterministic=True)
    dataset = dataset.batch(local_batch // share.replicas, drop_remainder=True)
    if data_service:
        dataset = dataset.apply(service.distribute(data_service, data_service_job))
    return dataset.prefetch(2 * share.replicas)


def make_evaluation_dataset(
    data_dir, batch_size, crop_px, *, description=None, split="validation", views=1, share=Share()
):
    """Makes the data set of a split: once through, in the order of the files, the last batch short.

    Args:
        data_dir: folder of a data set.
        batch_size: images in a step, of all workers and replicas together.
        crop_px: side of the crops, in pixels, which are all from the square in the middle of the image.
        description: as `make_training_dataset` takes it.
        split: "train" or "validation".
        views: 1: the centre crop. 10: the paper's ten views, which are the four corners (top left, top right, bottom
            left, bottom right), the centre, and the mirror images of these five in the same order.
        share: what is read here: the images of each replica follow one another in the files. Each replica has as
            many batches, `evaluation_steps`, none of them empty: a replica without images would make the mean loss NaN.

    Returns: a `tf.data.Dataset` of (images, int32 labels (batch,)); the images are uint8 (batch, crop_px, crop_px, 3),
    or with ten views (batch, 10, crop_px, crop_px, 3).

    Raises:
        ValueError: where an argument is out of its range, or a shard is missing or cut short.

    Source: section 4.1.
    """
    if views not in (1, 10):
        raise ValueError(f"`views` must be 1 or 10. Received: views={views}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    description = description or schema.load_description(data_dir)
    parts = records.Parts.of(data_dir, description, split)
    _check_crop(description, crop_px)
    last = description.image_px - crop_px
    corners = [(0, 0), (0, last), (last, 0), (last, last), (last // 2, last // 2)]

    def prepare(record):
        if views == 1:
            return _decode_center(record, description, crop_px)
        square, label = _decode_center(record, description, description.image_px)
        crops = tf.stack([square[top : top + crop_px, left : left + crop_px] for top, left in corners])
        return tf.concat([crops, tf.reverse(crops, [2])], axis=0), label

    count, replicas = description.splits[split].count, share.all_replicas
    local_batch = _evaluation_batch(description, batch_size, split, replicas)
    datasets = []
    for replica in range(share.worker * share.replicas, (share.worker + 1) * share.replicas):
        begin, end = count * replica // replicas, count * (replica + 1) // replicas
        slices = tf.data.Dataset.from_tensor_slices(parts.between(begin, end))
        dataset = slices.flat_map(records.read_records).apply(tf.data.experimental.assert_cardinality(end - begin))
        dataset = dataset.map(prepare, num_parallel_calls=2 * os.cpu_count(), deterministic=True)
        datasets.append(dataset.batch(local_batch).prefetch(2))
    if len(datasets) == 1:
        return datasets[0]
    return tf.data.Dataset.choose_from_datasets(datasets, tf.data.Dataset.range(len(datasets)).repeat())


def read_labels(data_dir, description, split):
    """The labels of a split in the order of `make_evaluation_dataset`, without decoding an image; int32 (n,)."""
    parts = records.Parts.of(data_dir, description, split)
    slices = tf.data.Dataset.from_tensor_slices(parts.between(0, description.splits[split].count))
    labels = slices.flat_map(records.read_records).map(lambda record: records.parse_record(record, description)[2])
    return np.fromiter(labels.as_numpy_iterator(), "int32")


def read_images(data_dir, description, split, numbers):
    """The squares in the middle of some images of a split; no other image is read.

    Args:
        data_dir, description, split: as `make_evaluation_dataset` takes them.
        numbers: ints (n,): places in the order of `make_evaluation_dataset`.

    Returns: uint8 (n, image_px, image_px, 3).
    """
    parts = records.Parts.of(data_dir, description, split)

    def read_one(number):
        slices = tf.data.Dataset.from_tensor_slices(parts.between(number, number + 1))
        return slices.flat_map(records.read_records)

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(numbers, "int64")).flat_map(read_one)
    dataset = dataset.map(lambda record: _decode_center(record, description, description.image_px)[0])
    return np.stack(list(dataset.as_numpy_iterator()))


def _decode_center(record, description, side):
    """The square of `side` pixels in the middle of a record's image, and its label."""
    encoded, size, label = records.parse_record(record, description)
    top, left = tf.unstack((size - description.image_px) // 2 + (description.image_px - side) // 2)
    return images.decode_crop(encoded, description.encoding, size, top, left, side), label


def _evaluation_batch(description, batch_size, split, replicas):
    """The images in one replica's batches: the least number, from its part of `batch_size` on, that leaves each replica
    as many batches, though some have an image more than others."""
    count = schema.split_of(description, split).count
    if count < replicas:
        raise ValueError(f"The split {split!r} must have an image for each of {replicas} replicas. It has {count}.")
    fewest, local_batch = count // replicas, -(-batch_size // replicas)
    while count % replicas and fewest % local_batch == 0:
        local_batch += 1
    return local_batch


def _check_crop(description, crop_px):
    if not 1 <= crop_px <= description.image_px:
        raise ValueError(
            f"`crop_px` must be at least 1 and at most the image side, {description.image_px}. "
            f"Received: crop_px={crop_px}"
        )
