"""Trains an AlexNet on TFRecords. The same command again resumes a run that was stopped."""

import contextlib
import os
import pathlib
import signal
import sys

from absl import flags

from alexnet_tf import cli, train_flags
from alexnet_tf.distribution import local_workers, workers
from alexnet_tf.train_flags import given


def main(arguments: list[str]) -> None:
    flag = flags.FLAGS
    train_flags.check_flags(flag)
    if flag.num_local_workers > 1 or flag.max_restarts:
        command = [sys.executable, "-m", "alexnet_tf.train", *sys.argv[1:], "--num_local_workers=1", "--max_restarts=0"]
        sys.exit(local_workers.run_workers(command, flag.num_local_workers, flag.max_restarts))
    worker = workers.this_worker()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(local_workers.EXIT_STOPPED))  # as yet there is nothing to save
    with contextlib.ExitStack() as stack:
        if not worker.is_chief:  # whose output is that of all
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(pathlib.Path(os.devnull).open("w"))))
        print(f"Training {flag.variant} on {flag.data_dir}: loading TensorFlow ...", flush=True)
        # After the flags were checked, since it takes seconds.
        import tensorflow as tf

        from alexnet_tf.training import callbacks

        tf.get_logger().setLevel("WARNING")  # of the strategies, which report every collective operation
        try:
            train(flag, worker)
        except callbacks.Stopped:
            print("\nStopped on request. The same command resumes after the last checkpoint.")
            sys.exit(local_workers.EXIT_STOPPED)
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,  # of a worker that is itself cut off from the network
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
            os._exit(local_workers.EXIT_WORKER_LOST)  # TensorFlow's own end would wait for the worker that is gone


def train(flag: flags.FlagValues, worker: workers.Worker) -> None:
    """Trains to the end of the last epoch.

    Args:
        flag: the values of the flags.
        worker: which worker this process is.
    """
    from alexnet_tf.distribution import strategies
    from alexnet_tf.networks import precision
    from alexnet_tf.tfrecords import data_service, reader, verify
    from alexnet_tf.training import callbacks, checkpoints, experiment, fit, health_checks, inputs
    from alexnet_tf.training.devices import choose_devices

    if flag.data_service:
        data_service.check_reachable(flag.data_service)
    devices = choose_devices(
        worker, **given(flag, "strategy", "column_devices", "allow_fewer_devices", "jit", "fc_parallel")
    )
    flag.precision = precision.choose(flag.precision)  # a run resumes in what it began with, not in what "auto" is here
    data = _open_data(flag)
    validation_data = inputs.validation_input(data)
    settings = given(flag, *train_flags.FIXED_FLAGS, *train_flags.NOTED_FLAGS) | data.settings
    settings |= {"workers": len(worker.addresses)}
    run_dir, chief = pathlib.Path(flag.run_dir), worker.is_chief
    checkpoints.check_run_dir(run_dir, settings, train_flags.may_change(flag), flag.allow_changed)
    training = build_training(flag, devices, data)

    with experiment.open_run_dir(run_dir, data, writes=chief):
        start = _restore(flag, worker, devices, data, training, settings)
        layer_rates = train_flags.parse_layer_rates(flag.layer_rates)
        experiment.set_rate_multipliers(training, layer_rates, **given(flag, "schedule", "bias_rate"))
        finished = f"Trained to the end of epoch {flag.epochs}: {run_dir / 'model.keras'}"
        if start.step >= flag.epochs * data.steps_per_epoch and not start.validation_due:
            print(finished)
            return
        if start.resumed:
            print(f"Resuming after step {start.step}, in epoch {start.step // data.steps_per_epoch + 1}.")
        training_data = _training_input(flag, worker, devices, data, start)
        schedule = experiment.make_schedule_callback(
            training, start.plateau, **given(flag, "schedule", "plateau_patience")
        )
        save_checkpoints = callbacks.SaveCheckpoints(
            run_dir, training.network, flag.checkpoint_every_steps, settings, start.step, schedule, chief
        )
        input_clock = fit.InputClock()
        with verify.naming_damaged_shards(data.folder, data.description):
            logger = experiment.make_logger(
                run_dir,
                training,
                data,
                training_data,
                start.step,
                input_clock,
                log_every=flag.log_every,
                writes=chief,
                **train_flags.of_the_log(flag, data.training_images),
            )
            print(experiment.describe(devices, data, training, **given(flag, "variant", "epochs")))
            fit.fit(
                training.model,
                training_data,
                validation_data,
                start.step,
                data.steps_per_epoch,
                flag.epochs,
                [health_checks.TrainingHealthChecks(data.classes), schedule, logger, save_checkpoints],
                validation_steps=data.validation_steps(devices.replicas),
                validation_due=start.validation_due,
                worker=worker,
                input_clock=input_clock,
            )
            if logger:
                logger.finish(training.network, validation_data(reader.Share()))
        # The chief may still be writing when the others are done: they wait, since it would see them as lost.
        strategies.check_workers_agree(devices.strategy, worker, {"finished": True})
    print(finished)


