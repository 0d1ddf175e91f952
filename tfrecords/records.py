"""Single records: where each begins in its shard, reading some of them, and what is in one."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import schema

INDEX_FILE = "index.npz"
_FRAME_BYTES = 16  # of TFRecord around each record: its length and two checksums
_BUFFER_BYTES = 256 * 1024  # read at once from a shard

# An epoch is read in windows: a part of each of so many shards, so many images in all, in random order. So any place in
# an epoch is found by arithmetic. A window takes 150 MB, and the builder has shuffled the images once already.
WINDOW = 4096
SHARDS_IN_WINDOW = 16


def save_index(data_dir, record_bytes):
    """Writes index.npz into a data set's folder.

    Args:
        data_dir: folder of the data set.
        record_bytes: a dict from a split to the sizes of its records, one int array a shard.
    """
    arrays = {split: np.concatenate(sizes).astype("int32") for split, sizes in record_bytes.items()}
    path = pathlib.Path(data_dir) / INDEX_FILE
    schema.write_whole(path, lambda file: np.savez_compressed(file, **arrays))


def load_index(data_dir, description, split):
    """Where each record of a split begins.

    Args:
        data_dir: folder of the data set.
        description: its `schema.DatasetDescription`.
        split: "train" or "validation".

    Returns: a list of int64 (records,), one a shard, in bytes from the shard's beginning.

    Raises:
        ValueError: where index.npz is missing or damaged, or not of these shards.
    """
    shards = schema.split_of(description, split).shards
    path = pathlib.Path(data_dir) / INDEX_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sizes = arrays[split].astype("int64") + _FRAME_BYTES
    except Exception as error:  # a damaged archive raises one of half a dozen kinds
        raise ValueError(f"{path} must hold the sizes of all records. Reading it failed: {error!r}") from error
    counts = [shard.count for shard in shards]
    of_shards = np.split(sizes, np.cumsum(counts)[:-1])
    for shard, sizes_of_shard in zip(shards, of_shards, strict=True):
        if len(sizes_of_shard) != shard.count or sizes_of_shard.sum() != shard.bytes:
            raise ValueError(
                f"{path} must hold the sizes of the {shard.count} records of {shard.name}, {shard.bytes:,} bytes in "
                f"all. Found: {len(sizes_of_shard)} records, {sizes_of_shard.sum():,} bytes"
            )
    return [np.cumsum(sizes_of_shard) - sizes_of_shard for sizes_of_shard in of_shards]


def read_records(path, offset, count):
    """Reads records that follow one another, from the first on, without a look at those before it.

    To be handed to `flat_map` or `interleave`: TensorFlow can't make an iterator of this operation by itself.

    Args:
        path: string scalar, of a shard.
        offset: int64 scalar: where the first begins, in bytes.
        count: int64 scalar: how many are read.

    Returns: a `tf.data.Dataset` of string scalars.
    """
    # tf.data.TFRecordDataset begins at the beginning; the operation that it is made of does not have to.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.reshape(path, (1,)),
        compression_type="",
        buffer_size=tf.constant(_BUFFER_BYTES, tf.int64),
        byte_offsets=tf.reshape(tf.cast(offset, tf.int64), (1,)),
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string)).take(count)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The records of a split that are read, as runs in which they follow one another: one a shard, if none is left out.

    Attributes:
        paths: string (parts,), of the shards.
        firsts: int64 (parts,), the place in `offsets` of each part's first record.
        counts: int64 (parts,), the records in each.
        offsets: int64 (records,), where the records of all shards begin, in bytes from each shard's beginning.
    """

    paths: tf.Tensor
    firsts: tf.Tensor
    counts: tf.Tensor
    offsets: tf.Tensor

    @classmethod
    def of(cls, data_dir, description, split):
        shards = schema.split_of(description, split).shards
        # TFRecordDataset takes a shard cut between two records for a whole one.
        schema.check_shard_sizes(data_dir, description.splits[split])
        offsets = np.concatenate(load_index(data_dir, description, split))
        parts, first = [], 0
        for shard in shards:
            begin = 0
            for end in (*shard.left_out, shard.count):
                if end > begin:
                    parts.append((str(pathlib.Path(data_dir) / shard.name), first + begin, end - begin))
                begin = end + 1
            first += shard.count
        paths, firsts, counts = zip(*parts, strict=True)
        integers = (tf.constant(values, tf.int64) for values in (firsts, counts, offsets))
        return cls(tf.constant(paths), *integers)

    def between(self, begin, end):
        """The records from `begin` to before `end`, counted over all parts.

        Returns: (paths, offsets of the first record, counts), as `read_records` takes them, of the parts of
        which any is read.
        """
        skipped, taken = _clip(self.counts, begin, end)
        return self._slices(tf.range(tf.size(self.paths)), skipped, taken)

    def windows_per_epoch(self):
        """How many windows an epoch has: as many for each group of shards."""
        largest = np.sort(self.counts.numpy())[::-1][:SHARDS_IN_WINDOW]
        groups = -(-len(self.paths) // SHARDS_IN_WINDOW)
        return int(groups * -(-largest.sum() // WINDOW))

    def window(self, epoch_seed, begin, end, window):
        """One window of a worker's share of an epoch, eagerly or in a graph.

        Args:
            epoch_seed: int64 (2,).
            begin, end: the share: these of the epoch's records, whose parts are in random order.
            window: int64 scalar, its number in the epoch.

        Returns: (first, slices): how many records of the share come before it, and what it consists of, as `between`
        returns it.
        """
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(self.paths)), epoch_seed)
        skipped, taken = _clip(tf.gather(self.counts, order), begin, end)
        in_group = self.windows_per_epoch() // -(-len(self.paths) // SHARDS_IN_WINDOW)
        group, window = window // in_group * SHARDS_IN_WINDOW, window % in_group
        before = tf.reduce_sum(taken[:group])
        order, skipped, taken = (tensor[group : group + SHARDS_IN_WINDOW] for tensor in (order, skipped, taken))
        from_, to = taken * window // in_group, taken * (window + 1) // in_group
        return before + tf.reduce_sum(from_), self._slices(order, skipped + from_, to - from_)

    def _slices(self, numbers, skipped, taken):
        numbers, skipped, taken = (tf.boolean_mask(tensor, taken > 0) for tensor in (numbers, skipped, taken))
        offsets = tf.gather(self.offsets, tf.gather(self.firsts, numbers) + skipped)
        return tf.gather(self.paths, numbers), offsets, taken


def _clip(counts, begin, end):
    """How many records of parts, laid end to end, come before `begin`, and how many from there to before `end`."""
    before = tf.cumsum(counts, exclusive=True)
    skipped = tf.clip_by_value(begin - before, 0, counts)
    return skipped, tf.clip_by_value(end - before, 0, counts) - skipped


def parse_record(record, description):
    """What the network is trained on.

    Args:
        record: string scalar, a serialized tf.train.Example.
        description: the `schema.DatasetDescription`.

    Returns:
        (encoded image, int32 (2,) its rows and columns, int32 label)

    Raises:
        tf.errors.InvalidArgumentError: where a feature is missing, or the label is no class.
    """
    features = {key: tf.io.FixedLenFeature((), tf.string) for key in (schema.ENCODED, schema.FILENAME)}
    features |= {key: tf.io.FixedLenFeature((), tf.int64) for key in (schema.LABEL, schema.HEIGHT, schema.WIDTH)}
    example = tf.io.parse_single_example(record, features)
    label, classes = example[schema.LABEL], len(description.class_names)
    message = f"A label must be from 0 to {classes - 1}. Received (filename, label):"
    in_range = tf.Assert((label >= 0) & (label < classes), [message, example[schema.FILENAME], label])
    with tf.control_dependencies([in_range]):
        encoded, label = tf.identity(example[schema.ENCODED]), tf.cast(label, tf.int32)
    if description.keep_aspect:
        size = tf.cast(tf.stack([example[schema.HEIGHT], example[schema.WIDTH]]), tf.int32)
    else:
        size = tf.constant([description.image_px, description.image_px])
    return encoded, size, label
