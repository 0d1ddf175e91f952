"""Trains an AlexNet on TFRecords. Start the same command again to go on after a stop."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import sys
import zlib

import keras
import tensorflow as tf
from absl import flags

from alexnet_tf import convert, model, train_flags, variants
from alexnet_tf.distribution import local_workers, strategies
from alexnet_tf.tfrecords import program, reader, schema, service, statistics, verify
from alexnet_tf.training import callbacks, checkpoints, health_checks, loop, optimizers, schedules, tensorboard_logger


def main(arguments):
    flag = flags.FLAGS
    if flag.num_local_workers > 1 or flag.max_restarts:
        command = [sys.executable, "-m", "alexnet_tf.train", *sys.argv[1:], "--num_local_workers=1", "--max_restarts=0"]
        sys.exit(local_workers.run_workers(command, flag.num_local_workers, flag.max_restarts))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(local_workers.EXIT_STOPPED))  # as yet there is nothing to save
    tf.get_logger().setLevel("WARNING")  # of the strategies, which tell of every collective operation
    worker = strategies.this_worker()
    # One voice: the others only say what goes wrong.
    with (
        pathlib.Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(sys.stdout if worker.is_chief else nowhere),
    ):
        try:
            train(flag, worker)
        except callbacks.Stopped:
            print("\nAsked to stop. The same command goes on after the last checkpoint.")
            sys.exit(local_workers.EXIT_STOPPED)
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if len(worker.addresses) == 1:
                raise
            lost = strategies.lost_workers(error, worker)
            print(
                f"Worker {worker.number} stops: {', '.join(lost) or 'another worker'} is gone. Start all workers again "
                f"to go on after the last checkpoint. TensorFlow says: {error}",
                file=sys.stderr,
            )
            sys.stderr.flush()
            os._exit(local_workers.EXIT_WORKER_LOST)  # TensorFlow's own end would wait for the worker that is gone


def train(flag, worker):
    """Trains as the flags say, to the end of the last epoch.

    Args:
        flag: absl's values of the flags in train_flags.py.
        worker: the `strategies.Worker` that this process is.
    """
    layer_rates = train_flags.parse_layer_rates(flag.layer_rates)
    profile_steps = train_flags.parse_profile_steps(flag.profile_steps)
    color_noise_epochs = flag.color_noise_epochs
    if flag.schedule == "original":
        if layer_rates or flag.bias_rate != 1:
            raise ValueError("`bias_rate` and `layer_rates` can't be given with schedule=original, which sets them.")
        if color_noise_epochs is None:
            color_noise_epochs = schedules.ORIGINAL_COLOR_NOISE_EPOCHS
    if flag.data_service:
        service.check_reachable(flag.data_service)
    if flag.new_head and not flag.init_from:
        raise ValueError("`new_head` needs `init_from`: without it every layer begins anew.")

    strategy_name = "one" if flag.column_devices and flag.strategy == "auto" else flag.strategy
    strategy = strategies.make_strategy(strategy_name, worker)
    column_devices = loop.usable_column_devices(flag.column_devices, flag.allow_fewer_devices)
    jit = loop.use_jit(flag.jit, strategy, column_devices)
    run_dir = pathlib.Path(flag.run_dir)
    description = schema.load_description(flag.data_dir)
    left_out = []
    if flag.on_bad_record == "skip":
        description, left_out = verify.leave_out_damaged(flag.data_dir, description, flag.max_bad_records)
        for problem in left_out:
            print(f"Left out: {problem}")
    classes = len(description.class_names)
    steps = reader.steps_per_epoch(description, flag.batch_size)
    replicas = strategy.num_replicas_in_sync
    validation_steps = reader.evaluation_steps(description, flag.batch_size, all_replicas=replicas)
    image_px = variants.VARIANTS[flag.variant].image_px

    def training_data(first_step, share):
        epoch, step = divmod(first_step, steps)
        return reader.make_training_dataset(
            flag.data_dir,
            flag.batch_size,
            image_px,
            description=description,
            seed=flag.seed,
            color_noise=flag.color_noise,
            color_noise_epochs=color_noise_epochs,
            images_per_crop=flag.images_per_crop,
            last_offset=flag.last_crop_offset,
            start_epoch=epoch,
            start_step=step,
            share=share,
            data_service=flag.data_service,
            data_service_job=f"{number_of_this_start} {first_step}",
        )

    def validation_data(share):
        return reader.make_evaluation_dataset(
            flag.data_dir, flag.batch_size, image_px, description=description, share=share
        )

    validation_data(reader.Share())  # says now what is wrong with the data or the flags
    settings = {name: flag[name].value for name in train_flags.FIXED_FLAGS}
    settings |= {"source": description.settings["source"], "classes": classes, "steps_per_epoch": steps}
    settings |= {"workers": len(worker.addresses)}
    settings |= {"records_left_out": [f"{problem.path.name}, record {problem.record}" for problem in left_out]}
    checkpoints.refuse_foreign_folder(run_dir)
    checkpoints.refuse_changed_settings(run_dir, settings, flag.allow_changed)

    keras.utils.set_random_seed(flag.seed)
    keras.config.set_dtype_policy(flag.precision)
    with strategy.scope():
        source = model.open_model(flag.init_from) if flag.init_from else None
        alexnet = model.build_alexnet(
            flag.variant,
            classes,
            initializer=None if flag.initializer == "variant" else flag.initializer,
            # A network that learned on inputs of one scale goes on with them: it has its rates for them too.
            input_scale=source.get_layer("mean_image").scale if source and not flag.input_scale else flag.input_scale,
            column_devices=column_devices,
        )
        pixels = statistics.Statistics.load(flag.data_dir)
        alexnet.get_layer("mean_image").set_mean_image(pixels.mean(variants.VARIANTS[flag.variant].mean))
        for name in flag.freeze:
            loop.freeze(alexnet, name)
        training_model = model.with_color_offset(alexnet, strategies.DistributedModel if replicas > 1 else keras.Model)
        learning_rate = schedules.scale_learning_rate(flag.learning_rate, flag.scale_lr, flag.batch_size)
        rate = schedules.make_learning_rate(
            flag.schedule,
            learning_rate,
            flag.epochs * steps,
            flag.warmup_steps,
            flag.step_epochs and flag.step_epochs * steps,
        )
        if flag.optimizer == "lars":
            optimizer = optimizers.Lars(
                rate, flag.momentum, flag.weight_decay, flag.lars_trust, reduce_dtype=flag.reduce_in
            )
        else:
            optimizer = optimizers.PaperMomentum(rate, flag.momentum, flag.weight_decay, flag.reduce_in)
        confusion_matrix = loop.compile_model(training_model, optimizer, jit, flag.label_smoothing)
        optimizer.measure_gradients(always=jit)
        if source:
            try:
                convert.copy_weights(source, alexnet, flag.new_head)
            except ValueError as error:
                raise ValueError(f"The model of `init_from`, {flag.init_from}, does not fit: {error}") from error

    with contextlib.ExitStack() as stack:
        if worker.is_chief:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(checkpoints.sole_writer(run_dir))
            description.save(run_dir)
            pixels.save(run_dir)  # of the images that it learns, beside the model: where its mean and noise are from
        progress = checkpoints.restore_newest(run_dir, alexnet, training_model, publish=worker.is_chief)
        first_step = 0
        if progress:
            first_step = progress["step"]
            if progress["settings"]["steps_per_epoch"] != steps:  # then the same share of the run is behind
                first_step = first_step * steps // progress["settings"]["steps_per_epoch"]
                optimizer.iterations.assign(first_step)
        own = ("data_dir", "run_dir")  # a machine may have its own path to the same disk
        program_flags = flag.get_flags_for_module(train_flags.__name__)
        all_flags = {f.name: f.value for f in program_flags if f.name not in own}
        data = zlib.crc32(repr(dataclasses.astuple(description)).encode())
        agreed = all_flags | settings | {"checkpoint_step": first_step, "fingerprint_of_the_data": data}
        strategies.check_workers_agree(strategy, worker, agreed)
        number_of_this_start = strategies.number_of_this_start(strategy, worker)
        if flag.schedule != "original":
            optimizer.set_rate_multipliers({"bias": flag.bias_rate} | layer_rates)

        plateau = callbacks.DivideRateOnPlateau(flag.plateau_patience) if flag.schedule == "plateau" else None
        schedule = [plateau] if plateau else []
        if flag.schedule == "original":
            schedule = [callbacks.FollowOriginalSchedule(optimizer, learning_rate)]
        if plateau and progress and "schedule" in progress:
            plateau.state = progress["schedule"]
        validation_due = bool(progress and progress["validation_due"])
        finished = f"Trained to the end of epoch {flag.epochs}: {run_dir / 'model.keras'}"
        if first_step >= flag.epochs * steps and not validation_due:
            print(finished)
            return
        if progress:
            print(f"Going on after step {first_step}, in epoch {first_step // steps + 1}.")
        save_checkpoints = callbacks.SaveCheckpoints(
            run_dir, alexnet, flag.checkpoint_every_steps, settings, first_step, plateau, writes=worker.is_chief
        )
        with verify.naming_damaged_shards(flag.data_dir, description):
            input_clock = loop.InputClock()
            diaries = []
            if worker.is_chief:
                diaries = [
                    tensorboard_logger.Diary(
                        run_dir,
                        flag.log_every,
                        flag.batch_size,
                        first_step,
                        first_images=loop.network_inputs(training_data(0, reader.Share()), 8),
                        texts=loop.describe_run(description, len(left_out), program_flags),
                        class_names=description.class_names,
                        confusion_matrix=confusion_matrix,
                        hparams=train_flags.hparams(flag) | {"training_images": description.splits["train"].count},
                        input_clock=input_clock,
                        profile_steps=profile_steps,
                        records_left_out=len(left_out),
                    )
                ]
            print(
                f"Training {flag.variant}: {alexnet.count_params():,} parameters, {classes} classes, "
                f"{description.splits['train'].count:,} images, {steps} steps an epoch, {flag.epochs} epochs, "
                f"{replicas} replicas on {len(worker.addresses)} workers."
            )
            try:
                loop.fit(
                    training_model,
                    training_data,
                    validation_data,
                    first_step,
                    steps,
                    flag.epochs,
                    [health_checks.Alarms(classes), *schedule, *diaries, save_checkpoints],
                    validation_steps=validation_steps,
                    validation_due=validation_due,
                    worker=worker,
                    input_clock=input_clock,
                )
            except callbacks.Stopped:
                if save_checkpoints.has_begun:  # all stop together
                    strategies.check_workers_agree(strategy, worker, {"stopped": True})
                raise
            for each in diaries:
                each.finish(alexnet, validation_data(reader.Share()))
        # The chief may still be writing when the others are done: they wait, for it would see them as lost.
        strategies.check_workers_agree(strategy, worker, {"finished": True})
    print(finished)


def run():
    """Entry point, as a module and as a console script."""
    program.start(train_flags.__name__, train_flags.define_flags, main)


if __name__ == "__main__":
    run()