def _open_data(flag):
    """Opens the data set, which is made first if --data_dir names a source of images; prints what is skipped."""
    from alexnet_tf.training import inputs

    if train_flags.is_source(flag):
        record_format = cli.record_format(flag, "data_dir")
        flag.data_dir = str(inputs.make_data(flag.data_dir, flag.run_dir, flag.variant, record_format))
    data = inputs.open_data(flag.data_dir, **given(flag, "variant", "batch_size", "on_bad_record", "max_bad_records"))
    for problem in data.skipped:
        print(f"Skipped: {problem}")
    return data


def _training_input(flag, worker, devices, data, start):
    from alexnet_tf.distribution import strategies
    from alexnet_tf.training import inputs

    return inputs.training_input(
        data,
        start_number=strategies.number_of_this_start(devices.strategy, worker),
        **given(flag, "seed", "schedule", "color_noise", "color_noise_epochs", "images_per_crop"),
        **given(flag, "last_crop_offset", "data_service"),
        **train_flags.random_crop(flag),
    )


def _restore(flag, worker, devices, data, training, settings):
    """Restores the newest checkpoint on all workers, which must have the same flags, data and checkpoint."""
    from alexnet_tf.distribution import strategies
    from alexnet_tf.training import experiment, initial_kernels

    if worker.is_chief:
        initial_kernels.save_initial_kernels(flag.run_dir, training.network.get_layer("conv1").kernels)
    start = experiment.restore(pathlib.Path(flag.run_dir), training, settings, worker.is_chief, flag.allow_changed)
    # A machine may have its own path to the same disk.
    shared = [each.name for each in train_flags.own_flags(flag) if each.name not in ("data_dir", "run_dir")]
    agreed = given(flag, *shared) | settings | {"step": start.step, "data": data.fingerprint}
    strategies.check_workers_agree(devices.strategy, worker, agreed)
    return start


def build_training(flag, devices, data):
    """Builds the network and its optimizer, ready to train, and the same ones for the same seed."""
    import keras

    from alexnet_tf.training import experiment, schedules

    learning_rate = schedules.scale_learning_rate(flag.learning_rate, flag.scale_lr, flag.batch_size)
    keras.utils.set_random_seed(flag.seed)
    keras.config.set_dtype_policy(flag.precision)
    with devices.strategy.scope():
        network = experiment.build_network(
            data,
            column_devices=devices.column_devices,
            **given(flag, "variant", "initializer", "input_scale", "init_from", "new_head", "freeze"),
        )
        optimizer = experiment.make_optimizer(
            learning_rate=learning_rate,
            steps_per_epoch=data.steps_per_epoch,
            **given(flag, "optimizer", "schedule", "epochs", "warmup_steps", "step_epochs"),
            **given(flag, "momentum", "weight_decay", "decay_biases", "lars_trust", "reduce_in"),
        )
        return experiment.compile_training(
            network, optimizer, devices, learning_rate=learning_rate, **given(flag, "label_smoothing")
        )


def run() -> None:
    """Entry point, as a module and as a console script."""
    cli.start(train_flags.__name__, train_flags.define_flags, main)


if __name__ == "__main__":
    run()
