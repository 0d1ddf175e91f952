"""The configuration: contradictions are refused, and each flag says what happens when it changes on resume."""

import dataclasses

import numpy as np
import pytest

from alexnet_tf.tfrecords import statistics
from alexnet_tf.training import optimizers
from alexnet_tf.training.config import TrainConfig

# These need not be equal when a run is resumed, because the result does not depend on them.
IGNORED = {
    "data_dir": "data sets may be moved: their checksum is compared",
    "run_dir": "the folder itself",
    "on_bad_record": "the skipped records are compared",
    "max_bad_records": "the skipped records are compared",
    **dict.fromkeys(("label_offset", "image_key", "label_key", "class_names"), "the data's settings are compared"),
    "data_service": "the same images, decoded elsewhere",
    **dict.fromkeys(("strategy", "num_local_workers"), "the number of workers is compared"),
    **dict.fromkeys(("fc_parallel", "column_devices", "allow_fewer_devices", "jit"), "the same computation elsewhere"),
    "max_restarts": "not part of the result",
    "allow_changed": "permits changes",
    **dict.fromkeys(("checkpoint_every_steps", "keep_best", "log_every", "profile_steps"), "not part of the result"),
}

PHASES = {"schedule": "phases", "phase": ("1 weights=0.01", "2 weights=0.001")}


class TestChecks:
    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"new_head": True}, "`new_head` and `init_layers` need `init_from`"),
            ({"init_layers": ("conv1",)}, "need `init_from`"),
            ({"freeze": ("norm1",)}, "`freeze` must name trainable layers of testing: conv1, .*Received: 'norm1'"),
            ({"layer_rates": {"conv9/bias": 1.0}}, "`layer_rates` must name .*Received: 'conv9'"),
            ({"layer_decays": {"conv9": 1.0}}, "`layer_decays` must name .*Received: 'conv9'"),
            ({"init_from": "a.keras", "init_layers": ("conv9",)}, "`init_layers` must name .*Received: 'conv9'"),
            (PHASES | {"phase": ("1 weights=0.01", "9 weights=0.01 conv9=0")}, "`phase` must name .*: 'conv9'"),
            ({"label_smoothing": 1.0}, r"must be in \[0, 1\). Received: label_smoothing=1.0"),
            ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
            ({"learning_rate": -0.01}, "`learning_rate` must be above 0. Received: learning_rate=-0.01"),
            ({"input_scale": 0.0}, "`input_scale` must be above 0. Received: input_scale=0.0"),
            ({"profile_steps": (12, 10)}, "must be FIRST,LAST, counted from 1. Received: 12,10"),
            ({"profile_steps": (0, 10)}, "Received: 0,10"),
            ({"schedule": "phases"}, "need each other. Received: schedule=phases, phase="),
            ({"phase": ("1 weights=0.01",)}, "need each other. Received: schedule=plateau"),
            (PHASES | {"bias_rate": 2}, "can't be given with schedule=phases"),
            (PHASES | {"layer_rates": {"conv1": 2}}, "can't be given with schedule=phases"),
            (PHASES | {"learning_rate": 0.02}, "must be that of the first phase, 0.01. Received: 0.02"),
            (PHASES | {"phase": ("2 weights=0.01",)}, r"begin with epoch 1 and be in order. Received: \[2.0\]"),
            (PHASES | {"phase": ("1 weights=0.01", "1 weights=0.02")}, "be in order"),
            (PHASES | {"phase": ("1 biases=0.01",)}, "needs rates above 0 for weights and biases"),
            (PHASES | {"phase": ("1 weights=0.01 conv1=-1",)}, "needs rates above 0"),
            (PHASES | {"phase": ("weights=0.01",)}, "must begin with an epoch"),
            (PHASES | {"phase": ("1 weights",)}, "must be a list such as NAME=0.1"),
            ({"crops": "center", "crop_scale": (0.1, 1)}, "crops=center are for crops of fixed size"),
            ({"mean_at_crop": True, "mean_color": (1.0, 2.0, 3.0)}, "`mean_at_crop` needs a mean image"),
            ({"schedule": "cosine", "step_epochs": 2}, "Received: schedule=cosine, step_epochs=2"),
            ({"schedule": "step"}, "Received: schedule=step, step_epochs=None"),
            ({"warmup_steps": 2}, "`warmup_steps` needs schedule=cosine or poly. Received: schedule=plateau"),
            ({"crop_ratio": (1, 2)}, "`crop_ratio` needs `crop_scale`"),
            ({"crop_scale": (0.1, 1), "last_crop_offset": True}, "`last_crop_offset`, .* are for crops of fixed size"),
            ({"crop_scale": (0.1, 1), "mean_at_crop": True}, "`mean_at_crop` and .* are for crops of fixed size"),
            ({"mean_at_crop": True, "variant": "one_weird_trick"}, "`mean_at_crop` needs a mean image"),
            ({"new_head": True}, "`new_head` and `init_layers` need `init_from`"),
            ({"init_layers": ("conv1",)}, "`new_head` and `init_layers` need `init_from`"),
            ({"label_offset": 1}, "--label_offset can't be given without --data_dir=tfrecords:PATH. Received"),
            ({"fc_parallel": True, "strategy": "mirrored"}, "Received: strategy=mirrored, column_devices=None"),
            ({"fc_parallel": True, "strategy": "tpu:local"}, "Received: strategy=tpu:local, column_devices=None"),
            ({"fc_parallel": True, "column_devices": ("CPU:0", "CPU:1")}, "column_devices=CPU:0,CPU:1"),
        ],
    )
    def test_contradictions_are_refused(self, changes, message, make_config):
        with pytest.raises(ValueError, match=message):
            make_config(**changes)

    def test_learning_rate_is_scaled_to_the_batch_size(self, make_config):
        rates = [make_config(batch_size=512, scale_lr=how).scaled_learning_rate for how in ("none", "linear", "sqrt")]
        assert rates == [0.01, 0.04, 0.02]


