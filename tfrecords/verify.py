"""Whether a data set on disk is what was built: every shard, every record, every image."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import re
import sys

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from alexnet_tf.tfrecords import images, records, schema


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


def verify_dataset(data_dir, splits=schema.SPLITS):
    """Checks all shards: size and SHA-256, each record's CRC and features, its label, and that its image decodes.

    Args:
        data_dir: folder of a data set.
        splits: which of them.

    Returns: a list of `Problem`s, empty where the data set is whole.

    Raises:
        ValueError: where dataset.json or index.npz is missing or damaged.
    """
    description = schema.load_description(data_dir)
    index = records.load_index(data_dir, description)
    tasks = [
        (shard, offsets)
        for name in splits
        for shard, offsets in zip(description.splits[name].shards, index[name], strict=True)
    ]
    problems = []
    # Threads, since TensorFlow decodes outside of Python's lock.
    with (
        tqdm(total=sum(shard.count for shard, _ in tasks), unit=" images", file=sys.stdout) as bar,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        futures = {pool.submit(check_shard, data_dir, *task, description): task[0] for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            problems += future.result()
            bar.update(futures[future].count)
    return sorted(problems, key=lambda problem: (problem.path, -1 if problem.record is None else problem.record))


def check_shard(data_dir, shard, offsets, description):
    """The `Problem`s of a `schema.Shard` whose records begin at `offsets`."""
    path = pathlib.Path(data_dir) / shard.name
    problems = []
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        problems.append(Problem(path, None, "no such file"))
    elif size != shard.bytes:
        problems.append(Problem(path, None, f"it must hold {shard.bytes:,} bytes. Found: {size:,}"))
    elif (found := schema.sha256(path)) != shard.sha256:
        problems.append(Problem(path, None, f"its SHA-256 must be {shard.sha256}. Found: {found}"))
    try:  # all at once, which is much faster and says no more than that all are good
        dataset = tf.data.TFRecordDataset(str(path)).map(lambda record: _decode(record, description))
        whole = int(dataset.reduce(0, lambda count, _: count + 1)) == shard.count
    except tf.errors.OpError:
        whole = False
    if whole and size == shard.bytes:
        return problems
    number = 0
    while number < shard.count:
        try:
            rest = tf.data.Dataset.from_tensors((str(path), offsets[number], np.int64(shard.count - number)))
            for record in rest.flat_map(records.read_records):
                reason = _check_record(record, description)
                if reason:
                    problems.append(Problem(path, number, reason))
                number += 1
            reason = "it is missing"
        except tf.errors.OpError as error:
            reason = f"it can't be read: {_reason(error)}"
        if number < shard.count:  # goes on behind it
            problems.append(Problem(path, number, reason))
            number += 1
    return problems


def leave_out_damaged(data_dir, description, most, splits=schema.SPLITS):
    """Leaves the damaged records of a data set out, as long as they are few.

    Args:
        data_dir: folder of the data set, of which every image is read.
        description: its `schema.DatasetDescription`.
        most: how many records may be left out.
        splits: where it looks for them.

    Returns:
        (description, problems): without them, that is with other `left_out` and `count` (`count_per_class` stays that
        of all records); and what was left out.

    Raises:
        ValueError: where more are damaged.
    """
    damaged = {}
    for problem in verify_dataset(data_dir, splits):
        if problem.record is None:
            logging.warning("%s", problem)
        else:
            damaged.setdefault(problem.path.name, []).append(problem)
    listed = [problem for problems in damaged.values() for problem in problems]
    if len(listed) > most:
        shown = "; ".join(map(str, listed[:3]))
        raise ValueError(
            f"At most {most} records may be damaged (--max_bad_records). Found: {len(listed)}. The first: {shown}"
        )
    splits = {}
    for name, split in description.splits.items():
        shards = tuple(
            dataclasses.replace(shard, left_out=tuple(problem.record for problem in damaged.get(shard.name, ())))
            for shard in split.shards
        )
        count = sum(shard.count - len(shard.left_out) for shard in shards)
        splits[name] = dataclasses.replace(split, count=count, shards=shards)
    return dataclasses.replace(description, splits=splits), listed


@contextlib.contextmanager
def naming_damaged_shards(data_dir, description):
    """Turns TensorFlow's error about a damaged record, which names no file, into a ValueError that names the record.

    Args:
        data_dir: folder of the data set.
        description: its `schema.DatasetDescription`. What is wrong with records left out is not the reason.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        print("\nA record can't be read. Looking for it:")
        shards = [shard for split in description.splits.values() for shard in split.shards if shard.left_out]
        known = {shard.name: (None, *shard.left_out) for shard in shards}
        problems = [
            problem for problem in verify_dataset(data_dir) if problem.record not in known.get(problem.path.name, ())
        ]
        if not problems:
            raise
        more = f" And {len(problems) - 1} more: alexnet-tfrecords --verify lists them." if len(problems) > 1 else ""
        worst = next((problem for problem in problems if problem.record is not None), problems[0])
        raise ValueError(
            f"The data set is damaged. {worst}.{more} --on_bad_record=skip would leave such records out."
        ) from error


def _decode(record, description):
    encoded, size, label = records.parse_record(record, description)
    with tf.control_dependencies([images.decode_image(encoded, description.encoding, size)]):
        return tf.identity(label)


def _check_record(record, description):
    """What is wrong with a record, or None."""
    try:
        encoded, size, _ = records.parse_record(record, description)
    except tf.errors.OpError as error:
        return f"it can't be parsed: {_reason(error)}"
    try:
        images.decode_image(encoded, description.encoding, size)
    except tf.errors.OpError as error:
        name = tf.train.Example.FromString(record.numpy()).features.feature[schema.FILENAME].bytes_list.value[0]
        return (
            f"{name.decode(errors='replace')} can't be decoded as {description.encoding} of "
            f"{' x '.join(map(str, size.numpy()))} pixels: {_reason(error)}"
        )
    return None


def _reason(error):
    """What an error of TensorFlow says, without the names of its operations."""
    return re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", error.message, flags=re.DOTALL)
