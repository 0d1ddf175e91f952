"""Builds TFRecords of square images and their statistics. A second run resumes an interrupted one.

Examples:

    alexnet-tfrecords --source=folder:photos --data_dir=data/photos
    alexnet-tfrecords --source=ilsvrc2012:/downloads --data_dir=data/imagenet
    alexnet-tfrecords --data_dir=data/photos --verify
    alexnet-tfrecords --describe=data/photos
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from absl import flags

from alexnet_tf import cli, options
from alexnet_tf.tfrecords import record_format, schema, sources, storage
from alexnet_tf.tfrecords.build_config import BuildConfig

_IN_PLACE_FLAGS = ("source", "data_dir", "in_place", "image_px", "keep_aspect", "seed", *record_format.NAMES, "debug")


def define_flags() -> None:
    flags.DEFINE_string(
        "source",
        None,
        "Where the images come from: fashion_mnist (the sample in this package), fashion_mnist:installed or "
        "fashion_mnist:PATH (the complete data set), folder:PATH (one folder per class, or one folder per split with "
        "one per class), list:PATH (a text or CSV file of paths and labels), tfds:NAME (TensorFlow Datasets), "
        "tfrecords:PATH (third-party TFRecords), ilsvrc2012:PATH or ilsvrc2010:PATH (ImageNet's archives or folders), "
        "imagenet:PATH (a complete release of ImageNet, such as fall11_whole.tar).",
    )
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_bool("verify", False, "Only check every image of the data set in --data_dir.")
    flags.DEFINE_string(
        "describe",
        None,
        "Folder of a data set. Only print its counts, classes and statistics, and write a contact sheet, the mean "
        "image and examples of color noise into the folder.",
    )
    options.define_flags(BuildConfig)
    flags.DEFINE_float(
        "max_bad_fraction",
        0.01,
        "Maximum fraction of unreadable images in a split. Unreadable images are skipped and listed in dataset.json.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_integer("num_processes", None, "Number of processes. Default: one per CPU.", lower_bound=1)
    flags.DEFINE_string(
        "runner",
        None,
        "Build on a cluster with this Apache Beam runner (pip install --editable '.[beam]'): FlinkRunner, SparkRunner, "
        "DataflowRunner, DaskRunner, any other runner of Beam, or a class package.module.Runner. Arguments after -- "
        "are passed to Beam. Every worker must mount the images and --data_dir under the same path.",
    )
    flags.DEFINE_string("tfds_data_dir", None, "Folder where TensorFlow Datasets stores its data. Default: its own.")
    flags.DEFINE_bool(
        "in_place",
        False,
        "tfrecords: only index the records, JPEGs or PNGs of any size. --data_dir then contains the index and "
        "statistics, and images are cropped and resized when they are read.",
    )
    options.define_flags(record_format.RecordFormat)


def main(beam_arguments: list[str]) -> None:
    flag = flags.FLAGS
    given_format = _check_flags(flag, beam_arguments)
    # Import TensorFlow only after the flags are checked.
    from alexnet_tf.tfrecords import dataset_builder, describe, in_place, verify

    if flag.describe:
        print(describe.describe_dataset(flag.describe))
        print("Written: " + ", ".join(map(str, describe.write_pictures(flag.describe))))
        return
    if flag.verify:
        problems = verify.verify_dataset(flag.data_dir)
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{flag.data_dir}: {len(problems) or 'no'} problems")
        sys.exit(1 if problems else 0)
    start_seconds = time.perf_counter()
    config = options.read_flags(BuildConfig)
    arguments: dict[str, Any] = {"source": flag.source, "data_dir": flag.data_dir, "record_format": given_format}
    if flag.in_place:
        description = in_place.index_in_place(
            **arguments, image_px=config.image_px, keep_aspect=config.keep_aspect, seed=config.seed
        )
    else:
        for name in ("max_bad_fraction", "num_processes", "runner", "tfds_data_dir"):
            arguments[name] = flag[name].value
        description = dataset_builder.build_dataset(
            **arguments, runner_arguments=beam_arguments, **dataclasses.asdict(config)
        )
    seconds = time.perf_counter() - start_seconds
    for name, split in description.splits.items():
        print(f"{name}: {split.count:,} images in {len(split.shards)} shards, {len(split.skipped)} skipped")
        for filename, reason in split.skipped[:5]:
            print(f"  skipped: {filename!r} ({reason})")  # names that are not UTF-8 can't be printed as they are
    print(f"{len(description.class_names)} classes; {seconds:.1f} s. Written: {flag.data_dir}")


def _check_flags(flag: flags.FlagValues, beam_arguments: list[str]) -> Mapping[str, Any]:
    """Returns the record format. Raises ValueError if flags can't be combined, or the source does not exist."""
    if beam_arguments and not flag.runner:
        raise ValueError(f"Arguments without --NAME need --runner. Received: {' '.join(beam_arguments)}")
    if not flag.describe and not (flag.data_dir and (flag.verify or flag.source)):
        raise ValueError(
            "Give --source and --data_dir to build a data set, --verify and --data_dir to check one, or --describe=DIR "
            "to describe one."
        )
    for name in ("data_dir", "describe"):
        folder = flag[name].value or ""
        if storage.is_remote(folder) and not flag.verify:
            raise ValueError(cli.remote_path_error(name, folder))
    if flag.in_place:
        given = {each.name for each in flag.get_flags_for_module(__name__) if each.present}
        if others := given - set(_IN_PLACE_FLAGS):
            raise ValueError(f"--in_place builds nothing and can't be combined with --{', --'.join(sorted(others))}.")
    if not flag.source:
        return {}
    sources.parse_source(flag.source)
    if not (pathlib.Path(flag.data_dir or flag.describe) / schema.DATASET_FILE).exists():  # built ones need no source
        sources.check_exists(flag.source)
    return record_format.given_format(flag, "source")


def run() -> None:
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "[BEAM_ARGUMENT ...]")


if __name__ == "__main__":
    run()
