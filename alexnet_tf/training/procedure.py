"""A training run, from its data to the end of its last epoch."""

import dataclasses
import pathlib

from alexnet_tf.distribution import strategies, workers
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
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.training.devices import choose_devices
from alexnet_tf.training.tensorboard_logger import TensorBoardLogger


def train(config: TrainConfig, worker: workers.Worker) -> None:
    """Trains to the end of the last epoch.

    Args:
        config: the run's configuration.
        worker: which worker this process is.
    """
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
    compiled = build.compile_network(config, data, devices)

    with run_dir.opened(config.run_dir, data, writes=worker.is_chief):
        batches = data
        if config.cache_features:
            batches = cached_features.open_features(config.run_dir, data, compiled.network)

        # Restore.
        if worker.is_chief:
            initial_kernels.save_initial_kernels(config.run_dir, compiled.network.get_layer("conv1").kernels)
        start = checkpoints.restore(
            config.run_dir, compiled.network, compiled.training_model, settings, worker.is_chief, config.allow_changed
        )
        agreed = dataclasses.asdict(config) | settings | {"step": start.step}
        agreed |= {"data_dir": None, "run_dir": None}  # each machine may have its own paths
        strategies.check_workers_agree(devices.strategy, worker, agreed)
        schedule = schedules.start_schedule(config, compiled.optimizer, data.steps_per_epoch, start.step, start.plateau)
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
            f"Training {config.variant}: {count_parameters(compiled.network):,} parameters, {data.num_classes} "
            f"classes, {data.training_images:,} images, {data.steps_per_epoch} steps per epoch, {config.epochs} "
            f"epochs, {devices.describe()}. top1 and top5 are accuracies: 1 minus the error."
        )
        input_wait_timer = fit.InputWaitTimer()
        checks = health_checks.TrainingHealthChecks(config, data.description.splits["train"].count_per_class)
        saver = callbacks.SaveCheckpoints(config, compiled, settings, start.step, best, schedule, worker.is_chief)
        with verify.naming_damaged_shards(data.folder, data.description):
            logger = (
                TensorBoardLogger(config, compiled, data, start.step, input_wait_timer) if worker.is_chief else None
            )
            in_order = [checks, schedule, best, logger, saver]
            fit.fit(compiled.training_model, batches, start, config.epochs, in_order, worker, input_wait_timer)
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
