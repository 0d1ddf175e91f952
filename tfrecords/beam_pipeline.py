"""Builds shards on a cluster with Apache Beam.

    alexnet-tfrecords --source=... --data_dir=... --runner=FlinkRunner -- --flink_master=host:8081 ...

Every worker must mount the images and the folder of the data set under the same path, and have this package installed.
On one machine, the pool of processes (pool.py) is faster; Beam's DirectRunner is for testing.
"""

import pickle
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.options import pipeline_options
from apache_beam.runners.runner import create_runner

from alexnet_tf import files
from alexnet_tf.tfrecords import shards, sources

_BEAM_NAMES = {
    # Beam's DirectRunner downloads another runner, Prism, which ignores --direct_num_workers and --direct_running_mode.
    "DirectRunner": "FnApiRunner",
    # Part of Beam, but not found by its name.
    "DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner",
}


def check_runner(name: str) -> None:
    """Raises ValueError if Beam has no runner with this name, or the runner can't be imported."""
    try:
        create_runner(_BEAM_NAMES.get(name, name))
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"`runner` must be an Apache Beam runner. Received: runner={name!r}: {error}") from error


def build_shards(
    source: sources.Source,
    tasks: list[shards.ShardTask],
    max_bad_fraction: float,
    runner: str,
    arguments: Sequence[str] = (),
) -> None:
    """Builds all shards, whose paths must be absolute. Stops when too many images are unreadable.

    Args:
        source: the source of the images.
        tasks: the `shards.ShardTask`s.
        max_bad_fraction: see `shards.check_unreadable`.
        runner: name of a Beam runner, such as "FlinkRunner", or of a class, "package.module.Runner".
        arguments: command-line arguments for Beam's `PipelineOptions`.

    Raises:
        ValueError: if too many images are unreadable.
        Exception: one of many types, depending on the runner, if the pipeline fails.
    """
    options = pipeline_options.PipelineOptions(list(arguments), runner=_BEAM_NAMES.get(runner, runner))
    pipeline = beam.Pipeline(options=options)
    # The source goes through the shared disk: the file list of ImageNet exceeds Dataflow's maximum pipeline size. If
    # this process is killed, the next build deletes the file, because its name starts with `.tmp-`.
    source_path = tasks[0].path.with_name(".tmp-beam-source")
    _ = (
        pipeline
        | "Tasks" >> beam.Create(tasks)
        | "Spread" >> beam.Reshuffle()
        | "Build" >> beam.ParDo(_BuildShard(source_path, tasks, max_bad_fraction))
    )
    try:
        files.write_atomically(source_path, lambda file: pickle.dump(source, file))
        state = pipeline.run().wait_until_finish()
        if state != "DONE":
            raise RuntimeError(f"The Beam pipeline failed. Its final state is {state}.")
    except Exception:
        for split in dict.fromkeys(task.split for task in tasks):  # runners hide this reason in a worker's traceback
            _check_unreadable(tasks, split, max_bad_fraction)
        raise
    finally:
        source_path.unlink(missing_ok=True)


class _BuildShard(beam.DoFn):
    def __init__(self, source_path, tasks, max_bad_fraction):
        self._source_path, self._tasks, self._max_bad_fraction = source_path, tasks, max_bad_fraction

    def setup(self):
        shards.set_source(pickle.loads(self._source_path.read_bytes()))

    def process(self, task):
        shards.build_shard(task)
        if shards.load_part(task)["skipped"]:
            _check_unreadable(self._tasks, task.split, self._max_bad_fraction)
        Metrics.counter("alexnet_tf", "images").inc(task.stop - task.start)


def _check_unreadable(tasks, split, max_bad_fraction):
    """`shards.check_unreadable` for all shards that are built so far."""
    built = [task for task in tasks if task.split == split and task.part_path.exists()]
    skipped = [image for task in built for image in shards.load_part(task)["skipped"]]
    shards.check_unreadable(tasks, split, skipped, max_bad_fraction)
