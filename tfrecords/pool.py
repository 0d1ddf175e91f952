"""Builds shards in processes of this machine."""

import concurrent.futures
import multiprocessing
import os
import sys
import threading

from tqdm import tqdm

from alexnet_tf.tfrecords import shards, statistics


def build_shards(source, tasks, max_bad_fraction, num_processes=None):
    """Builds all shards, and stops as soon as too many images have turned out unreadable.

    Args:
        source: a source of images, as `sources.open_source` returns it.
        tasks: the `shards.ShardTask`s.
        max_bad_fraction: as `shards.refuse_unreadable` takes it.
        num_processes: processes that build; None for one a core. 1 builds in this process.

    Returns: the `statistics.PixelSums` of the training images.

    Raises:
        ValueError: where too many images are unreadable.
    """
    sums = statistics.PixelSums(tasks[0].image_px)
    skipped = {task.split: [] for task in tasks}

    def finish(task, bar):
        skipped[task.split] += shards.load_part(task, sums)["skipped"]
        bar.update(task.stop - task.start)
        shards.refuse_unreadable(tasks, task.split, skipped[task.split], max_bad_fraction)

    with tqdm(total=sum(task.stop - task.start for task in tasks), unit=" images", file=sys.stdout) as bar:
        if num_processes == 1:
            shards.set_source(source)
            for task in tasks:
                shards.build_shard(task)
                finish(task, bar)
            return sums
        # Spawned, not forked: a fork of a process that runs TensorFlow's threads can hang.
        context = multiprocessing.get_context("spawn")
        processes = min(num_processes or os.cpu_count(), len(tasks))
        with concurrent.futures.ProcessPoolExecutor(processes, context, _begin_process, (source,)) as pool:
            futures = {pool.submit(shards.build_shard, task): task for task in tasks}
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    finish(futures[future], bar)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return sums


def _begin_process(source):
    """Begins a process that builds shards. It ends when the builder dies, which one that waits for its next task would
    not notice."""
    shards.set_source(source)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
