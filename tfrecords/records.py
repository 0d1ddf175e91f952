"""Single records: the index of their offsets, reading any of them, and parsing one."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import dataclasses
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from alexnet_tf import files
from alexnet_tf.tfrecords import decoding, schema, storage

INDEX_FILE = "index.npz"
FRAME_BYTES = 16  # that TFRecord adds to each record: its length and two checksums
_BUFFER_BYTES = 256 * 1024  # read at once from a shard

# An epoch is read in windows: slices of up to so many shards, together so many images or bytes, in random order. So
# any place in an epoch is found by arithmetic, and memory is bounded. The builder has shuffled the images once.
SHARDS_IN_WINDOW = 16
WINDOW = 4096
_WINDOW_BYTES = 256e6


def save_index(data_dir: str | pathlib.Path, record_bytes: Mapping[str, Sequence[Any]]) -> str:
    """Writes index.npz into a data set's folder, and returns its `schema.array_checksum`.

    Args:
        data_dir: folder of the data set.
        record_bytes: a dict from a split to the sizes of its records, one sequence of ints for each shard.
    """
    arrays = {split: np.concatenate(sizes).astype("int32") for split, sizes in record_bytes.items()}
    path = pathlib.Path(data_dir) / INDEX_FILE
    files.write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    return schema.array_checksum(arrays)


def rebuild_index(data_dir: str | pathlib.Path, description: schema.DatasetDescription) -> None:
    """Writes index.npz again from the shards, all of which are read. Raises tf.errors.OpError if one is damaged."""
    sizes = {}
    for name, split in description.splits.items():
        paths = [storage.join(data_dir, shard.name) for shard in split.shards]
        lengths = tf.data.TFRecordDataset(paths).map(tf.strings.length, num_parallel_calls=tf.data.AUTOTUNE)
        sizes[name] = [np.fromiter(lengths.as_numpy_iterator(), "int32")]
    save_index(data_dir, sizes)


def load_index(data_dir: str | pathlib.Path, description: schema.DatasetDescription) -> dict[str, list[np.ndarray]]:
    """Reads where each record begins.

    Args:
        data_dir: folder of the data set.
        description: its `schema.DatasetDescription`.

    Returns: a dict from a split to one int64 (records,) for each shard: offsets in bytes from the shard's beginning.

    Raises:
        ValueError: if index.npz is missing or damaged, or not that of these shards.
    """
    path = storage.join(data_dir, INDEX_FILE)
    try:
        with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as arrays:
            saved = {name: arrays[name] for name in description.splits}
    except Exception as error:  # a damaged archive raises one of half a dozen kinds
        raise ValueError(f"{path} must hold the sizes of all records. Reading it failed: {error!r}") from error
    sizes = {name: array.astype("int64") + FRAME_BYTES for name, array in saved.items()}
    offsets = {}
    for name, split in description.splits.items():
        of_shards = np.split(sizes[name], np.cumsum([shard.count for shard in split.shards])[:-1])
        for shard, of_shard in zip(split.shards, of_shards, strict=True):
            if len(of_shard) != shard.count or of_shard.sum() != shard.bytes:
                raise ValueError(
                    f"{path} must hold the sizes of the {shard.count} records of {shard.name}, {shard.bytes:,} bytes "
                    f"in all. Found: {len(of_shard)} records, {of_shard.sum():,} bytes. alexnet-tfrecords, with the "
                    "flags that built the data set, repairs it on a disk"
                )
        offsets[name] = [np.cumsum(of_shard) - of_shard for of_shard in of_shards]
    schema.check_arrays(path, saved, description.checksums)
    return offsets


def read_records(path: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """Reads consecutive records without reading those before them.

    For use in `flat_map` or `interleave`: TensorFlow can't iterate over this operation by itself.

    Args:
        path: string scalar, path of a shard.
        offset: int64 scalar, offset of the first record, in bytes.
        count: int64 scalar, number of records.

    Returns: a `tf.data.Dataset` of string scalars.
    """
    # tf.data.TFRecordDataset starts at the beginning; the operation behind it need not.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.reshape(path, (1,)),
        compression_type="",
        buffer_size=tf.constant(_BUFFER_BYTES, tf.int64),
        byte_offsets=tf.reshape(tf.cast(offset, tf.int64), (1,)),
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string)).take(count)


def interleave(places: tf.data.Dataset, read: Callable[..., tf.data.Dataset]) -> tf.data.Dataset:
    """Reads one record of each place, in their order: several at once, since an object store takes a while to answer.

    Args:
        places: elements that `read` takes.
        read: a function to a data set of one record, such as `read_records` makes.
    """
    at_once = SHARDS_IN_WINDOW
    return places.interleave(read, cycle_length=at_once, num_parallel_calls=at_once, deterministic=True)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The records of a split that are read, as runs of consecutive records: one per shard, unless records are skipped.

    Attributes:
        paths: string (parts,), paths of the shards.
        firsts: int64 (parts,), index in `offsets` of each part's first record.
        counts: int64 (parts,), number of records in each part.
        offsets: int64 (records,), offsets of the records of all shards, in bytes from each shard's beginning.
        window_size: approximate number of records in a window.
    """

    paths: tf.Tensor
    firsts: tf.Tensor
    counts: tf.Tensor
    offsets: tf.Tensor
    window_size: int

    @classmethod
    def of(cls, data_dir: str | pathlib.Path, description: schema.DatasetDescription, split: str) -> Self:
        """The parts of a split. Raises ValueError if it is damaged, or all its records are skipped."""
        shards = schema.split_of(description, split).shards
        # TFRecordDataset does not notice a shard cut between two records.
        schema.check_shard_sizes(data_dir, description.splits[split])
        offsets = np.concatenate(load_index(data_dir, description)[split])
        parts, first = [], 0
        for shard in shards:
            begin = 0
            for end in (*shard.left_out, shard.count):
                if end > begin:
                    parts.append((storage.join(data_dir, shard.name), first + begin, end - begin))
                begin = end + 1
            first += shard.count
        if not parts:
            raise ValueError(f"The split {split!r} of {data_dir} must have a record. All {len(offsets)} are skipped.")
        paths, firsts, counts = zip(*parts, strict=True)
        record_bytes = sum(shard.bytes for shard in shards) / len(offsets)
        return cls(
            paths=tf.constant(paths),
            firsts=tf.constant(firsts, tf.int64),
            counts=tf.constant(counts, tf.int64),
            offsets=tf.constant(offsets, tf.int64),
            window_size=max(1, min(WINDOW, int(_WINDOW_BYTES / record_bytes))),
        )

    def between(self, begin, end) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The records from `begin` to before `end`, counted over all parts; integers or int64 scalars.

        Returns: (paths, offsets of the first record, counts) for `read_records`, of the parts that are not empty.
        """
        skipped, taken = _clip(self.counts, begin, end)
        return self._slices(tf.range(tf.size(self.paths)), skipped, taken)

    def windows_per_epoch(self) -> int:
        """Number of windows in an epoch, the same in each epoch and for each worker."""
        groups, windows = self._groups_and_windows()
        return len(groups) * windows

    def _groups_and_windows(self):
        """The parts of an epoch, in its random order, as groups of nearly equal size that are read together.

        Returns: (int (groups, parts of a group), the places of the parts in the epoch's order, -1 where a group has
        one part less; the number of windows of each group).
        """
        parts = len(self.paths)
        count = -(-parts // SHARDS_IN_WINDOW)
        bounds = np.arange(count + 1) * parts // count
        places = bounds[:-1, None] + np.arange(np.diff(bounds).max())
        largest = np.sort(self.counts.numpy())[::-1][: places.shape[1]]
        return np.where(places < bounds[1:, None], places, -1), int(-(-largest.sum() // self.window_size))

    def window(self, epoch_seed: tf.Tensor, begin: int, end: int, window: tf.Tensor):
        """One window of a worker's share of an epoch, eagerly or in a graph.

        Args:
            epoch_seed: int64 (2,).
            begin, end: the share: the records from `begin` to before `end` of the epoch, in its order of parts;
                integers or int64 scalars.
            window: int64 scalar, number of the window in the epoch.

        Returns: (first, slices): the number of records of the share before the window, and its content as `between`
        returns it.
        """
        firsts, in_turn, order, skipped, from_, to = self._cut(epoch_seed, begin, end)
        places, _ = self._groups_and_windows()
        number, group = in_turn[window] // len(places), in_turn[window] % len(places)
        # In the epoch's order; the place of a missing part has an empty slice.
        numbers = tf.gather(np.maximum(places, 0), group)
        from_, to = from_[number, group], to[number, group]
        return firsts[window], self._slices(tf.gather(order, numbers), tf.gather(skipped, numbers) + from_, to - from_)

    def before_windows(self, epoch_seed: tf.Tensor, begin: int, end: int) -> tf.Tensor:
        """For each window of a share of an epoch the number of records before it; int64 (windows,).

        Args:
            epoch_seed, begin, end: as `window` takes them.
        """
        return self._cut(epoch_seed, begin, end)[0]

    def _cut(self, epoch_seed, begin, end):
        """A share cut into slices and windows.

        Returns: (what `before_windows` returns; the order of the windows; that of the parts; for each part the records
        before the share; the begin and the end of each slice in its part, (windows, groups, parts)).
        """
        order_seed, slices_seed, windows_seed = tf.unstack(tf.random.split(epoch_seed, 3))
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(self.paths)), order_seed)
        skipped, taken = _clip(tf.gather(self.counts, order), begin, end)
        places, windows = self._groups_and_windows()
        in_group = tf.where(places < 0, tf.constant(0, tf.int64), tf.gather(taken, np.maximum(places, 0)))
        # Each part is cut into as many slices as there are windows. Which slices share a window differs from epoch to
        # epoch, and so does the order of the windows.
        turns = tf.random.stateless_uniform(places.shape, slices_seed, 0, windows, tf.int64)
        slices = (tf.range(windows, dtype=tf.int64)[:, None, None] + turns) % windows  # (windows, groups, parts)
        from_, to = in_group * slices // windows, in_group * (slices + 1) // windows
        sizes = tf.reshape(tf.reduce_sum(to - from_, axis=2), (-1,))
        in_turn = tf.random.experimental.stateless_shuffle(tf.range(tf.size(sizes)), windows_seed)
        return tf.cumsum(tf.gather(sizes, in_turn), exclusive=True), in_turn, order, skipped, from_, to

    def _slices(self, numbers, skipped, taken):
        numbers, skipped, taken = (tf.boolean_mask(tensor, taken > 0) for tensor in (numbers, skipped, taken))
        offsets = tf.gather(self.offsets, tf.gather(self.firsts, numbers) + skipped)
        return tf.gather(self.paths, numbers), offsets, taken


def _clip(counts, begin, end):
    """The records of each part, laid end to end, that are before `begin`, and those from there to before `end`."""
    before = tf.cumsum(counts, exclusive=True)
    skipped = tf.clip_by_value(begin - before, 0, counts)
    return skipped, tf.clip_by_value(end - before, 0, counts) - skipped


def parse_record(record: tf.Tensor, description: schema.DatasetDescription) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parses the features that the network is trained on.

    Args:
        record: string scalar, a serialized tf.train.Example.
        description: the `schema.DatasetDescription`.

    Returns:
        (encoded image, string scalar; its rows and columns, int32 (2,), those to which an "original" one is resized;
        label, int32 scalar)

    Raises:
        tf.errors.InvalidArgumentError: if a feature is missing, or the label is no class.
    """
    image_key, label_key, label_offset = description.record_keys
    features = {key: tf.io.FixedLenFeature((), tf.string) for key in (image_key, schema.FILENAME)}
    features |= {key: tf.io.FixedLenFeature((), tf.int64) for key in (label_key, schema.HEIGHT, schema.WIDTH)}
    if description.encoding == schema.ORIGINAL:  # others need not write the sizes, and those that do may be wrong
        del features[schema.HEIGHT], features[schema.WIDTH]
    if description.in_place:
        features[schema.FILENAME] = tf.io.FixedLenFeature((), tf.string, "")
    example = tf.io.parse_single_example(record, features)
    label, classes = example[label_key] - label_offset, len(description.class_names)
    message = f"A label must be from 0 to {classes - 1}. Received (filename, label):"
    in_range = tf.Assert((label >= 0) & (label < classes), [message, example[schema.FILENAME], label])
    with tf.control_dependencies([in_range]):
        encoded, label = tf.identity(example[image_key]), tf.cast(label, tf.int32)
    if description.keep_aspect and description.encoding == schema.ORIGINAL:
        size = decoding.scaled_size(encoded, description.image_px)
    elif description.keep_aspect:
        size = tf.cast(tf.stack([example[schema.HEIGHT], example[schema.WIDTH]]), tf.int32)
    else:
        size = tf.constant([description.image_px, description.image_px])
    return encoded, size, label
