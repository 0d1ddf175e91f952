"""Checks every shard, record and image of a data set."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from alexnet_tf.cpus import available_cpus
from alexnet_tf.tfrecords import decoding, records, schema, storage


@dataclasses.dataclass(frozen=True)
class Problem:
    """A damaged shard or record.

    Attributes:
        path: path of the shard.
        record: index of the record in the shard; None for the complete shard.
        reason: what was expected and what was found.
    """

    path: str
    record: int | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.record is None else f", record {self.record}"
        return f"{self.path}{where}: {self.reason}"


def verify_dataset(data_dir: str | pathlib.Path, splits: Sequence[str] | None = None) -> list[Problem]:
    """Checks the size and SHA-256 of each shard, and the CRC, features, label and image of each record.

    Args:
        data_dir: folder of the data set.
        splits: the splits to check; None for all.

    Returns: the `Problem`s, in the order of shards and records.

    Raises:
        ValueError: if dataset.json or index.npz is missing or damaged.
    """
    description = schema.load_description(data_dir)
    index = records.load_index(data_dir, description)
    tasks = [
        (shard, offsets)
        for name in splits or description.splits
        for shard, offsets in zip(description.splits[name].shards, index[name], strict=True)
    ]
    problems = []
    # Threads, since TensorFlow decodes without holding Python's lock.
    with (
        tqdm(total=sum(shard.count for shard, _ in tasks), unit=" images", file=sys.stdout) as bar,
        concurrent.futures.ThreadPoolExecutor(available_cpus()) as pool,
    ):
        futures = {pool.submit(check_shard, data_dir, *task, description): task[0] for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            problems += future.result()
            bar.update(futures[future].count)
    return sorted(problems, key=lambda problem: (problem.path, -1 if problem.record is None else problem.record))


def check_shard(
    data_dir: str | pathlib.Path, shard: schema.Shard, offsets: np.ndarray, description: schema.DatasetDescription
) -> list[Problem]:
    """Finds the `Problem`s of a shard whose records begin at `offsets`."""
    path = storage.join(data_dir, shard.name)
    problems = []
    size = storage.size(path)
    if size is None:
        problems.append(Problem(path, None, "no such file"))
    elif size != shard.bytes:
        problems.append(Problem(path, None, f"it must hold {shard.bytes:,} bytes. Found: {size:,}"))
    elif (found := storage.sha256(path)) != shard.sha256:
        problems.append(Problem(path, None, f"its SHA-256 must be {shard.sha256}. Found: {found}"))
    try:  # all records at once, which is much faster, but doesn't say which one is damaged
        dataset = tf.data.TFRecordDataset(path).map(lambda record: _decode(record, description))
        complete = int(dataset.reduce(0, lambda count, _: count + 1)) == shard.count
    except tf.errors.OpError:
        complete = False
    if complete and size == shard.bytes:
        return problems
    number = 0
    while number < shard.count:
        try:
            rest = tf.data.Dataset.from_tensors((path, offsets[number], np.int64(shard.count - number)))
            for record in rest.flat_map(records.read_records):
                reason = _check_record(record, description)
                if reason:
                    problems.append(Problem(path, number, reason))
                number += 1
            reason = "it is missing"
        except tf.errors.OpError as error:
            reason = f"it can't be read: {_reason(error)}"
        if number < shard.count:  # goes on after it
            problems.append(Problem(path, number, reason))
            number += 1
    return problems


def skip_damaged_records(
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    max_records: int,
    splits: Sequence[str] = schema.SPLITS,
) -> tuple[schema.DatasetDescription, list[Problem]]:
    """Reads every image of a data set, and makes a description that skips the damaged records.

    Args:
        data_dir: folder of the data set.
        description: its description.
        max_records: maximum number of damaged records.
        splits: the splits to check.

    Returns: (description, problems): the description with new `left_out` and `count` (`count_per_class` still counts
    all records), and the damaged records.

    Raises:
        ValueError: if more records are damaged.
    """
    damaged = {}
    for problem in verify_dataset(data_dir, splits):
        if problem.record is None:
            logging.warning("%s", problem)
        else:
            damaged.setdefault(problem.path, []).append(problem)
    listed = [problem for problems in damaged.values() for problem in problems]
    if len(listed) > max_records:
        shown = "; ".join(map(str, listed[:3]))
        raise ValueError(
            f"At most {max_records} records may be damaged (--max_bad_records). Found: {len(listed)}. "
            f"The first: {shown}"
        )
    kept_splits = {}
    for name, split in description.splits.items():
        paths = [storage.join(data_dir, shard.name) for shard in split.shards]
        shards = tuple(
            dataclasses.replace(shard, left_out=tuple(each.record for each in damaged.get(path, ())))
            for shard, path in zip(split.shards, paths, strict=True)
        )
        count = sum(shard.count - len(shard.left_out) for shard in shards)
        kept_splits[name] = dataclasses.replace(split, count=count, shards=shards)
    return dataclasses.replace(description, splits=kept_splits), listed


@contextlib.contextmanager
def naming_damaged_shards(data_dir: str | pathlib.Path, description: schema.DatasetDescription) -> Iterator[None]:
    """Turns TensorFlow's error about a damaged record, which names no file, into a ValueError that names the record.

    Args:
        data_dir: folder of the data set.
        description: its description. Damage to records that it skips is ignored.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        print("\nA record can't be read. Searching for it:")
        shards = [shard for split in description.splits.values() for shard in split.shards if shard.left_out]
        known = {storage.join(data_dir, shard.name): (None, *shard.left_out) for shard in shards}
        problems = [
            problem for problem in verify_dataset(data_dir) if problem.record not in known.get(problem.path, ())
        ]
        if not problems:
            raise
        more = f" And {len(problems) - 1} more: alexnet-tfrecords --verify lists them." if len(problems) > 1 else ""
        worst = next((problem for problem in problems if problem.record is not None), problems[0])
        raise ValueError(f"The data set is damaged. {worst}.{more} --on_bad_record=skip skips such records.") from error


def _decode(record, description):
    encoded, size, label = records.parse_record(record, description)
    with tf.control_dependencies([_decode_whole(encoded, size, description)]):
        return tf.identity(label)


def _decode_whole(encoded, size, description):
    if description.encoding == schema.ORIGINAL:  # decodes what is outside of the central square too
        size = decoding.read_size(encoded)
    return decoding.decode_image(encoded, description.encoding, size)


def _check_record(record, description):
    """Describes what is wrong with a record; None if nothing is."""
    try:
        encoded, size, _ = records.parse_record(record, description)
    except tf.errors.OpError as error:
        return f"it can't be parsed: {_reason(error)}"
    try:
        _decode_whole(encoded, size, description)
    except tf.errors.OpError as error:
        names = tf.train.Example.FromString(record.numpy()).features.feature[schema.FILENAME].bytes_list.value
        kind = f"{description.encoding} of {' x '.join(map(str, size.numpy()))} pixels"
        if description.encoding == schema.ORIGINAL:
            kind = "JPEG or PNG"
        name = b" ".join(names).decode(errors="replace") or "the image"  # third-party records may lack it
        return f"{name} can't be decoded as {kind}: {_reason(error)}"
    return None


def _reason(error):
    """The message of a TensorFlow error, without the names of operations."""
    return re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", error.message, flags=re.DOTALL)
