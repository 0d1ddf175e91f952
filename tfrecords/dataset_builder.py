"""Builds TFRecords of 256 x 256 images, and their statistics, from images. A second call resumes the first."""

import collections
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf import files
from alexnet_tf.tfrecords import images, pool, records, schema, shards, sources, statistics

_SHARED_FILES = (statistics.STATISTICS_FILE, records.INDEX_FILE)
_STORED_AS = ("image_px", "keep_aspect", "encoding", "quality", "exif_orientation", "max_pixels", "resize")
_LEAST_SHARDS = {"train": 16, "validation": 4}
_IMAGES_PER_SHARD = 1000  # about 40 MB of JPEGs
_SETTINGS_FILE = ".building.json"  # the settings of an unfinished data set


def build_dataset(
    source: str,
    data_dir: str | pathlib.Path,
    *,
    image_px: int = 256,
    keep_aspect: bool = False,
    encoding: str = "jpeg",
    quality: int = 95,
    exif_orientation: bool = True,
    max_pixels: int = images.MAX_PIXELS,
    resize: str = "crop",
    num_train_shards: int | None = None,
    num_validation_shards: int | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    max_bad_fraction: float = 0.01,
    num_processes: int | None = None,
    runner: str | None = None,
    runner_arguments: Sequence[str] = (),
    tfds_data_dir: str | None = None,
    record_format: Mapping[str, Any] | None = None,
) -> schema.DatasetDescription:
    """Builds a data set, or finishes an interrupted one, or finds that it is complete.

    The same arguments give the same bytes, however many processes or workers build them, in one or several starts.

    Args:
        source: name of the source; see `sources.open_source`.
        data_dir: folder for the shards; created if it does not exist.
        image_px: shorter side of the stored images, in pixels.
        keep_aspect: whether to keep the longer side, up to four times the shorter, instead of cutting out the central
            square, as in the paper. Statistics are of the central square.
        encoding, quality: "jpeg" of a quality from 1 to 95, "png", or "raw".
        exif_orientation: whether to turn images upright, as their EXIF tag Orientation says. (TIFF files always are.)
        max_pixels: pixels that an image may have; larger ones count as unreadable.
        resize: how images become squares, "crop" or "warp"; see `images.prepare_image`.
        num_train_shards, num_validation_shards: number of files of each split; None for one for every 1,000 images,
            but at least 16 and 4, or one for each image if there are fewer.
        validation_fraction, seed, tfds_data_dir, record_format: see `sources.open_source`.
        max_bad_fraction: fraction of a split's images that may be unreadable; these are listed in dataset.json.
        num_processes: processes of this machine that build; None for one per core. 1 builds in this process.
        runner: None, or the name of a runner of Apache Beam, whose workers build. The images and `data_dir` must be on
            a disk that every worker mounts under the same path.
        runner_arguments: command-line arguments of Apache Beam's `PipelineOptions`.

    Returns: the `schema.DatasetDescription`.

    Raises:
        ValueError: if an argument is out of range, Apache Beam is needed and missing, the folder holds another data
            set, or too many images are unreadable.

    Source: section 2.
    """
    _check_arguments(image_px, keep_aspect, encoding, quality, max_pixels, resize, num_processes, runner)
    data_dir = pathlib.Path(data_dir).absolute()
    settings: dict[str, Any] = dict(source=source, image_px=image_px, keep_aspect=keep_aspect, encoding=encoding)
    settings |= dict(quality=quality, exif_orientation=exif_orientation, max_pixels=max_pixels, resize=resize)
    settings |= dict(num_train_shards=num_train_shards, num_validation_shards=num_validation_shards)
    settings |= dict(validation_fraction=validation_fraction, seed=seed)
    if record_format:
        settings["record_format"] = dict(record_format)
    description = _load_complete(data_dir, settings)
    if description:
        return description
    opened = sources.open_source(source, seed, validation_fraction, tfds_data_dir, record_format)
    schema.check_class_names(opened.class_names)
    counts = {split: opened.count(split) for split in schema.SPLITS}
    _set_default_shards(settings, counts)
    tasks = _make_tasks(counts, data_dir, settings)
    data_dir.mkdir(parents=True, exist_ok=True)
    with files.sole_user(data_dir, f"Another process builds a data set in `data_dir` {data_dir}. Wait for it."):
        _delete_damaged(data_dir)  # not before it is known that it can be built again
        _prepare_folder(data_dir, tasks, settings | counts)
        if runner is None:
            sums = pool.build_shards(opened, tasks, max_bad_fraction, num_processes)
        else:
            sums = _build_with_beam(opened, tasks, max_bad_fraction, runner, runner_arguments)
        return _finish(data_dir, opened, tasks, settings, sums)


