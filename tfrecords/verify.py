"""Whether a data set on disk is what was built: every shard, every record, every image."""

import concurrent.futures
import dataclasses
import os
import pathlib
import re
import sys

import tensorflow as tf
from tqdm import tqdm

from alexnet_tf.tfrecords import images, schema


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a shard.

    Attributes:
        path: of the shard.
        record: its number in the shard, from 0, or None where the whole shard is meant.
        reason: what must be and what is.
    """

    path: pathlib.Path
    record: int | None
    reason: str

    def __str__(self):
        where = "" if self.record is None else f", record {self.record}"
        return f"{self.path}{where}: {self.reason}"


def verify_dataset(data_dir):
    """Checks all shards: size and SHA-256, each record's CRC and features, its label, and that its image decodes.

    Args:
        data_dir: folder of a data set.

    Returns: a list of `Problem`s, empty where the data set is whole.

    Raises:
        ValueError: where dataset.json is missing or damaged.
    """
    description = schema.load_description(data_dir)
    shards = [(split, shard) for split in description.splits.values() for shard in split.shards]
    problems = []
    # Threads, since TensorFlow decodes outside of Python's lock.
    with (
        tqdm(total=sum(shard.count for _, shard in shards), unit=" images", file=sys.stdout) as bar,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        futures = {pool.submit(check_shard, data_dir, shard, description): shard for _, shard in shards}
        for future in concurrent.futures.as_completed(futures):
            problems += future.result()
            bar.update(futures[future].count)
    return sorted(problems, key=lambda problem: (problem.path, -1 if problem.record is None else problem.record))


def check_shard(data_dir, shard, description):
    """The `Problem`s of a `schema.Shard`. After a record whose CRC is wrong the rest of its shard can't be read."""
    path = pathlib.Path(data_dir) / shard.name
    if not path.is_file():
        return [Problem(path, None, "no such file")]
    problems = []
    size = path.stat().st_size
    if size != shard.bytes:
        problems.append(Problem(path, None, f"it must hold {shard.bytes:,} bytes. Found: {size:,}"))
    elif schema.sha256(path) != shard.sha256:
        problems.append(Problem(path, None, f"its SHA-256 must be {shard.sha256}. Found: {schema.sha256(path)}"))
    number = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            reason = _check_record(record.numpy(), description)
            if reason:
                problems.append(Problem(path, number, reason))
            number += 1
    except tf.errors.OpError as error:
        problems.append(Problem(path, number, f"it can't be read: {_reason(error)}"))
    else:
        if number != shard.count:
            problems.append(Problem(path, None, f"it must hold {shard.count} records. Found: {number}"))
    return problems


def _check_record(record, description):
    """What is wrong with a record, or None."""
    features = {key: tf.io.FixedLenFeature((), tf.string) for key in (schema.ENCODED, schema.FILENAME)}
    features[schema.LABEL] = tf.io.FixedLenFeature((), tf.int64)
    try:
        example = tf.io.parse_single_example(record, features)
    except tf.errors.OpError as error:
        return f"it must have the features {', '.join(features)}. {_reason(error)}"
    label, classes = int(example[schema.LABEL]), len(description.class_names)
    name = example[schema.FILENAME].numpy().decode(errors="replace")
    if not 0 <= label < classes:
        return f"the label of {name} must be from 0 to {classes - 1}. Received: {label}"
    side = description.image_px
    try:
        images.decode_image(example[schema.ENCODED], description.encoding, side)
    except tf.errors.OpError as error:
        return f"{name} can't be decoded as {description.encoding} of {side} x {side} pixels: {_reason(error)}"
    return None


def _reason(error):
    """What an error of TensorFlow says, without the names of its operations."""
    return re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", error.message, flags=re.DOTALL)