class TestFlags:
    def test_defaults_are_those_of_the_fields(self, read_config):
        config = read_config("--data_dir=data", "--run_dir=run")
        assert config == TrainConfig(data_dir="data", run_dir="run")

    def test_phases_are_given_one_by_one(self, read_config):
        phases = ("1 weights=0.01 biases=0.02", "2 weights=0.01")
        flags = [f"--phase={phase}" for phase in phases]
        assert read_config("--data_dir=data", "--run_dir=run", "--schedule=phases", *flags).phase == phases

    def test_flags_as_text_give_the_same_configuration(self, read_config, make_config):
        numbers = {"learning_rate": 1e-5, "input_scale": 0.5, "crop_scale": (0.08, 1.0), "profile_steps": (2, 3)}
        others = {"freeze": ("conv1", "fc7"), "layer_rates": {"conv2": 0.1, "fc8/bias": 2.0}, "decay_biases": True}
        config = make_config(**numbers, **others, flip=False, mean_color=(1.0, 2.0, 3.5))
        assert read_config(*(f"--{name}={text}" for name, text in config.as_flags().items())) == config

    def test_choices_are_those_of_the_library(self):
        choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(TrainConfig)}
        assert choices["reduce_in"] == optimizers.REDUCE_DTYPES
        assert list(choices["color_noise"]) == list(statistics.COLOR_NOISE_SCALES)


class TestOnResume:
    def test_every_field_is_compared_or_has_a_reason_not_to_be(self, make_config):
        config = make_config()
        rules = {field.name: config.on_resume(field.name) for field in dataclasses.fields(config)}
        assert (
            {name for name, rule in rules.items() if rule == "ignore"}
            == IGNORED.keys()
            == rules.keys() - set(config.compared())
        )
        assert {name for name, rule in rules.items() if rule == "never"} == {"variant", "optimizer"}
        warned = {"epochs", "early_stopping_epochs", "layer_rates", "reduce_in"}
        assert {name for name, rule in rules.items() if rule == "warn"} == warned
        assert set(rules.values()) == {"ignore", "never", "warn", "refuse"}


def test_hparams_are_the_compared_values_that_tensorboard_can_show(make_config):
    hparams = make_config(layer_rates={"conv2": 0.5}, weight_decay=0.002, freeze=("conv1",)).hparams()
    assert (hparams["weight_decay"], hparams["layer_rates"], hparams["freeze"]) == (0.002, "conv2=0.5", "conv1")
    assert all(isinstance(value, int | float | str) for value in hparams.values())
    assert not {"log_every", "run_dir", "init_from", "step_epochs"} & hparams.keys()
    assert np.isscalar(hparams["decay_biases"])