def _set_default_shards(settings, counts):
    for split, least in _LEAST_SHARDS.items():
        if settings[f"num_{split}_shards"] is None:
            settings[f"num_{split}_shards"] = min(counts[split], max(least, counts[split] // _IMAGES_PER_SHARD))


def _build_with_beam(opened, tasks, max_bad_fraction, runner, runner_arguments):
    from alexnet_tf.tfrecords import beam_pipeline  # imports Apache Beam

    return beam_pipeline.build_shards(opened, tasks, max_bad_fraction, runner, runner_arguments)


def _check_arguments(
    image_px: int,
    keep_aspect: bool,
    encoding: str,
    quality: int,
    max_pixels: int,
    resize: str,
    num_processes: int | None,
    runner: str | None,
):
    if resize not in schema.RESIZES or (resize == "warp" and keep_aspect):
        raise ValueError(
            f'`resize` must be one of {schema.RESIZES}, and "crop" with `keep_aspect`. Received: resize={resize!r}, '
            f"keep_aspect={keep_aspect}"
        )
    if encoding not in schema.ENCODINGS:
        raise ValueError(f"`encoding` must be one of {schema.ENCODINGS}. Received: encoding={encoding!r}")
    if not 1 <= quality <= 95:
        raise ValueError(f"`quality` must be from 1 to 95, the range Pillow recommends. Received: {quality}")
    for name, value in (("image_px", image_px), ("max_pixels", max_pixels)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    if runner is not None:
        if num_processes is not None:
            raise ValueError(f"`num_processes` must be None with a `runner`. Received: {num_processes}")
        try:
            from alexnet_tf.tfrecords import beam_pipeline
        except ImportError as error:
            raise ValueError(f"runner={runner!r} needs Apache Beam: pip install alexnet-tf[beam]") from error
        beam_pipeline.check_runner(runner)


def _make_tasks(counts: dict[str, int], data_dir: pathlib.Path, settings: dict[str, Any]) -> list[shards.ShardTask]:
    tasks = []
    for split, count in counts.items():
        num_shards = settings[f"num_{split}_shards"]
        if not 1 <= num_shards <= count:
            raise ValueError(
                f"`num_{split}_shards` must be from 1 to the number of {split} images, {count}. Received: {num_shards}"
            )
        bounds = [count * i // num_shards for i in range(num_shards + 1)]
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            path = data_dir / schema.shard_name(split, index, num_shards)
            stored_as = {name: settings[name] for name in _STORED_AS}
            tasks.append(shards.ShardTask(split, start, stop, path, **stored_as))
    return tasks


def _load_complete(data_dir: pathlib.Path, settings: dict[str, Any]) -> schema.DatasetDescription | None:
    """The description of the data set in the folder, or None if it is not complete."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return None
    description = schema.load_description(data_dir)
    if description.in_place:  # a shard of others is never built again, that is, deleted
        raise ValueError(
            f"`data_dir` must not be an index of records that are read in place (--in_place). Received: {data_dir}"
        )
    # Of older data sets not all settings are known; those that are must be the same.
    check_settings(data_dir, settings | {"resize": "crop"} | description.settings, settings)
    if description.exif_orientation is None and settings["exif_orientation"]:
        print(f"{data_dir} was built by an older version, which ignored EXIF orientations; so do its networks.")
    try:
        for split in description.splits.values():
            schema.check_shard_sizes(data_dir, split)
        statistics.Statistics.load(data_dir)
        try:
            records.load_index(data_dir, description)
        except ValueError as error:
            print(f"{error}. Rebuilding it from the shards.")
            records.rebuild_index(data_dir, description)
            records.load_index(data_dir, description)
    except (ValueError, tf.errors.DataLossError) as error:
        print(f"{error}. Building the data set again.")
        return None
    print(f"{data_dir} is complete: nothing to build.")
    return description


def _delete_damaged(data_dir: pathlib.Path):
    """Deletes a data set that is not complete although it was finished once."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return
    for split in schema.load_description(data_dir).splits.values():
        for shard in split.shards:
            (data_dir / shard.name).unlink(missing_ok=True)
    for name in _SHARED_FILES:
        (data_dir / name).unlink(missing_ok=True)
    (data_dir / schema.DATASET_FILE).unlink()


def _prepare_folder(data_dir: pathlib.Path, tasks: list[shards.ShardTask], settings: dict[str, Any]):
    """Makes sure that the folder holds nothing of other settings, half written, or written by others."""
    path = data_dir / _SETTINGS_FILE
    if path.exists():
        check_settings(data_dir, {"resize": "crop"} | json.loads(path.read_text()), settings)
        for unfinished in data_dir.glob(".tmp-*"):
            unfinished.unlink(missing_ok=True)
    else:
        for output in [task.path for task in tasks] + [data_dir / name for name in _SHARED_FILES]:
            if output.exists():
                raise ValueError(f"`data_dir` must not hold other files. Received: {output} exists")
        files.write_text(path, json.dumps(settings))


def check_settings(data_dir: pathlib.Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError if the data set in a folder was built with other settings than those of now."""
    changed = [
        f"{name} was {before.get(name)!r} and is now {value!r}"
        for name, value in now.items()
        if before.get(name) != value and value is not None  # None: any number of shards
    ]
    if changed:
        raise ValueError(
            f"{data_dir} holds a data set with other settings: {'; '.join(changed)}. "
            "Give another --data_dir, or delete this one."
        )


def _finish(
    data_dir: pathlib.Path,
    source: sources.Source,
    tasks: list[shards.ShardTask],
    settings: dict[str, Any],
    sums: statistics.PixelSums,
) -> schema.DatasetDescription:
    """Writes the files that describe all shards, dataset.json last."""
    splits, record_bytes, unserved = {}, {}, collections.Counter()
    for split in schema.SPLITS:
        parts = [shards.load_part(task) for task in tasks if task.split == split]
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
            raise ValueError(
                f"`source` must hold at least one readable {split} image. Received: {settings['source']!r}"
            )
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
            f"Warning: {unserved.total():,} images are of formats that an exported model does not decode: {listed}. "
            f"It must be sent {', '.join(images.SERVED_FORMATS)}."
        )
    for task in tasks:
        task.part_path.unlink()
    (data_dir / _SETTINGS_FILE).unlink()
    return description
