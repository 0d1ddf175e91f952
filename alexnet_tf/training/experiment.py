"""A training run in steps, each a function of plain values: what a flag of alexnet-train does is seen by calling one.

alexnet_tf/train.py calls them in this order, with those of inputs.py between them, and ends with `fit.fit`.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from alexnet_tf import model
from alexnet_tf.distribution import strategies
from alexnet_tf.figures import activations, kernels
from alexnet_tf.networks import variants
from alexnet_tf.tfrecords import reader
from alexnet_tf.training import (
    callbacks,
    checkpoints,
    compilation,
    fc_parallel,
    initial_kernels,
    optimizers,
    schedules,
    summaries,
)
from alexnet_tf.training.devices import Devices
from alexnet_tf.training.fit import InputClock
from alexnet_tf.training.gradient_norms import GradientNorms
from alexnet_tf.training.inputs import Data
from alexnet_tf.training.metrics import ConfusionMatrix
from alexnet_tf.training.tensorboard_logger import TensorBoardLogger
from alexnet_tf.weights import transfer


def build_network(
    data: Data,
    *,
    variant: str,
    initializer: str,
    input_scale: float | None,
    init_from: str | None,
    new_head: bool,
    freeze: Sequence[str],
    column_devices: list[str] | None,
) -> keras.Model:
    """Builds the network, with the mean image of its data and its initial weights.

    Args:
        data: from `inputs.open_data`.
        variant: a key of `variants.VARIANTS`.
        initializer: "variant" for the variant's own, or a Keras initializer such as "he_normal".
        input_scale: what centered pixels are multiplied by; None for that of `init_from` or else the variant's own.
        init_from: None, or a model whose weights it begins with, its mean image too: as `model.open_model` takes it.
        new_head: whether the classifier keeps its own initial weights nevertheless.
        freeze: names of layers whose weights stay as they are.
        column_devices: None, or a TensorFlow device name for each column.

    Returns: a model from pixels to probabilities.

    Raises:
        ValueError: if an argument is out of its range, or the model of `init_from` does not fit.
    """
    source = model.open_model(init_from) if init_from else None
    if source is not None and input_scale is None:
        # A network trained on inputs of one scale keeps it: its learning rates belong to it.
        input_scale = source.get_layer("mean_image").scale
    network = model.build_alexnet(
        variant,
        data.classes,
        initializer=None if initializer == "variant" else initializer,
        input_scale=input_scale,
        column_devices=column_devices,
    )
    network.get_layer("mean_image").set_mean_image(data.statistics.mean(variants.VARIANTS[variant].mean))
    if source is not None:
        try:
            transfer.copy_weights(source, network, new_head)
        except ValueError as error:
            raise ValueError(f"The model of `init_from`, {init_from}, does not fit: {error}") from error
    for name in freeze:
        compilation.freeze(network, name)
    return network


def make_optimizer(
    *,
    optimizer: str,
    learning_rate: float,
    schedule: str,
    steps_per_epoch: int,
    epochs: int,
    warmup_steps: int,
    step_epochs: int | None,
    momentum: float,
    weight_decay: float,
    lars_trust: float,
    reduce_in: str,
    decay_biases: bool = False,
) -> optimizers.PaperMomentum:
    """Makes the update rule with its learning rate.

    Args:
        optimizer: "momentum" for the paper's rule, or "lars".
        learning_rate, schedule, warmup_steps: as `schedules.make_learning_rate` takes them.
        steps_per_epoch, epochs: the steps in an epoch, and the epochs in the complete run.
        step_epochs: epochs between two divisions of the schedule "step", otherwise None.
        momentum, weight_decay, lars_trust, reduce_in, decay_biases: as `optimizers.Lars` takes them.

    Raises:
        ValueError: if an argument is out of its range.
    """
    steps_per_division = None if step_epochs is None else step_epochs * steps_per_epoch
    rate = schedules.make_learning_rate(
        schedule, learning_rate, epochs * steps_per_epoch, warmup_steps, steps_per_division
    )
    if optimizer == "lars":
        return optimizers.Lars(
            rate, momentum, weight_decay, lars_trust, reduce_dtype=reduce_in, decay_biases=decay_biases
        )
    return optimizers.PaperMomentum(rate, momentum, weight_decay, reduce_in, decay_biases=decay_biases)


@dataclasses.dataclass(frozen=True)
class Training:
    """A network that is ready to train.

    Attributes:
        network: from pixels to probabilities.
        model: the compiled model that takes color noise as well and shares the network's layers.
        optimizer: what updates the weights.
        learning_rate: what its schedule begins with, or rises to.
        confusion_matrix: None, or the metric that counts.
        gradient_norms: of the optimizer's updates.
    """

    network: keras.Model
    model: keras.Model
    optimizer: optimizers.PaperMomentum
    learning_rate: float
    confusion_matrix: ConfusionMatrix | None
    gradient_norms: GradientNorms


def compile_training(
    network: keras.Model,
    optimizer: optimizers.PaperMomentum,
    devices: Devices,
    *,
    learning_rate: float,
    label_smoothing: float,
) -> Training:
    """Makes a network ready to train. To be called in the scope of the strategy.

    Args:
        network, optimizer, devices: what the other steps made.
        learning_rate: as `make_optimizer` took it.
        label_smoothing: as `compilation.compile_model` takes it.

    Raises:
        ValueError: if `label_smoothing` is outside [0, 1).
    """
    model_class = strategies.DistributedModel if devices.replicas > 1 else keras.Model
    training_model = model.with_color_offset(network, model_class)
    if devices.fc_parallel:
        training_model, optimizer = fc_parallel.split(network, optimizer, devices.strategy, devices.worker)
    confusion_matrix = compilation.compile_model(training_model, optimizer, devices.jit, label_smoothing)
    norms = optimizer.gradient_norms or GradientNorms(training_model.trainable_variables, always=devices.jit)
    optimizer.gradient_norms = norms
    return Training(network, training_model, optimizer, learning_rate, confusion_matrix, norms)


@contextlib.contextmanager
def open_run_dir(run_dir: pathlib.Path, data: Data, writes: bool) -> Iterator[None]:
    """Makes and locks the run's folder and describes the data in it, if this process writes; otherwise does nothing.

    Raises:
        ValueError: if another process trains in it.
    """
    if not writes:
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with checkpoints.sole_writer(run_dir):
        data.description.save(run_dir)
        data.statistics.save(run_dir)  # beside the model: where its mean image and color noise are from
        yield


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins or is resumed.

    Attributes:
        step: steps that are done.
        resumed: whether from a checkpoint.
        validation_due: whether the validation of the epoch that the step ended is still to be done.
        plateau: None, or the state of the plateau schedule.
    """

    step: int = 0
    resumed: bool = False
    validation_due: bool = False
    plateau: dict[str, Any] | None = None


