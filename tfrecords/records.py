"""Records: where each one begins, reading any of them, and parsing one."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import arrays, decoding, schema, storage

INDEX_FILE = "index.npz"
FRAME_BYTES = 16  # TFRecord adds a length and two checksums to each record
_BUFFER_BYTES = 256 * 1024
_PARALLEL_READS = 16  # an object store answers slowly


def save_index(data_dir: str | pathlib.Path, record_bytes: Mapping[str, Sequence[Any]]) -> str:
    """Writes index.npz into a data set's folder, and returns its `arrays.checksum`.

    Args:
        data_dir: folder of the data set.
        record_bytes: for each split the sizes of its records, one sequence of ints per shard.
    """
    sizes = {split: np.concatenate(shard_sizes).astype("int32") for split, shard_sizes in record_bytes.items()}
    return arrays.save(pathlib.Path(data_dir) / INDEX_FILE, sizes)


def rebuild_index(data_dir: str | pathlib.Path, description: schema.DatasetDescription) -> None:
    """Writes index.npz again after reading all shards. Raises tf.errors.OpError if one is damaged."""
    sizes = {}
    for name, split in description.splits.items():
        paths = [storage.join(data_dir, shard.name) for shard in split.shards]
        lengths = tf.data.TFRecordDataset(paths).map(tf.strings.length, num_parallel_calls=tf.data.AUTOTUNE)
        sizes[name] = [np.fromiter(lengths.as_numpy_iterator(), "int32")]
    save_index(data_dir, sizes)


def load_index(data_dir: str | pathlib.Path, description: schema.DatasetDescription) -> dict[str, list[np.ndarray]]:
    """Reads where each record begins.

    Returns: for each split one int64 (records,) per shard: offsets in bytes from the beginning of the shard.

    Raises:
        ValueError: if index.npz is missing or damaged, or belongs to other shards.
    """
    saved = arrays.load(storage.join(data_dir, INDEX_FILE), description.splits, description)
    offsets = {}
    for name, split in description.splits.items():
        ends = np.cumsum([shard.count for shard in split.shards])
        shard_sizes = np.split(saved[name].astype("int64") + FRAME_BYTES, ends[:-1])
        offsets[name] = [np.cumsum(sizes) - sizes for sizes in shard_sizes]
    return offsets


def read_records(path: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """Reads consecutive records without reading those before them.

    Use it in `flat_map` or `interleave`: TensorFlow can't iterate over this dataset by itself.

    Args:
        path: string scalar, path of a shard.
        offset: int64 scalar, offset of the first record, in bytes.
        count: int64 scalar, number of records.

    Returns: a `tf.data.Dataset` of string scalars.
    """
    # tf.data.TFRecordDataset always starts at the first record.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.reshape(path, (1,)),
        compression_type="",
        buffer_size=tf.constant(_BUFFER_BYTES, tf.int64),
        byte_offsets=tf.reshape(tf.cast(offset, tf.int64), (1,)),
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string)).take(count)


def read_in_parallel(positions: tf.data.Dataset, read: Callable[..., tf.data.Dataset]) -> tf.data.Dataset:
    """Reads at several positions at once, and returns what is read in the order of the positions.

    Args:
        positions: elements that `read` takes.
        read: a function to a dataset of one element, such as one record or one batch of records.
    """
    return positions.interleave(
        read, cycle_length=_PARALLEL_READS, num_parallel_calls=_PARALLEL_READS, deterministic=True
    )


@dataclasses.dataclass(frozen=True)
class Records:
    """Where the records of a split are, in the order of the files, without those that are skipped.

    Attributes:
        paths: string (shards,).
        shards: int32 (records,), index in `paths` of the file that holds each record.
        begins, ends: int64 (records,), offsets of each record's first byte and of the byte after its last.
    """

    paths: tf.Tensor
    shards: tf.Tensor
    begins: tf.Tensor
    ends: tf.Tensor

    @classmethod
    def open(cls, data_dir: str | pathlib.Path, description: schema.DatasetDescription, split: str) -> Self:
        """Finds the records of a split. Raises ValueError if it is damaged, or if all its records are skipped."""
        shards = schema.split_of(description, split).shards
        # TFRecordDataset does not notice a shard that was cut between two records.
        schema.check_shard_sizes(data_dir, description.splits[split])
        begins = load_index(data_dir, description)[split]
        ends = [np.append(begin[1:], shard.bytes) for shard, begin in zip(shards, begins, strict=True)]
        kept = [np.delete(np.arange(shard.count), shard.left_out) for shard in shards]
        if not sum(map(len, kept)):
            total = sum(shard.count for shard in shards)
            raise ValueError(f"The split {split!r} of {data_dir} must have a record. All {total} are skipped.")
        return cls(
            paths=tf.constant([storage.join(data_dir, shard.name) for shard in shards]),
            shards=tf.constant(np.repeat(np.arange(len(shards)), list(map(len, kept))), tf.int32),
            begins=tf.constant(np.concatenate([begin[k] for begin, k in zip(begins, kept, strict=True)]), tf.int64),
            ends=tf.constant(np.concatenate([end[k] for end, k in zip(ends, kept, strict=True)]), tf.int64),
        )

    @property
    def count(self) -> int:
        return len(self.begins)

    @property
    def mean_bytes(self) -> float:
        return float(np.mean(self.ends - self.begins))

    def segments(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Splits records into segments that are contiguous in a file.

        Args:
            indices: int64 (n,), indices of records, n > 0.

        Returns: (paths, offsets, counts) of the segments, as `read_records` takes them; string, int64 and int64, each
        of shape (segments,).
        """
        shards, begins, ends = (tf.gather(each, indices) for each in (self.shards, self.begins, self.ends))
        continues = (shards[1:] == shards[:-1]) & (begins[1:] == ends[:-1])
        firsts = tf.where(tf.concat([[True], ~continues], axis=0))[:, 0]
        counts = tf.concat([firsts[1:], [tf.size(indices, tf.int64)]], axis=0) - firsts
        return tf.gather(self.paths, tf.gather(shards, firsts)), tf.gather(begins, firsts), counts

    def read_range(self, begin: int | tf.Tensor, end: int | tf.Tensor) -> tf.data.Dataset:
        """Reads the records from `begin` to before `end`, int64 scalars: a `tf.data.Dataset` of string scalars."""
        segments = self.segments(tf.range(begin, end, dtype=tf.int64))
        return tf.data.Dataset.from_tensor_slices(segments).flat_map(read_records)


def parse_record(record: tf.Tensor, description: schema.DatasetDescription) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Parses a record, string scalar: a serialized tf.train.Example.

    Returns: (encoded, size, label):
        encoded: string scalar, the encoded image.
        size: int32 (2,), its height and width; for an "original" image, those after resizing.
        label: int32 scalar.

    Raises:
        tf.errors.InvalidArgumentError: if a feature is missing, or the label is not that of a class.
    """
    image_key, label_key, label_offset = description.record_keys
    features = {key: tf.io.FixedLenFeature((), tf.string) for key in (image_key, schema.FILENAME)}
    features |= {key: tf.io.FixedLenFeature((), tf.int64) for key in (label_key, schema.HEIGHT, schema.WIDTH)}
    if description.encoding == schema.ORIGINAL:  # third-party files may lack sizes, or have wrong ones
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
