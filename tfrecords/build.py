"""Builds TFRecords of 256 x 256 images, and their statistics, from images. A second run resumes the first."""

import sys
import time
from typing import Any

from absl import flags

from alexnet_tf import cli
from alexnet_tf.tfrecords import images, schema, sources, storage

_OF_THE_INDEX = ("source", "data_dir", "in_place", "image_px", "keep_aspect", "seed")  # flags that --in_place has


def define_flags() -> None:
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "source",
        None,
        "Where the images come from: fashion_mnist (the sample in this package), fashion_mnist:installed or "
        "fashion_mnist:PATH (the complete set), folder:PATH (one folder per class, or folders train and validation or "
        "test of such), tfds:NAME (TensorFlow Datasets, which downloads it), tfrecords:PATH (TFRecord files of others, "
        "of TensorFlow's ImageNet scripts, say), ilsvrc2012:PATH or ilsvrc2010:PATH "
        "(ImageNet's original archives, which are not unpacked).",
    )
    flags.DEFINE_string("data_dir", None, "Folder for the TFRecords.")
    flags.DEFINE_bool("verify", False, "Check every image of the data set in --data_dir; build nothing.")
    flags.DEFINE_string(
        "describe",
        None,
        "Folder of a data set to describe; build nothing. Prints counts, classes and statistics; writes a contact "
        "sheet, the mean image and samples of color noise into the folder.",
    )
    flags.DEFINE_integer("image_px", 256, "Shorter side of the stored images, in pixels.", lower_bound=1)
    flags.DEFINE_bool(
        "keep_aspect",
        False,
        "Whether to keep the longer side (up to four times the shorter), for crops from the complete image; the paper "
        "kept the central square.",
    )
    flags.DEFINE_enum(
        "resize",
        "crop",
        schema.RESIZES,
        "How images become squares. crop: the central square, as in the paper; warp: both sides are resized, whatever "
        "the aspect, as Caffe's tools do. A network is served as its data set was built.",
    )
    flags.DEFINE_enum(
        "encoding",
        "jpeg",
        schema.ENCODINGS,
        "How images are stored. png is exact and several times larger; raw is exact, larger still, and not decoded.",
    )
    flags.DEFINE_integer("quality", 95, "Quality of the JPEGs.", lower_bound=1, upper_bound=95)
    flags.DEFINE_bool(
        "exif_orientation",
        True,
        "Whether to turn images upright, as their EXIF tag Orientation says. Data sets built before version 0.2 were "
        "built without; a network is served as its data set was built.",
    )
    flags.DEFINE_integer(
        "max_pixels",
        images.MAX_PIXELS,
        "Pixels that an image may have: a small file can be gigabytes when it is decoded.",
        lower_bound=1,
    )
    for split, least in (("train", 16), ("validation", 4)):
        flags.DEFINE_integer(
            f"num_{split}_shards",
            None,
            f"Files of {split} images; by default one for every 1,000 images, but at least {least} if there are as "
            "many images.",
            lower_bound=1,
        )
    flags.DEFINE_float(
        "validation_fraction", 0.1, "Fraction of each class held out if the source has no validation images."
    )
    flags.DEFINE_integer("seed", 0, "Seed of the order of a folder's images and of the choice of those held out.")
    flags.DEFINE_float(
        "max_bad_fraction",
        0.01,
        "Fraction of images that may be unreadable: a few damaged files are skipped, a wrong folder is an error.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Processes that build; by default one per CPU available.", lower_bound=1
    )
    flags.DEFINE_string(
        "runner",
        None,
        "Apache Beam runner (pip install alexnet-tf[beam]) whose workers build, for data sets too large for one "
        "machine: FlinkRunner, SparkRunner, DataflowRunner, DaskRunner, or any other that Beam knows, or a class, "
        "package.module.Runner; by default processes of this machine build. Arguments after a bare -- are passed to "
        "Beam. The images and --data_dir must be on a disk that every worker mounts under the same path.",
    )
    flags.DEFINE_string(
        "tfds_data_dir", None, "Folder in which TensorFlow Datasets keeps its data; its own default if not given."
    )
    flags.DEFINE_bool(
        "in_place",
        False,
        "tfrecords: whether the records stay where they are, JPEG or PNG of any size; --data_dir is then an index of "
        "them, with statistics, for alexnet-train and the others. Images are cropped and resized when they are read.",
    )
    cli.define_record_format()


def main(beam_arguments: list[str]) -> None:
    flag = flags.FLAGS
    if beam_arguments and not flag.runner:
        raise ValueError(
            f"The program takes flags only, unless --runner is given. Received: {' '.join(beam_arguments)}"
        )
    if not flag.describe and not (flag.data_dir and (flag.verify or flag.source)):
        raise ValueError(
            "Give --source and --data_dir to build a data set, --verify and --data_dir to check one, or --describe=DIR "
            "to describe one."
        )
    for name in ("data_dir", "describe"):
        folder = flag[name].value or ""
        if storage.is_remote(folder) and not flag.verify:
            raise ValueError(cli.remote_path_error(name, folder))
    record_format = {}
    if flag.source:
        sources.parse_source(flag.source)
        record_format = cli.record_format(flag, "source")
    if flag.in_place:
        given = {each.name for each in flag.get_flags_for_module(__name__) if each.present}
        if others := given - {*_OF_THE_INDEX, *record_format, "debug"}:
            raise ValueError(f"--in_place builds nothing, and can't be given with --{', --'.join(sorted(others))}.")
    # Imports TensorFlow: not before the flags are known to be right.
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
    arguments: dict[str, Any] = {each.name: each.value for each in flag.get_flags_for_module(__name__)}
    if flag.in_place:
        of_the_index = {name: arguments[name] for name in _OF_THE_INDEX if name != "in_place"}
        description = in_place.index_in_place(**of_the_index, record_format=record_format)
    else:
        for name in ("describe", "verify", "debug", "in_place", *cli.RECORD_FORMAT):
            arguments.pop(name, None)
        description = dataset_builder.build_dataset(
            **arguments, runner_arguments=beam_arguments, record_format=record_format
        )
    seconds = time.perf_counter() - start_seconds
    for name, split in description.splits.items():
        print(f"{name}: {split.count:,} images in {len(split.shards)} shards, {len(split.skipped)} skipped")
        for filename, reason in split.skipped[:5]:
            print(f"  skipped: {filename!r} ({reason})")  # names that are not UTF-8 can't be printed as they are
    print(f"{len(description.class_names)} classes; {seconds:.1f} s. Written: {flag.data_dir}")


def run() -> None:
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "[BEAM_ARGUMENT ...]")


if __name__ == "__main__":
    run()