def restore(
    run_dir: pathlib.Path,
    training: Training,
    settings: dict[str, Any],
    publish: bool,
    allow_changed: bool = False,
) -> Start:
    """Sets weights, optimizer and random generators to those of the run's newest checkpoint, if it has one.

    Not the learning rate: it follows from the arguments, which may have changed, and from the plateau's state.

    Args:
        run_dir: the run's folder.
        training: from `compile_training`.
        settings: those that the next checkpoints will name, "steps_per_epoch" among them. If the
            checkpoint's steps per epoch differ, the run resumes after the same fraction of its epochs.
        publish, allow_changed: as `checkpoints.restore_newest` takes them.

    Raises:
        ValueError: if there are checkpoints and none can be read.
    """
    progress = checkpoints.restore_newest(run_dir, training.network, training.model, publish, allow_changed)
    if progress is None:
        return Start()
    if not isinstance(training.optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        training.optimizer.learning_rate = training.learning_rate
    step, steps_before, steps = progress["step"], progress["settings"]["steps_per_epoch"], settings["steps_per_epoch"]
    if steps_before != steps:
        step = step * steps // steps_before
        training.optimizer.iterations.assign(step)
    return Start(step, True, progress["validation_due"], progress.get("schedule"))


def set_rate_multipliers(
    training: Training, layer_rates: Mapping[str, float], *, schedule: str, bias_rate: float
) -> None:
    """Multiplies the learning rates of biases and of single layers, unless the schedule sets them.

    Args:
        training: from `compile_training`.
        layer_rates: as `PaperMomentum.set_rate_multipliers` takes them.
        schedule: one of `schedules.SCHEDULES`.
        bias_rate: the multiplier of all biases.

    Raises:
        ValueError: if a layer does not exist or does not learn, or a rate is negative.
    """
    if schedule != "original":
        training.optimizer.set_rate_multipliers({"bias": bias_rate, **layer_rates})


def make_schedule_callback(
    training: Training, plateau: dict[str, Any] | None, *, schedule: str, plateau_patience: int
) -> callbacks.DivideRateOnPlateau | callbacks.FollowOriginalSchedule | None:
    """Makes the callback of a schedule that has one.

    Args:
        training: from `compile_training`.
        plateau: None, or the state that the schedule "plateau" resumes with.
        schedule: one of `schedules.SCHEDULES`.
        plateau_patience: epochs without improvement before "plateau" divides the rate.
    """
    if schedule == "original":
        return callbacks.FollowOriginalSchedule(training.optimizer, training.learning_rate)
    if schedule != "plateau":
        return None
    callback = callbacks.DivideRateOnPlateau(plateau_patience)
    if plateau:
        callback.restore(plateau, training.optimizer)
    return callback


def make_logger(
    run_dir: pathlib.Path,
    training: Training,
    data: Data,
    training_data: Callable[[int, reader.Share], tf.data.Dataset],
    first_step: int,
    input_clock: InputClock,
    *,
    log_every: int,
    profile_steps: tuple[int, int] | None,
    hparams: Mapping[str, float | str | bool],
    flag_lines: Iterable[str],
    writes: bool,
) -> TensorBoardLogger | None:
    """Makes the callback that logs to TensorBoard, if this process writes.

    Args:
        run_dir, first_step, input_clock, log_every, profile_steps, hparams: as `TensorBoardLogger` takes them.
        training: from `compile_training`.
        data, training_data: from `inputs.open_data` and `inputs.training_input`.
        flag_lines: the flags, such as "--batch_size=128".
        writes: whether this process writes, or another worker.
    """
    if not writes:
        return None
    return TensorBoardLogger(
        run_dir,
        log_every=log_every,
        batch_size=data.batch_size,
        first_step=first_step,
        first_images=summaries.augmented_inputs(training_data(0, reader.Share()), 8),
        pictures={
            "conv1 kernels": lambda: kernels.draw_kernels(
                training.network.get_layer("conv1").kernels, initial_kernels.load_initial_kernels(run_dir)
            ),
            "activations": lambda: activations.draw_activations(
                training.network, data.first_validation_image(), data.description.class_names
            ),
        },
        texts=summaries.describe_run(data.description, len(data.skipped), flag_lines),
        class_names=data.description.class_names,
        confusion_matrix=training.confusion_matrix,
        gradient_norms=training.gradient_norms,
        hparams=hparams,
        input_clock=input_clock,
        profile_steps=profile_steps,
        records_skipped=len(data.skipped),
        network=training.network,
    )


def describe(devices: Devices, data: Data, training: Training, *, variant: str, epochs: int) -> str:
    """One line about what is trained on what."""
    return (
        f"Training {variant}: {model.count_parameters(training.network):,} parameters, {data.classes} classes, "
        f"{data.training_images:,} images, {data.steps_per_epoch} steps per epoch, {epochs} epochs, "
        f"{devices.replicas} replicas on {devices.workers} workers."
    )
