"""Builds TFRecords of 256 x 256 images, and their statistics, from images. A second start goes on with the first."""

import itertools
import json
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf
from absl import flags

from alexnet_tf.tfrecords import describe, pool, program, records, schema, shards, sources, statistics, verify

RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")  # of Apache Beam
_OF_ALL_SHARDS = (statistics.STATISTICS_FILE, records.INDEX_FILE)
_SETTINGS_FILE = ".building.json"  # what an unfinished data set is built with


def build_dataset(
    source,
    data_dir,
    *,
    image_px=256,
    keep_aspect=False,
    encoding="jpeg",
    quality=95,
    num_train_shards=16,
    num_validation_shards=4,
    validation_fraction=0.1,
    seed=0,
    max_bad_fraction=0.01,
    num_processes=None,
    runner=None,
    runner_arguments=(),
    tfds_data_dir=None,
):
    """Builds a data set, or finishes one whose building was broken off, or finds that it is whole.

    The same arguments give the same bytes, however many processes or workers build them, and one kind of them may
    finish what another began.

    Args:
        source: name of the source, as `sources.open_source` takes it.
        data_dir: folder for the shards; made where it is missing.
        image_px: shorter side of the stored images, in pixels.
        keep_aspect: whether the longer side is kept, up to four times the shorter, and not cut to the square in the
            middle, as in the paper. The statistics are of that square nevertheless.
        encoding, quality: "jpeg" of a quality from 1 to 95, "png", or "raw": bytes of pixels.
        num_train_shards, num_validation_shards: number of files of each split.
        validation_fraction, seed, tfds_data_dir: as `sources.open_source` takes them.
        max_bad_fraction: share of a split's images that may be unreadable before the building stops. They are
            skipped, and listed in dataset.json.
        num_processes: processes of this machine that build; None for one a core. 1 builds in this process.
        runner: None, or one of `RUNNERS`, whose workers build then. The images and `data_dir` must lie on a disk that
            every worker mounts under the same path.
        runner_arguments: strings, command-line arguments of Apache Beam's `PipelineOptions`.

    Returns: the `schema.DatasetDescription`.

    Raises:
        ValueError: where an argument is out of its range, Apache Beam is needed and missing, the folder holds another
            data set, or too many images are unreadable.
        OSError: where the folder can't be written.

    Source: section 2.
    """
    if encoding not in schema.ENCODINGS:
        raise ValueError(f"`encoding` must be one of {schema.ENCODINGS}. Received: encoding={encoding!r}")
    if not 1 <= quality <= 95:
        raise ValueError(f"`quality` must be from 1 to 95, the range Pillow gives a meaning to. Received: {quality}")
    if image_px < 1:
        raise ValueError(f"`image_px` must be at least 1. Received: image_px={image_px}")
    if runner is not None:
        if runner not in RUNNERS:
            raise ValueError(f"`runner` must be one of {RUNNERS}. Received: runner={runner!r}")
        if num_processes is not None:
            raise ValueError(f"`num_processes` must be None where a `runner` builds. Received: {num_processes}")
        try:
            from alexnet_tf.tfrecords import beam_pipeline
        except ImportError as error:
            raise ValueError(f"runner={runner!r} needs Apache Beam: pip install alexnet-tf[beam]") from error
    data_dir = pathlib.Path(data_dir).absolute()
    settings = {
        "source": source,
        "image_px": image_px,
        "keep_aspect": keep_aspect,
        "encoding": encoding,
        "quality": quality,
        "num_train_shards": num_train_shards,
        "num_validation_shards": num_validation_shards,
        "validation_fraction": validation_fraction,
        "seed": seed,
    }
    description = _finished(data_dir, settings)
    if description:
        return description
    opened = sources.open_source(source, seed, validation_fraction, tfds_data_dir)
    _delete_damaged(data_dir)  # not before it is known that it can be built again
    tasks = []
    for split, num_shards in (("train", num_train_shards), ("validation", num_validation_shards)):
        count = opened.count(split)
        if not 1 <= num_shards <= count:
            raise ValueError(
                f"`num_{split}_shards` must be from 1 to the number of {split} images, {count}. Received: {num_shards}"
            )
        bounds = [count * i // num_shards for i in range(num_shards + 1)]
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            path = data_dir / schema.shard_name(split, index, num_shards)
            tasks.append(shards.ShardTask(split, start, stop, path, image_px, keep_aspect, encoding, quality))
    _begin(data_dir, tasks, settings | {split: opened.count(split) for split in schema.SPLITS})
    if runner is None:
        sums = pool.build_shards(opened, tasks, max_bad_fraction, num_processes)
    else:
        sums = beam_pipeline.build_shards(opened, tasks, max_bad_fraction, runner, runner_arguments)
    return _finish(data_dir, opened, tasks, settings, sums)


def _finished(data_dir, settings):
    """The description of the data set that is already whole in the folder, or None."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return None
    description = schema.load_description(data_dir)
    _refuse_other_settings(data_dir, description.settings, settings)
    try:
        for split in description.splits.values():
            schema.check_shard_sizes(data_dir, split)
        statistics.Statistics.load(data_dir)
        try:
            records.load_index(data_dir, description)
        except ValueError as error:
            print(f"{error}. Making it anew from the shards.")
            records.rebuild_index(data_dir, description)
            records.load_index(data_dir, description)
    except (ValueError, tf.errors.DataLossError) as error:
        print(f"{error}. Building the data set again.")
        return None
    print(f"{data_dir} is whole: nothing to build.")
    return description


def _delete_damaged(data_dir):
    """Deletes a data set that `_finished` did not find whole."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return
    for split in schema.load_description(data_dir).splits.values():
        for shard in split.shards:
            (data_dir / shard.name).unlink(missing_ok=True)
    for name in _OF_ALL_SHARDS:
        (data_dir / name).unlink(missing_ok=True)
    (data_dir / schema.DATASET_FILE).unlink()


def _begin(data_dir, tasks, settings):
    """Makes the folder ready: nothing in it is of other settings, or half written, or somebody else's."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / _SETTINGS_FILE
    if path.exists():
        _refuse_other_settings(data_dir, json.loads(path.read_text()), settings)
        for unfinished in data_dir.glob(".tmp-*"):
            unfinished.unlink(missing_ok=True)
    else:
        for output in [task.path for task in tasks] + [data_dir / name for name in _OF_ALL_SHARDS]:
            if output.exists():
                raise ValueError(f"`data_dir` must not hold files of another origin. Received: {output} exists")
        schema.write_whole(path, lambda file: file.write(json.dumps(settings).encode()))


def _refuse_other_settings(data_dir, before, now):
    changed = [
        f"{name} was {before.get(name)!r} and is now {now[name]!r}" for name in now if before.get(name) != now[name]
    ]
    if changed:
        raise ValueError(
            f"{data_dir} holds a data set of other settings: {'; '.join(changed)}. "
            "Give another --data_dir, or delete that one."
        )


def _finish(data_dir, source, tasks, settings, sums):
    """Writes what is of all shards, dataset.json last, and returns the `schema.DatasetDescription`."""
    splits, record_bytes = {}, {}
    for split in schema.SPLITS:
        parts = [shards.load_part(task) for task in tasks if task.split == split]
        record_bytes[split] = [part["record_bytes"] for part in parts]
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
    statistics.Statistics.of(sums).save(data_dir)
    records.save_index(data_dir, record_bytes)
    description = schema.DatasetDescription(
        class_names=tuple(source.class_names),
        image_px=settings["image_px"],
        keep_aspect=settings["keep_aspect"],
        encoding=settings["encoding"],
        splits=splits,
        settings=settings,
    )
    description.save(data_dir)
    for task in tasks:
        task.part_path.unlink()
    (data_dir / _SETTINGS_FILE).unlink()
    return description


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "source",
        None,
        "Where the images come from: fashion_mnist (the sample in this package), fashion_mnist:installed or "
        "fashion_mnist:PATH (all of it), folder:PATH (one folder a class, or train and validation folders of such), "
        "tfds:NAME (TensorFlow Datasets, which downloads it), ilsvrc2012:PATH or ilsvrc2010:PATH (ImageNet's own "
        "archives, read where they lie).",
    )
    flags.DEFINE_string("data_dir", None, "Folder for the TFRecords.")
    flags.DEFINE_bool("verify", False, "Whether to check every image of the data set in --data_dir, and build nothing.")
    flags.DEFINE_string(
        "describe",
        None,
        "Folder of a data set to tell of, and build nothing: counts, classes and statistics are printed; a contact "
        "sheet, the mean image and samples of color noise are written into it.",
    )
    flags.DEFINE_integer("image_px", 256, "Shorter side of the stored images, in pixels.", lower_bound=1)
    flags.DEFINE_bool(
        "keep_aspect",
        False,
        "Whether to keep the longer side (up to four times the shorter), for crops from all of the image; the paper "
        "kept the square in the middle.",
    )
    flags.DEFINE_enum(
        "encoding",
        "jpeg",
        schema.ENCODINGS,
        "How images are stored. png is exact and several times larger; raw is exact, larger still, and not decoded.",
    )
    flags.DEFINE_integer("quality", 95, "Quality of the JPEGs.", lower_bound=1, upper_bound=95)
    flags.DEFINE_integer("num_train_shards", 16, "Files of training images; 1024 for ImageNet.", lower_bound=1)
    flags.DEFINE_integer("num_validation_shards", 4, "Files of validation images; 128 for ImageNet.", lower_bound=1)
    flags.DEFINE_float(
        "validation_fraction", 0.1, "Share of each class held out where the source has no validation images."
    )
    flags.DEFINE_integer("seed", 0, "Seed of the order of a folder's images, and of those held out.")
    flags.DEFINE_float(
        "max_bad_fraction",
        0.01,
        "Share of images that may be unreadable: a few damaged files of a collection pass, a wrong folder does not.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_integer("num_processes", None, "Processes that build; one a core by default.", lower_bound=1)
    flags.DEFINE_enum(
        "runner",
        None,
        RUNNERS,
        "Runner of Apache Beam (pip install alexnet-tf[beam]) whose workers build, for data sets past one machine. "
        "Without it processes of this machine do. All arguments after a bare -- go to Beam. The images and --data_dir "
        "must lie on a disk that every worker mounts under the same path.",
    )
    flags.DEFINE_string(
        "tfds_data_dir", None, "Where TensorFlow Datasets keeps its data; its own default if not given."
    )


def main(beam_arguments):
    if beam_arguments and not flags.FLAGS.runner:
        raise ValueError(
            f"The program takes flags only, unless --runner is given. Received: {' '.join(beam_arguments)}"
        )
    start_seconds = time.perf_counter()
    arguments = {flag.name: flag.value for flag in flags.FLAGS.get_flags_for_module(__name__)}
    folder, verified, _ = (arguments.pop(name) for name in ("describe", "verify", "debug"))
    if folder:
        print(describe.describe_dataset(folder))
        print("Written: " + ", ".join(map(str, describe.write_pictures(folder))))
        return
    if not arguments["data_dir"] or not (verified or arguments["source"]):
        raise ValueError(
            "--source and --data_dir say what to build and where; or --verify and --data_dir what to check; or "
            "--describe=DIR what to tell of."
        )
    if verified:
        problems = verify.verify_dataset(arguments["data_dir"])
        for problem in problems:
            print(problem, file=sys.stderr)
        print(
            f"{arguments['data_dir']}: {len(problems)} problems" if problems else f"{arguments['data_dir']} is whole."
        )
        sys.exit(1 if problems else 0)
    description = build_dataset(**arguments, runner_arguments=beam_arguments)
    seconds = time.perf_counter() - start_seconds
    for name, split in description.splits.items():
        print(f"{name}: {split.count:,} images in {len(split.shards)} shards, {len(split.skipped)} skipped")
        for filename, reason in split.skipped[:5]:
            print(f"  skipped: {filename} ({reason})")
    print(f"{len(description.class_names)} classes; {seconds:.1f} s. Written: {arguments['data_dir']}")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main, "[BEAM_ARGUMENT ...]")


if __name__ == "__main__":
    run()
