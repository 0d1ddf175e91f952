"""Measures a training step on several workers and its parts: compute, and all-reduce of the gradients.

    python benchmarks/scale.py --workers=1,2,4

Starts that many workers on this machine; the counts alternate. For each count prints the time of a complete step of the
paper's network, of compute only, and of the all-reduce of 60,965,224 gradients, in float32 and in half precision.
"""

import json
import pathlib
import statistics
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from alexnet_tf import model
from alexnet_tf.distribution import local_workers, strategies, workers
from alexnet_tf.training import compilation, optimizers

PARAMETERS = 60_965_224


def define_flags():
    flags.DEFINE_list("workers", ["1", "2", "4"], "Numbers of workers to compare.")
    flags.DEFINE_integer("images", 8, "Images per worker and step.")
    flags.DEFINE_integer("rounds", 3, "Number of rounds; the counts alternate within each.")
    flags.DEFINE_string("report", None, "Where a worker writes its measurements. Set by this program.")


def median_seconds(function, repeats=5):
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(images):
    """Returns this worker and a dict with the median seconds of a step and of its parts."""
    worker = workers.this_worker()
    strategy = strategies.make_strategy("auto", worker)
    replicas = strategy.num_replicas_in_sync
    keras.utils.set_random_seed(0)
    with strategy.scope():
        alexnet = model.build_alexnet("paper")
        trained = model.with_color_offset(alexnet, strategies.DistributedModel if replicas > 1 else keras.Model)
        compilation.compile_model(trained, optimizers.PaperMomentum(0.0), jit=False)
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

    seconds = {"step": median_seconds(step), "compute only": median_seconds(compute)}
    for dtype in (tf.float32, tf.float16, tf.bfloat16):

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

        seconds[f"all-reduce in {dtype.name}"] = median_seconds(all_reduce)
    return worker, seconds


def measure_counts(counts, images, rounds):
    """Returns a dict from number of workers to a list with the seconds of the parts, one dict per round."""
    results = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                report = pathlib.Path(folder) / "report.json"
                command = [sys.executable, __file__, f"--images={images}", f"--report={report}"]
                if local_workers.run_workers(command, count, max_restarts=0):
                    raise RuntimeError(f"One of {count} workers failed.")
                results[count].append(json.loads(report.read_text()))
    return results


def main(argv):
    del argv
    flag = flags.FLAGS
    if flag.report:
        worker, seconds = measure(flag.images)
        if worker.is_chief:
            pathlib.Path(flag.report).write_text(json.dumps(seconds))
        return
    results = measure_counts([int(count) for count in flag.workers], flag.images, flag.rounds)
    parts = list(next(iter(results.values()))[0])
    print("| workers | " + " | ".join(f"{part}, ms" for part in parts) + " |")
    print("|---" * (len(parts) + 1) + "|")
    for count, rounds in results.items():
        cells = []
        for part in parts:
            times = [1000 * seconds[part] for seconds in rounds]
            cells.append(f"{statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f})")
        print(f"| {count} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    define_flags()
    app.run(main)
