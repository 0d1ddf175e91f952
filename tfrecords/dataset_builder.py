"""Builds TFRecords of square images and their statistics. A second call resumes an interrupted one."""

import collections
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf import files
from alexnet_tf.tfrecords import build_config, images, pool, records, schema, shards, sources, statistics

_SHARED_FILES = (statistics.STATISTICS_FILE, records.INDEX_FILE)
_MIN_SHARDS = {"train": 16, "validation": 4, "test": 4}
_IMAGES_PER_SHARD = 1000  # about 40 MB of JPEGs
_UNFINISHED_FILE = ".building.json"  # the settings of an unfinished data set, and the content of its source


def build_dataset(
    source: str,
    data_dir: str | pathlib.Path,
    *,
    max_bad_fraction: float = 0.01,
    num_processes: int | None = None,
    runner: str | None = None,
    runner_arguments: Sequence[str] = (),
    tfds_data_dir: str | None = None,
    record_format: Mapping[str, Any] | None = None,
    **options: Any,
) -> schema.DatasetDescription:
    """Builds a data set, finishes an interrupted one, or finds that it is complete.

    The same settings give the same bytes, whatever the number of processes, workers and restarts.

    Args:
        source: name of the source; see `sources.open_source`.
        data_dir: folder for the data set. It is created if it does not exist.
        max_bad_fraction: maximum fraction of unreadable images in a split. They are listed in dataset.json.
        num_processes: number of processes on this machine; None for one per core. 1 builds in this process.
        runner: None, or the name of an Apache Beam runner. Every worker must mount the images and `data_dir` under the
            same path.
        runner_arguments: command-line arguments for Apache Beam's `PipelineOptions`.
        tfds_data_dir, record_format: see `sources.open_source`.
        **options: fields of `build_config.BuildConfig`.

    Returns: the `schema.DatasetDescription`.

    Raises:
        ValueError: if an argument is out of range, Apache Beam is needed and missing, the folder contains another data
            set, or too many images are unreadable.

    Source: section 2.
    """
    config = build_config.BuildConfig(**options)
    if runner is not None:
        _check_runner(runner, num_processes)
    data_dir = pathlib.Path(data_dir).absolute()
    given = {"record_format": dict(record_format)} if record_format else {}
    description = _load_complete(data_dir, {"source": source} | dataclasses.asdict(config) | given)
    try:
        opened = sources.open_source(source, config.seed, config.validation_fraction, tfds_data_dir, record_format)
    except (ValueError, OSError) as error:
        if not description:
            raise
        print(f"The source was not compared: {error}")
        return description
    counts = {split: opened.count(split) for split in getattr(opened, "splits", schema.SPLITS)}
    content = {"class_names": list(opened.class_names), **counts, "source_checksum": opened.checksum()}
    if description:
        _check_content(data_dir, _content_of(description), content)
        return description
    schema.check_class_names(opened.class_names)
    num_shards = _count_shards(counts, config)
    config = dataclasses.replace(config, **{f"num_{split}_shards": num_shards[split] for split in schema.SPLITS})
    settings = {"source": source} | dataclasses.asdict(config) | given
    tasks = _make_tasks(counts, num_shards, data_dir, config)
    data_dir.mkdir(parents=True, exist_ok=True)
    with files.sole_user(data_dir, f"Another process is building a data set in {data_dir}. Wait for it."):
        _delete_damaged(data_dir)  # only now, when the source is known to exist
        _prepare_folder(data_dir, tasks, settings, content)
        if runner is None:
            pool.build_shards(opened, tasks, max_bad_fraction, num_processes)
        else:
            from alexnet_tf.tfrecords import beam_pipeline  # imports Apache Beam

            beam_pipeline.build_shards(opened, tasks, max_bad_fraction, runner, runner_arguments)
        settings["source_checksum"] = content["source_checksum"]
        return _finish(data_dir, opened, tasks, settings)


