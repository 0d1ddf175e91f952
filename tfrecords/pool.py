"""Builds shards in a pool of processes on this machine."""

import concurrent.futures
import multiprocessing
import sys

from tqdm import tqdm

from alexnet_tf.cpus import available_cpus
from alexnet_tf.processes import end_with_parent
from alexnet_tf.tfrecords import shards, sources


def build_shards(
    source: sources.Source,
    tasks: list[shards.ShardTask],
    max_bad_fraction: float,
    num_processes: int | None = None,
) -> None:
    """Builds all shards. Stops as soon as too many images are unreadable.

    Args:
        source: the source of the images.
        tasks: the `shards.ShardTask`s.
        max_bad_fraction: see `shards.check_unreadable`.
        num_processes: number of processes; None for one per available CPU. 1 builds in this process.

    Raises:
        ValueError: if too many images are unreadable.
        OSError: if processes can't be started.
    """
    skipped = {task.split: [] for task in tasks}

    def finish(task, bar):
        skipped[task.split] += shards.load_part(task)["skipped"]
        bar.update(task.stop - task.start)
        shards.check_unreadable(tasks, task.split, skipped[task.split], max_bad_fraction)

    with tqdm(total=sum(task.stop - task.start for task in tasks), unit=" images", file=sys.stdout) as bar:
        if num_processes == 1:
            shards.set_source(source)
            for task in tasks:
                shards.build_shard(task)
                finish(task, bar)
            return
        # Spawn, not fork: a fork of a process with TensorFlow's threads can hang.
        context = multiprocessing.get_context("spawn")
        processes = min(num_processes or available_cpus(), len(tasks))
        try:
            pool = concurrent.futures.ProcessPoolExecutor(processes, context, _initialize_process, (source,))
        except OSError as error:
            reason = f"{error.strerror} in /dev/shm, which several processes need. --num_processes=1 needs none"
            raise OSError(error.errno, reason) from error
        with pool:
            futures = {pool.submit(shards.build_shard, task): task for task in tasks}
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    finish(futures[future], bar)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _initialize_process(source):
    end_with_parent()  # a process that waits for a task does not notice that its parent is gone
    shards.set_source(source)
