"""Builds shards in the workers of a cluster, as a pipeline of Apache Beam, for data sets too large for one machine.

    alexnet-tfrecords --source=... --data_dir=... --runner=FlinkRunner -- --flink_master=host:8081 ...

The images and the data set's folder must be on a disk that every worker mounts under the same path, and this package
must be installed on every worker. On one machine use the pool of processes (pool.py): Beam's DirectRunner is for
testing a pipeline.
"""

import pickle
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.options import pipeline_options
from apache_beam.runners.runner import create_runner

from alexnet_tf import files
from alexnet_tf.tfrecords import schema, shards, sources, statistics

_BEAM_NAMES = {
    # Beam's DirectRunner would download another runner, Prism, which ignores --direct_num_workers and
    # --direct_running_mode. This is its fallback.
    "DirectRunner": "FnApiRunner",
    # Which Beam has, but does not find by its name.
    "DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner",
}


def check_runner(name: str) -> None:
    """Raises ValueError if Beam knows no runner of a name, or lacks what it needs."""
    try:
        create_runner(_BEAM_NAMES.get(name, name))
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"`runner` must be a runner of Apache Beam. Received: runner={name!r}: {error}") from error


def build_shards(
    source: sources.Source,
    tasks: list[shards.ShardTask],
    max_bad_fraction: float,
    runner: str,
    arguments: Sequence[str] = (),
) -> statistics.PixelSums:
    """Builds all shards. Stops when too many images are found to be unreadable.

    Args:
        source: the source of the images.
        tasks: the `shards.ShardTask`s. Their paths are absolute, since workers have other working folders.
        max_bad_fraction: see `shards.check_unreadable`.
        runner: name of Beam's runner, e.g. "FlinkRunner", or of a class, "package.module.Runner".
        arguments: command-line arguments of Beam's `PipelineOptions`.

    Returns: the `statistics.PixelSums` of the training images.

    Raises:
        ValueError: if too many images are unreadable.
        Exception: of a kind that depends on the runner, if the pipeline fails.
    """
    options = pipeline_options.PipelineOptions(list(arguments), runner=_BEAM_NAMES.get(runner, runner))
    pipeline = beam.Pipeline(options=options)
    # Through the shared disk: the listing of ImageNet is larger than the largest pipeline that Dataflow takes. What a
    # killed builder leaves of these files the next one deletes, like all that begins with `.tmp-`.
    source_path, sums_path = (tasks[0].path.with_name(f".tmp-beam-{name}") for name in ("source", "sums"))
    (
        pipeline
        | "Tasks" >> beam.Create(tasks)
        | "Spread" >> beam.Reshuffle()
        | "Build" >> beam.ParDo(_BuildShard(source_path, tasks, max_bad_fraction))
        | "Merge" >> beam.CombineGlobally(MergePixelSums(tasks[0].image_px))
        | "Save" >> beam.Map(_save, sums_path)
    )
    try:
        _save(source, source_path)
        state = pipeline.run().wait_until_finish()
        if state != "DONE":
            raise RuntimeError(f"The pipeline must end as DONE. It ended as {state}.")
        return pickle.loads(sums_path.read_bytes())
    except Exception:
        for split in schema.SPLITS:  # a runner buries this reason in its worker's traceback
            _check_unreadable(tasks, split, max_bad_fraction)
        raise
    finally:
        source_path.unlink(missing_ok=True)
        sums_path.unlink(missing_ok=True)


class MergePixelSums(beam.CombineFn):
    """Adds `statistics.PixelSums`. They are integers, so the result is the same in any order and grouping.

    Args:
        image_px: side of the images.
    """

    def __init__(self, image_px: int):
        self._image_px = image_px

    def create_accumulator(self):
        return statistics.PixelSums(self._image_px)

    def add_input(self, mutable_accumulator, element):
        mutable_accumulator.add(element)
        return mutable_accumulator

    def merge_accumulators(self, accumulators):
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.add(accumulator)
        return merged

    def extract_output(self, accumulator):
        return accumulator


class _BuildShard(beam.DoFn):
    """Builds the shard of a task. Yields the `statistics.PixelSums` of training images."""

    def __init__(self, source_path, tasks, max_bad_fraction):
        self._source_path, self._tasks, self._max_bad_fraction = source_path, tasks, max_bad_fraction

    def setup(self):
        shards.set_source(pickle.loads(self._source_path.read_bytes()))

    def process(self, task):
        shards.build_shard(task)
        sums = statistics.PixelSums(task.image_px)
        if shards.load_part(task, sums)["skipped"]:
            _check_unreadable(self._tasks, task.split, self._max_bad_fraction)
        Metrics.counter("alexnet_tf", "images").inc(task.stop - task.start)
        if task.split == "train":
            yield sums


def _check_unreadable(tasks, split, max_bad_fraction):
    """`shards.check_unreadable` for all shards that any worker has built so far."""
    built = [task for task in tasks if task.split == split and task.part_path.exists()]
    skipped = [image for task in built for image in shards.load_part(task)["skipped"]]
    shards.check_unreadable(tasks, split, skipped, max_bad_fraction)


def _save(value, path):
    files.write_atomically(path, lambda file: pickle.dump(value, file))