def _check_runner(runner: str, num_processes: int | None):
    if num_processes is not None:
        raise ValueError(f"`num_processes` can't be combined with `runner`. Received: num_processes={num_processes}")
    try:
        from alexnet_tf.tfrecords import beam_pipeline
    except ImportError as error:
        raise ValueError(f"runner={runner!r} needs Apache Beam: pip install --editable '.[beam]'") from error
    beam_pipeline.check_runner(runner)


def _count_shards(counts: dict[str, int], config: build_config.BuildConfig) -> dict[str, int]:
    """The number of shards of each split. Raises ValueError if there are too few images."""
    given = {"train": config.num_train_shards, "validation": config.num_validation_shards}
    num_shards = {}
    for split, count in counts.items():
        default = min(count, max(_MIN_SHARDS[split], count // _IMAGES_PER_SHARD))
        num_shards[split] = given.get(split) or default
        if not 1 <= num_shards[split] <= count:
            raise ValueError(
                f"`num_{split}_shards` must be from 1 to {count}, the number of {split} images. Received: "
                f"{num_shards[split]}"
            )
    return num_shards


def _make_tasks(
    counts: dict[str, int], num_shards: dict[str, int], data_dir: pathlib.Path, config: build_config.BuildConfig
) -> list[shards.ShardTask]:
    tasks = []
    for split, count in counts.items():
        bounds = [count * i // num_shards[split] for i in range(num_shards[split] + 1)]
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            path = data_dir / schema.shard_name(split, index, num_shards[split])
            tasks.append(shards.ShardTask(split, start, stop, path, config))
    return tasks


def _load_complete(data_dir: pathlib.Path, settings: dict[str, Any]) -> schema.DatasetDescription | None:
    """The description of the data set in the folder, or None if it is not complete."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return None
    description = schema.load_description(data_dir)
    if description.in_place:  # its shards are third-party files, which must not be deleted
        raise ValueError(f"`data_dir` must not be an index of records that are read in place. Received: {data_dir}")
    check_settings(data_dir, description.settings, settings)
    try:
        for split in description.splits.values():
            schema.check_shard_sizes(data_dir, split)
        statistics.Statistics.load(data_dir)
        try:
            records.load_index(data_dir, description)
        except ValueError as error:
            print(f"{error} Rebuilding the index from the shards.")
            records.rebuild_index(data_dir, description)
            records.load_index(data_dir, description)
    except (ValueError, tf.errors.DataLossError) as error:
        print(f"{error} Building the data set again.")
        return None
    if (data_dir / _UNFINISHED_FILE).exists():
        _delete_leftovers(data_dir)
    print(f"Using {data_dir}, which is complete.")
    return description


def _delete_damaged(data_dir: pathlib.Path):
    """Deletes a finished data set that was found to be damaged."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return
    for split in schema.load_description(data_dir).splits.values():
        for shard in split.shards:
            (data_dir / shard.name).unlink(missing_ok=True)
    for name in (*_SHARED_FILES, schema.DATASET_FILE):
        (data_dir / name).unlink(missing_ok=True)


def _prepare_folder(
    data_dir: pathlib.Path, tasks: list[shards.ShardTask], settings: dict[str, Any], content: dict[str, Any]
):
    """Deletes temporary files of an interrupted build. Raises ValueError if the folder contains anything else."""
    path = data_dir / _UNFINISHED_FILE
    if path.exists():
        unfinished = json.loads(path.read_text())
        check_settings(data_dir, unfinished["settings"], settings)
        _check_content(data_dir, unfinished["content"], content)
        for temporary in data_dir.glob(".tmp-*"):
            temporary.unlink(missing_ok=True)
    else:
        for output in [task.path for task in tasks] + [data_dir / name for name in _SHARED_FILES]:
            if output.exists():
                raise ValueError(f"`data_dir` must not contain other files. Received: {output} exists.")
        files.write_text(path, json.dumps({"settings": settings, "content": content}))


def _content_of(description: schema.DatasetDescription) -> dict[str, Any]:
    """What the source of a complete data set contained when it was built."""
    counts = {name: split.count + len(split.skipped) for name, split in description.splits.items()}
    checksum = description.settings["source_checksum"]
    return {"class_names": list(description.class_names), **counts, "source_checksum": checksum}


def _check_content(data_dir: pathlib.Path, before: dict[str, Any], now: dict[str, Any]):
    """Raises ValueError if the source has other classes or images than when the build began."""
    if before == now:
        return
    reason = "other file names or labels"
    if before["class_names"] != now["class_names"]:
        differing = sorted(set(before["class_names"]) ^ set(now["class_names"]))
        reason = f"other classes ({', '.join(map(repr, differing[:5])) or 'in another order'})"
    elif changed := [split for split in _MIN_SHARDS if before.get(split, 0) != now.get(split, 0)]:
        reason = ", ".join(f"{before.get(split, 0):,} {split} images, now {now.get(split, 0):,}" for split in changed)
    raise ValueError(
        f"The source of {data_dir} has changed since the data set was built: {reason}. Choose another --data_dir or "
        "delete this one."
    )


def check_settings(data_dir: pathlib.Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError if the data set in a folder was built with other settings. None matches any value."""
    changed = [
        f"{name} was {before.get(name)!r} and is now {value!r}"
        for name, value in now.items()
        if before.get(name) != value and value is not None
    ]
    if changed:
        raise ValueError(
            f"{data_dir} contains a data set with other settings: {'; '.join(changed)}. "
            "Choose another --data_dir or delete this one."
        )


def _finish(
    data_dir: pathlib.Path,
    source: sources.Source,
    tasks: list[shards.ShardTask],
    settings: dict[str, Any],
) -> schema.DatasetDescription:
    """Writes statistics.npz, index.npz and finally dataset.json."""
    splits, record_bytes, unserved = {}, {}, collections.Counter()
    sums = statistics.PixelSums(settings["image_px"])
    for split in dict.fromkeys(task.split for task in tasks):
        parts = [shards.load_part(task, sums) for task in tasks if task.split == split]
        record_bytes[split] = [part["record_bytes"] for part in parts]
        for part in parts:
            unserved.update(part["unserved"])
        splits[split] = schema.Split(
            count=sum(part["shard"]["count"] for part in parts),
            count_per_class=tuple(np.sum([part["count_per_class"] for part in parts], axis=0).tolist()),
            shards=tuple(schema.Shard(**part["shard"]) for part in parts),
            skipped=tuple(tuple(entry) for part in parts for entry in part["skipped"]),
        )
        if not splits[split].count:
            raise ValueError(f"`source` must have a readable {split} image. Received: {settings['source']!r}")
    checksums = {
        statistics.STATISTICS_FILE: statistics.Statistics.of(sums).save(data_dir),
        records.INDEX_FILE: records.save_index(data_dir, record_bytes),
    }
    description = schema.DatasetDescription(
        class_names=tuple(source.class_names),
        image_px=settings["image_px"],
        keep_aspect=settings["keep_aspect"],
        encoding=settings["encoding"],
        splits=splits,
        settings=settings,
        checksums=checksums,
    )
    description.save(data_dir)
    if unserved:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(unserved.items()))
        print(
            f"Warning: {unserved.total():,} images have formats that an exported model can't decode: {listed}. "
            f"Send it {', '.join(images.SERVED_FORMATS)} instead."
        )
    _delete_leftovers(data_dir)
    return description


def _delete_leftovers(data_dir: pathlib.Path):
    """Deletes what a complete data set does not need. A killed process leaves `.tmp-*`."""
    for path in [*data_dir.glob(".part-*"), *data_dir.glob(".tmp-*"), data_dir / _UNFINISHED_FILE]:
        path.unlink(missing_ok=True)
