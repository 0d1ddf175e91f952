"""Builds what is trained: the network, its optimizer, and the compiled model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from alexnet_tf import model
from alexnet_tf.distribution import strategies
from alexnet_tf.evaluation.predictions import class_ids
from alexnet_tf.networks import descriptions, variants
from alexnet_tf.training import cached_features, compilation, fc_parallel, optimizers, schedules
from alexnet_tf.training.compilation import ConfusionMatrix
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.training.devices import Devices
from alexnet_tf.training.gradient_norms import GradientNorms
from alexnet_tf.training.inputs import RunData
from alexnet_tf.weights import transfer


@dataclasses.dataclass(frozen=True)
class CompiledNetwork:
    """A network that is ready to train.

    Attributes:
        network: from pixels to probabilities.
        training_model: the compiled model, which also takes color noise and shares the network's layers.
        optimizer: the update rule, without the loss scaling of half precision. It measures its gradients' norms.
        confusion_matrix: the compiled metric; None if there are too many classes.
    """

    network: keras.Model
    training_model: keras.Model
    optimizer: optimizers.PaperMomentum
    confusion_matrix: ConfusionMatrix | None


def compile_network(config: TrainConfig, data: RunData, devices: Devices) -> CompiledNetwork:
    """Builds the network and its optimizer, compiled; equal for equal seeds.

    Raises:
        ValueError: if an option is out of range, or the model of `init_from` does not fit.
    """
    if config.cache_features and devices.replicas > 1:
        raise ValueError(f"`cache_features` needs a single device: strategy=one. Received: {devices.describe()}")
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with devices.strategy.scope():
        network = build_network(config, data, devices.column_devices)
        optimizer = make_optimizer(config, data.steps_per_epoch)
        model_class = strategies.DistributedModel if devices.replicas > 1 else keras.Model
        if config.cache_features:
            training_model = cached_features.trained_part(network)
        else:
            training_model = model.with_color_offset(network, model_class)
        if config.fc_parallel:
            training_model, optimizer = fc_parallel.split(network, optimizer, devices.strategy, devices.worker)
        confusion_matrix = compilation.compile_model(
            training_model, optimizer, devices.jit, config.label_smoothing, data.class_weights
        )
        if optimizer.gradient_norms is None:
            optimizer.gradient_norms = GradientNorms(training_model.trainable_variables, always=devices.jit)
    return CompiledNetwork(network, training_model, optimizer, confusion_matrix)


def build_network(config: TrainConfig, data: RunData, column_devices: list[str] | None = None) -> keras.Model:
    """Builds the network with its initial weights and the mean image of the data.

    Returns: a model from pixels to probabilities.

    Raises:
        ValueError: if an option is out of range, or the model of `init_from` does not fit.
    """
    source = None
    if config.init_from:
        source = model.load_model(config.init_from)
        if not (config.new_head or config.init_layers):
            _check_classes(config.init_from, source.description.class_names, data.description.class_names)
    input_scale = config.input_scale
    if source is not None and input_scale is None:
        # The source's learning rates are those of its input scale.
        input_scale = source.get_layer("mean_image").scale
    network = model.build_alexnet(
        config.variant,
        data.num_classes,
        initializer=None if config.initializer == "variant" else config.initializer,
        initial_biases=config.initial_biases,
        input_scale=input_scale,
        column_devices=column_devices,
    )
    mean = data.statistics.mean(variants.VARIANTS[config.variant].mean)
    if config.mean_color:
        mean = np.full_like(mean, config.mean_color)
    network.get_layer("mean_image").set_mean_image(mean)
    descriptions.set_description(network, data.description)
    if source is not None:
        try:
            transfer.copy_weights(source, network, config.new_head, config.init_layers)
        except ValueError as error:
            raise ValueError(f"The model of `init_from`, {config.init_from}, does not fit: {error}") from error
    for name in config.freeze:
        network.get_layer(name).trainable = False
    return network


def _check_classes(path: str, trained_on: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises ValueError unless a classifier was trained on the classes of the data. It may have no names for them."""
    unnamed = [str(index) for index in range(len(trained_on))]
    if len(trained_on) != len(wanted) or class_ids(trained_on) not in (unnamed, class_ids(wanted)):
        raise ValueError(
            f"The model of `init_from` was trained on other classes. Received: {path} with {len(trained_on)} classes "
            f"({', '.join(trained_on[:3])}, ...), and data with {len(wanted)} ({', '.join(wanted[:3])}, ...). Set "
            "`new_head` to start with a new classifier."
        )


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> optimizers.PaperMomentum:
    """Makes the update rule with its learning rate. Raises ValueError if an option is out of range."""
    rate = schedules.make_learning_rate(config, steps_per_epoch)
    arguments: dict[str, Any] = {
        "reduce_dtype": config.reduce_in,
        "decay_biases": config.decay_biases,
        "layer_decays": config.layer_decays,
    }
    if config.optimizer == "lars":
        arguments["scale_biases"] = config.lars_biases
        return optimizers.Lars(rate, config.momentum, config.weight_decay, config.lars_trust, **arguments)
    return optimizers.PaperMomentum(rate, config.momentum, config.weight_decay, **arguments)
