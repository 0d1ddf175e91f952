"""From TFRecords to batches, with tf.data: uint8 pixels, each image's color offset beside them, and labels.

The pixels stay bytes. That the mean is subtracted and the color noise added in the network's first layer makes this
pipeline more than twice as fast as one that hands on floats.
"""

import contextlib
import dataclasses
import os
import pathlib

import tensorflow as tf

from alexnet_tf.tfrecords import images, schema, statistics, verify

# Images in the shuffle buffer: 100 MB of encoded images. The builder has shuffled a folder's images once already.
_SHUFFLE_BUFFER = 8192
_SHARDS_READ_AT_ONCE = 16


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
    seed=0,
    color_noise="standard_deviation",
    color_noise_epochs=None,
    images_per_crop=1,
    last_offset=False,
    start_epoch=0,
    start_step=0,
    share=Share(),
    num_parallel_calls=None,
):
    """Makes the endless training set: shuffled, cropped, flipped, with a color offset for each image.

    Whatever is random follows from the seed, the epoch, and the image's place in it alone. So the batches are the same
    whatever the parallelism, and those from (start_epoch, start_step) on the same as if all before had been read.

    Args:
        data_dir: folder of a data set.
        batch_size: images in a step, of all workers and replicas together.
        crop_px: side of the random crop, in pixels.
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
        num_parallel_calls: images decoded at once; twice the cores by default, which was measured faster than
            tf.data.AUTOTUNE.

    Returns: a `tf.data.Dataset` of ({"image": uint8 (batch, crop_px, crop_px, 3), "color_offset": float32 (batch, 3)},
    int32 labels (batch,)), where a batch is one replica's.

    Raises:
        ValueError: where an argument is out of its range, or a shard is missing or cut short.

    Source: section 4.1.
    """
    description = schema.load_description(data_dir)
    split = schema.split_of(description, "train")
    paths, counts = _shard_paths(data_dir, split), [shard.count for shard in split.shards]
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
    local_batch = batch_size // share.num_workers
    begin, end = (split.count * worker // share.num_workers for worker in (share.worker, share.worker + 1))
    places = max(1, description.image_px - crop_px + (1 if last_offset else 0))

    def read_epoch(epoch):
        # The seed of this graph, which holds the operations of one epoch: without it the program's global seed would
        # come into the order of the images, and a global seed of 0 fails.
        tf.compat.v1.set_random_seed(None)
        epoch_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch)
        shuffled = tf.random.experimental.stateless_shuffle(tf.range(len(paths)), epoch_seed)
        shards = _parts_of_shards(tf.gather(paths, shuffled), tf.gather(counts, shuffled), begin, end)
        records = shards.interleave(
            _read_part,
            cycle_length=_SHARDS_READ_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        order = tf.random.stateless_uniform((), epoch_seed, minval=None, maxval=None, dtype=tf.int64)
        records = records.shuffle(_SHUFFLE_BUFFER, seed=order, reshuffle_each_iteration=False)
        skipped = tf.where(epoch == start_epoch, tf.constant(start_step * local_batch, tf.int64), 0)
        numbered = records.take(steps * local_batch).enumerate().skip(skipped)
        noisy = tf.constant(True) if color_noise_epochs is None else epoch < color_noise_epochs

        def with_seeds(local_index, record):
            # Its place among the images of all workers, of which each takes its part of every batch.
            step, place = local_index // local_batch, local_index % local_batch
            index = step * batch_size + share.worker * local_batch + place
            first_of_crop = index - index % images_per_crop
            return tf.random.fold_in(epoch_seed, first_of_crop), tf.random.fold_in(epoch_seed, index), noisy, record

        return numbered.map(with_seeds)

    def augment(crop_and_flip_seed, image_seed, noisy, record):
        encoded, label = _parse(record, description)
        crop_seed, flip_seed, _ = tf.unstack(tf.random.split(crop_and_flip_seed, 3))
        _, _, noise_seed = tf.unstack(tf.random.split(image_seed, 3))
        top, left = tf.unstack(tf.random.stateless_uniform((2,), crop_seed, 0, places, tf.int32))
        image = _decode_crop(encoded, description, top, left, crop_px)
        image = tf.where(tf.random.stateless_uniform((), flip_seed) < 0.5, image[:, ::-1], image)
        color_offset = tf.linalg.matvec(noise, tf.random.stateless_normal((3,), noise_seed))
        color_offset = tf.where(noisy, color_offset, tf.zeros(3))
        return {"image": image, "color_offset": color_offset}, label

    # The epochs are chained before the images are decoded, so that decoding never waits for an epoch to begin.
    dataset = tf.data.Dataset.range(start_epoch, tf.int64.max).flat_map(read_epoch)
    dataset = dataset.map(augment, num_parallel_calls=num_parallel_calls or 2 * os.cpu_count(), deterministic=True)
    return dataset.batch(local_batch // share.replicas, drop_remainder=True).prefetch(2 * share.replicas)


def make_evaluation_dataset(data_dir, batch_size, crop_px, *, split="validation", views=1, share=Share()):
    """Makes the data set of a split: once through, in the order of the files, the last batch short.

    Args:
        data_dir: folder of a data set.
        batch_size: images in a step, of all workers and replicas together.
        crop_px: side of the crops, in pixels.
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
    description = schema.load_description(data_dir)
    split_description = schema.split_of(description, split)
    paths = _shard_paths(data_dir, split_description)
    _check_crop(description, crop_px)
    last = description.image_px - crop_px
    corners = [(0, 0), (0, last), (last, 0), (last, last), (last // 2, last // 2)]

    def prepare(record):
        encoded, label = _parse(record, description)
        if views == 1:
            return _decode_crop(encoded, description, last // 2, last // 2, crop_px), label
        image = _decode_crop(encoded, description, 0, 0, description.image_px)
        crops = tf.stack([image[top : top + crop_px, left : left + crop_px] for top, left in corners])
        return tf.concat([crops, crops[:, :, ::-1]], axis=0), label

    count, replicas = split_description.count, share.all_replicas
    shard_counts = [shard.count for shard in split_description.shards]
    local_batch = _evaluation_batch(description, batch_size, split, replicas)
    datasets = []
    for replica in range(share.worker * share.replicas, (share.worker + 1) * share.replicas):
        begin, end = count * replica // replicas, count * (replica + 1) // replicas
        records = _parts_of_shards(paths, shard_counts, begin, end).flat_map(_read_part)
        records = records.apply(tf.data.experimental.assert_cardinality(end - begin))
        dataset = records.map(prepare, num_parallel_calls=2 * os.cpu_count(), deterministic=True)
        datasets.append(dataset.batch(local_batch).prefetch(2))
    if len(datasets) == 1:
        return datasets[0]
    return tf.data.Dataset.choose_from_datasets(datasets, tf.data.Dataset.range(len(datasets)).repeat())


@contextlib.contextmanager
def naming_damaged_shards(data_dir):
    """Turns TensorFlow's error about a damaged record, which names no file, into a ValueError that names the record."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        print("\nA record can't be read. Looking for it:")
        problems = verify.verify_dataset(data_dir)
        if not problems:
            raise
        more = f" And {len(problems) - 1} more: alexnet-tfrecords --verify lists them." if len(problems) > 1 else ""
        worst = next((problem for problem in problems if problem.record is not None), problems[0])
        raise ValueError(f"The data set is damaged. {worst}.{more}") from error


def _shard_paths(data_dir, split):
    schema.check_shard_sizes(data_dir, split)  # TFRecordDataset takes a shard cut between two records for a whole one
    return [str(pathlib.Path(data_dir) / shard.name) for shard in split.shards]


def _parts_of_shards(paths, counts, begin, end):
    """Which records of which shards are those from `begin` to before `end`, counted over all shards.

    Args:
        paths: string (shards,).
        counts: int (shards,): the records in each.
        begin, end: ints.

    Returns: a `tf.data.Dataset` of (path, records to skip, records to take), without the shards of which none is taken.
    """
    counts = tf.cast(counts, tf.int64)
    before = tf.cumsum(counts, exclusive=True)
    skipped = tf.clip_by_value(begin - before, 0, counts)
    taken = tf.clip_by_value(end - before, 0, counts) - skipped
    wanted = taken > 0
    return tf.data.Dataset.from_tensor_slices(
        tuple(tf.boolean_mask(tensor, wanted) for tensor in (paths, skipped, taken))
    )


def _read_part(path, skipped, taken):
    return tf.data.TFRecordDataset(path).skip(skipped).take(taken)


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


def _parse(record, description):
    """Returns the encoded image and the int32 label of a record. A label out of range is an error that names both."""
    features = {key: tf.io.FixedLenFeature((), tf.string) for key in (schema.ENCODED, schema.FILENAME)}
    features[schema.LABEL] = tf.io.FixedLenFeature((), tf.int64)
    example = tf.io.parse_single_example(record, features)
    label, classes = example[schema.LABEL], len(description.class_names)
    message = f"A label must be from 0 to {classes - 1}. Received (filename, label):"
    in_range = tf.Assert((label >= 0) & (label < classes), [message, example[schema.FILENAME], label])
    with tf.control_dependencies([in_range]):
        return tf.identity(example[schema.ENCODED]), tf.cast(label, tf.int32)


def _decode_crop(encoded, description, top, left, crop_px):
    """Decodes the square of `crop_px` at (top, left); returns uint8 (crop_px, crop_px, 3)."""
    if description.encoding == "jpeg":
        image = tf.io.decode_and_crop_jpeg(encoded, [top, left, crop_px, crop_px], channels=3)
    else:
        whole = images.decode_image(encoded, description.encoding, description.image_px)
        image = whole[top : top + crop_px, left : left + crop_px]
    return tf.ensure_shape(image, (crop_px, crop_px, 3))
