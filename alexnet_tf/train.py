"""Trains an AlexNet on TFRecords. The same command resumes a run that was stopped.

Examples:

    alexnet-train --data_dir=data/imagenet --run_dir=runs/paper                          # as in the paper
    alexnet-train --flagfile=alexnet_tf/recipes/demo.flags --data_dir=folder:photos --run_dir=runs/scratch
    alexnet-train --init_from=torchvision --variant=one_weird_trick --new_head --freeze=conv1,conv2,conv3,conv4,conv5 \\
        --learning_rate=0.001 --batch_size=32 --epochs=10 --data_dir=folder:photos --run_dir=runs/photos
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import sys

from alexnet_tf import cli
from alexnet_tf.distribution import local_workers, workers
from alexnet_tf.tfrecords import schema, sources
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.weights import hub, published


def main(arguments: list[str]) -> None:
    config = cli.read_flags(TrainConfig)
    check_start(config)
    if config.num_local_workers > 1 or config.max_restarts:
        command = [sys.executable, "-m", "alexnet_tf.train", *sys.argv[1:], "--num_local_workers=1", "--max_restarts=0"]
        sys.exit(local_workers.run_workers(command, config.num_local_workers, config.max_restarts))
    worker = workers.this_worker()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(local_workers.EXIT_STOPPED))  # there is nothing to save yet
    with contextlib.ExitStack() as stack:
        if not worker.is_chief:  # the chief prints for all
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(pathlib.Path(os.devnull).open("w"))))
        print(f"Training {config.variant} on {config.data_dir}: loading TensorFlow ...", flush=True)
        # Imported after the flags are checked, because it takes seconds.
        import tensorflow as tf

        from alexnet_tf.training import callbacks

        tf.get_logger().setLevel("WARNING")  # strategies report every collective operation
        try:
            train(config, worker)
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


def train(config: TrainConfig, worker: workers.Worker) -> None:
    """Trains to the end of the last epoch.

    Args:
        config: the run's configuration.
        worker: which worker this process is.
    """
    from alexnet_tf.distribution import strategies
    from alexnet_tf.model import count_parameters
    from alexnet_tf.networks import precision
    from alexnet_tf.tfrecords import data_service, verify
    from alexnet_tf.training import (
        build,
        cached_features,
        callbacks,
        checkpoints,
        fit,
        health_checks,
        initial_kernels,
        inputs,
        run_dir,
        schedules,
    )
    from alexnet_tf.training.devices import choose_devices
    from alexnet_tf.training.tensorboard_logger import TensorBoardLogger

    if config.data_service:
        data_service.check_reachable(config.data_service)
    devices = choose_devices(config, worker)
    # "auto" may mean another precision than that in which the run began: on another or a busy machine.
    begun_in = checkpoints.newest_settings(config.run_dir).get("precision") if config.precision == "auto" else None
    config = dataclasses.replace(config, precision=precision.choose(begun_in or config.precision))

    # Open the data.
    data = inputs.open_data(config)
    settings = run_dir.settings(config, data, worker)
    run_dir.check(config, settings)
    if config.data_service:
        data = dataclasses.replace(data, service_job=strategies.draw_launch_number(devices.strategy, worker))

    # Build.
    training = build.build_training(config, data, devices)

    with run_dir.opened(config.run_dir, data, writes=worker.is_chief):
        batches = data
        if config.cache_features:
            batches = cached_features.open_features(config.run_dir, data, training.network)

        # Restore.
        if worker.is_chief:
            initial_kernels.save_initial_kernels(config.run_dir, training.network.get_layer("conv1").kernels)
        start = checkpoints.restore(
            config.run_dir, training.network, training.model, settings, worker.is_chief, config.allow_changed
        )
        agreed = dataclasses.asdict(config) | settings | {"step": start.step}
        agreed |= {"data_dir": None, "run_dir": None}  # each machine may have its own paths
        strategies.check_workers_agree(devices.strategy, worker, agreed)
        schedule = schedules.start_schedule(config, training.optimizer, data.steps_per_epoch, start.step, start.plateau)
        best = callbacks.BestEpoch(config.early_stopping_epochs, start.best)
        epoch, steps_done = divmod(start.step, data.steps_per_epoch)
        ended = epoch >= config.epochs or (best.stops_after(epoch) and not steps_done)
        if ended and not start.validation_due:
            print(_describe_end(config, epoch, best))
            return
        if start.step:
            print(f"Resuming after step {start.step}, in epoch {epoch + 1}.")

        # Fit.
        print(
            f"Training {config.variant}: {count_parameters(training.network):,} parameters, {data.num_classes} "
            f"classes, {data.training_images:,} images, {data.steps_per_epoch} steps per epoch, {config.epochs} "
            f"epochs, {devices.describe()}. top1 and top5 are accuracies: 1 minus the error."
        )
        input_wait_timer = fit.InputWaitTimer()
        checks = health_checks.TrainingHealthChecks(config, data.description.splits["train"].count_per_class)
        saver = callbacks.SaveCheckpoints(config, training, settings, start.step, best, schedule, worker.is_chief)
        with verify.naming_damaged_shards(data.folder, data.description):
            logger = (
                TensorBoardLogger(config, training, data, start.step, input_wait_timer) if worker.is_chief else None
            )
            in_order = [checks, schedule, best, logger, saver]
            fit.fit(training.model, batches, start, config.epochs, in_order, worker, input_wait_timer)
            if logger:
                logger.finish()
        # The chief may still be writing. The others wait, because it would report them as lost.
        strategies.check_workers_agree(devices.strategy, worker, {"finished": True})
    print(_describe_end(config, saver.step // data.steps_per_epoch, best))
    if advice := checks.advice():
        print(advice)


def _describe_end(config, epoch, best):
    model = pathlib.Path(config.run_dir) / "model.keras"
    if epoch < config.epochs:
        return f"Stopped early, after epoch {epoch}: {model}\n{best.describe()}"
    return f"Trained to the end of epoch {epoch}: {model}" + (f"\n{best.describe()}" if config.keep_best else "")


def run() -> None:
    """Entry point, as a module and as a console script."""
    cli.start(__name__, functools.partial(cli.define_flags, TrainConfig), main)


if __name__ == "__main__":
    run()
