"""Trains an AlexNet on TFRecords. The same command resumes a run that was stopped.

Examples:

    alexnet-train --data_dir=data/imagenet --run_dir=runs/paper                          # as in the paper
    alexnet-train --flagfile=alexnet_tf/recipes/demo.flags --data_dir=folder:photos --run_dir=runs/scratch
    alexnet-train --init_from=torchvision --variant=one_weird_trick --new_head --freeze=conv1,conv2,conv3,conv4,conv5 \\
        --learning_rate=0.001 --batch_size=32 --epochs=10 --data_dir=folder:photos --run_dir=runs/photos
"""

import contextlib
import functools
import os
import pathlib
import signal
import sys

from alexnet_tf import cli, options
from alexnet_tf.distribution import local_workers, workers
from alexnet_tf.tfrecords import schema, sources
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.weights import hub, published


def main(arguments: list[str]) -> None:
    config = options.read_flags(TrainConfig)
    check_start(config)
    if config.num_local_workers > 1 or config.max_restarts:
        command = [sys.executable, "-m", "alexnet_tf.train", *sys.argv[1:], "--num_local_workers=1", "--max_restarts=0"]
        sys.exit(local_workers.run_workers(command, config.num_local_workers, config.max_restarts))
    worker = workers.this_worker()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(local_workers.EXIT_STOPPED))  # there is nothing to save yet
    # Only the chief prints; the other workers print only errors.
    with (
        pathlib.Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(sys.stdout if worker.is_chief else nowhere),
    ):
        _train(config, worker)


def _train(config, worker):
    """Trains to the end, or until this worker is stopped or another is lost, which have exit statuses of their own."""
    print(f"Training {config.variant} on {config.data_dir}: loading TensorFlow ...", flush=True)
    # Imported after the flags are checked, because it takes seconds.
    import tensorflow as tf

    from alexnet_tf.training import callbacks, procedure

    tf.get_logger().setLevel("WARNING")  # strategies report every collective operation
    try:
        procedure.train(config, worker)
    except callbacks.Stopped:
        print("\nStopped on request. The same command resumes after the last checkpoint.")
        sys.exit(local_workers.EXIT_STOPPED)
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,  # on a worker that is itself cut off from the network
    ) as error:
        if len(worker.addresses) == 1:
            raise
        lost = ", ".join(workers.lost_workers(error, worker)) or "another worker"
        print(
            f"Worker {worker.number} stops: {lost} is gone or can't be reached. Start all workers again to resume "
            f"after the last checkpoint. TensorFlow's error: {cli.reason(error)}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(local_workers.EXIT_WORKER_LOST)  # a normal exit would wait for the lost worker


def check_start(config: TrainConfig) -> None:
    """Raises ValueError if the weights or the data set are missing, or workers are missing or must not be several."""
    if config.init_from:
        _check_weights(config)
    num_workers = max(config.num_local_workers, len(workers.this_worker().addresses))
    if config.fc_parallel and num_workers < 2:
        raise ValueError(
            "`fc_parallel` needs several workers: in TF_CONFIG, started by SLURM, or on this machine by "
            f"--num_local_workers. Received: {num_workers}"
        )
    if not config.makes_data:
        schema.load_description(config.data_dir)
    elif config.data_service or num_workers > 1:
        raise ValueError(
            "For several workers or a data service, `data_dir` must first be made by alexnet-tfrecords. "
            f"Received: data_dir={config.data_dir}"
        )
    elif not (pathlib.Path(config.run_dir) / "data" / schema.DATASET_FILE).exists():  # not made yet
        sources.check_exists(config.data_dir)


def _check_weights(config):
    """Downloads published weights unless they are in the cache. Raises ValueError if they are missing or don't fit."""
    name = config.init_from
    if name not in published.PUBLISHED:
        hub.find_model(name)
        return
    row = published.PUBLISHED[name]
    if row.variant != config.variant:
        raise ValueError(
            f"`init_from={name}` needs `variant={row.variant}`, whose weights they are. Received: {config.variant}"
        )
    if not row.include_top and not config.new_head:
        raise ValueError(f"`init_from={name}` needs `new_head`: the weights are of the convolutions only.")
    published.fetch(name)


def run() -> None:
    """Entry point, as a module and as a console script."""
    cli.start(__name__, functools.partial(options.define_flags, TrainConfig), main)


if __name__ == "__main__":
    run()
