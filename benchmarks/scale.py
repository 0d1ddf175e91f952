"""Measures a training step on several workers and its parts: compute, and all-reduce of the gradients.

    python benchmarks/scale.py --workers=1,2,4

Starts that many workers on this machine; the counts alternate, and with several workers plain data parallelism and
--fc_parallel. For each prints the time of a complete step of the paper's network, what a worker sends in it and its
memory, and the time of compute only and of the all-reduce of 60,965,224 gradients, in float32 and in half precision.
"""

import contextlib
import json
import os
import pathlib
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from alexnet_tf import model
from alexnet_tf.distribution import local_workers, strategies, workers
from alexnet_tf.training import compilation, fc_parallel, optimizers

PARAMETERS = 60_965_224


def define_flags():
    flags.DEFINE_list("workers", ["1", "2", "4"], "Numbers of workers to compare.")
    flags.DEFINE_integer("images", 8, "Images per worker and step.")
    flags.DEFINE_integer("rounds", 3, "Number of rounds; the counts alternate within each.")
    flags.DEFINE_bool("core_each", False, "Whether each worker has one core alone, and one worker has one too.")
    flags.DEFINE_bool("all_reduce", True, "Whether the all-reduce is measured by itself too.")
    flags.DEFINE_string("report", None, "Where a worker writes its measurements. Set by this program.")
    flags.DEFINE_bool("split", False, "Whether it trains with --fc_parallel. Set by this program.")


def median_seconds(function, repeats=5):
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def bytes_sent():
    """What this process has sent over TCP, on Linux."""
    total = 0
    for file in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # which other kinds of files raise
            with socket.socket(fileno=os.dup(int(file.name))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            total += struct.unpack_from("Q", info, 120)[0]  # tcpi_bytes_acked of <linux/tcp.h>
    return total


def measure(images, split, core_each, with_all_reduce):
    """Returns this worker and a dict with the median seconds of a step and of its parts, megabytes sent and memory."""
    worker = workers.this_worker()
    if core_each:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[worker.number % len(cores)]})
    strategy = strategies.make_strategy("auto", worker)
    replicas = strategy.num_replicas_in_sync
    keras.utils.set_random_seed(0)
    with strategy.scope():
        alexnet = model.build_alexnet("paper")
        optimizer = optimizers.PaperMomentum(0.0)
        if split:
            trained, optimizer = fc_parallel.split(alexnet, optimizer, strategy, worker)
        else:
            trained = model.with_color_offset(alexnet, strategies.DistributedModel if replicas > 1 else keras.Model)
        compilation.compile_model(trained, optimizer, jit=False)
    generator = np.random.default_rng(worker.number)
    inputs = {
        "image": tf.constant(generator.integers(0, 256, (images, 224, 224, 3)), tf.uint8),
        "color_offset": tf.zeros((images, 3)),
    }
    labels = tf.constant(generator.integers(0, 1000, images), tf.int32)

    @tf.function
    def step():
        strategy.run(lambda: trained.train_step((inputs, labels)))

    @tf.function
    def compute():
        # The same without communication: forward and backward pass, and no update.
        def forward_backward():
            with tf.GradientTape() as tape:
                loss = trained.compute_loss(inputs, labels, trained(inputs, training=True))
            gradients = tape.gradient(loss, trained.trainable_weights)
            return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

        return strategy.run(forward_backward)

    step()
    before, repeats = bytes_sent(), 5
    measured = {"step, ms": 1000 * median_seconds(step, repeats)}
    measured["sent, MB"] = (bytes_sent() - before) / (repeats + 1) / 1e6
    measured["memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    measured["compute only, ms"] = 1000 * median_seconds(compute)
    for dtype in (tf.float32, tf.float16, tf.bfloat16) if with_all_reduce and not split else ():

        @tf.function
        def all_reduce(dtype=dtype):
            def per_replica():
                # Not constants, whose sum TensorFlow would compute in advance.
                gradients = [tf.fill([PARAMETERS // 16], tf.random.uniform(())) for _ in range(16)]
                reduced = [tf.cast(gradient, dtype) for gradient in gradients]
                if replicas > 1:
                    reduced = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, reduced)
                return tf.add_n([tf.reduce_sum(tf.cast(gradient, tf.float32)) for gradient in reduced])

            return strategy.run(per_replica)

        measured[f"all-reduce in {dtype.name}, ms"] = 1000 * median_seconds(all_reduce)
    return worker, measured


def measure_counts(runs, rounds, *others):
    """Returns a dict from each of the runs, (number of workers, whether split), to a list of one dict per round."""
    results = {run: [] for run in runs}
    for _ in range(rounds):
        for count, split in results:
            with tempfile.TemporaryDirectory() as folder:
                report = pathlib.Path(folder) / "report.json"
                command = [sys.executable, __file__, *others, f"--report={report}", f"--split={split}"]
                if local_workers.run_workers(command, count, max_restarts=0):
                    raise RuntimeError(f"One of {count} workers failed.")
                results[count, split].append(json.loads(report.read_text()))
    return results


def main(argv):
    del argv
    flag = flags.FLAGS
    if flag.report:
        worker, measured = measure(flag.images, flag.split, flag.core_each, flag.all_reduce)
        if worker.is_chief:
            pathlib.Path(flag.report).write_text(json.dumps(measured))
        return
    counts = [int(count) for count in flag.workers]
    runs = [(count, split) for count in counts for split in (False, True)[: 1 + (count > 1)]]
    results = measure_counts(runs, flag.rounds, *sys.argv[1:])
    parts = list(next(iter(results.values()))[0])
    print("| workers | " + " | ".join(parts) + " |")
    print("|---" * (len(parts) + 1) + "|")
    for (count, split), rounds in results.items():
        cells = []
        for part in parts:
            values = [measured[part] for measured in rounds if part in measured]
            cells.append(f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})" if values else "")
        print(f"| {count}{', split' * split} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    define_flags()
    app.run(main)
