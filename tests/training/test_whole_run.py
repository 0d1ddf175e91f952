"""A run of two epochs of four steps in this process: what it writes, and what must not stop it."""

import dataclasses
import functools
import itertools
import json
import shutil
import types

import keras
import numpy as np
import pytest
from absl import logging
from event_files import entries, profiled_steps

from alexnet_tf.figures import image_grids
from alexnet_tf.tfrecords import reader, schema
from alexnet_tf.training import fit, tensorboard_logger

INITIAL = {"initializer": "he_normal", "input_scale": 0.0125, "seed": 5}
OPTIONS = {
    "epochs": 2,
    "learning_rate": 0.64,
    "scale_lr": "linear",
    "schedule": "cosine",
    "warmup_steps": 2,
    "freeze": ("conv2",),
    "layer_rates": {"fc7": 0.0},
    "bias_rate": 0.0,
    "log_every": 3,
    "checkpoint_every_steps": 3,
    "profile_steps": (2, 3),
}


@pytest.fixture(scope="module")
def run(train_here, small_data_dir, tmp_path_factory):
    """The folder of the run and its warnings. Its classes have odd names, and drawing a picture fails."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(small_data_dir, folder / "data")
    description = schema.load_description(folder / "data")
    dataclasses.replace(description, class_names=(r"$\frac{1}$", "$x^2$")).save(folder / "data")
    warnings, seconds, waited = [], itertools.count(step=0.5), itertools.count(step=0.1)
    with pytest.MonkeyPatch.context() as patch:
        # With these clocks half a second passes between two log points, and every batch takes 0.1 seconds.
        for module, clock in ((tensorboard_logger, seconds), (fit, waited)):
            patch.setattr(module, "time", types.SimpleNamespace(perf_counter=functools.partial(next, clock)))
        patch.setattr(image_grids, "kernel_sheet", lambda layer: 1 / 0)
        patch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
        train_here(folder / "run", data_dir=str(folder / "data"), **OPTIONS, **INITIAL)
    return folder / "run", warnings


def test_failing_picture_is_a_warning_and_the_others_are_drawn(run):
    folder, warnings = run
    assert set(warnings) == {
        "Can't draw TensorBoard's conv1 kernels; training continues: ZeroDivisionError('division by zero')"
    }
    assert "conv1 kernels" not in entries(folder / "tensorboard" / "train")
    assert list(entries(folder / "tensorboard" / "validation")["confusion matrix"]) == [4, 8]
    assert "$x^2$" in (folder / "tensorboard" / "fc7_classes.tsv").read_text()


def test_checkpoints_and_log_points_are_at_their_steps(run):
    folder, _ = run
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["00000007", "00000008"]
    assert json.loads((folder / "training.json").read_text())["epochs"] == 2
    logged = entries(folder / "tensorboard" / "train")
    assert list(logged["step/loss"]) == [3, 4, 6, 8]
    assert profiled_steps(folder) == [2, 3]


def test_speeds_are_those_between_log_points_without_the_first_step_of_an_epoch(run):
    folder, _ = run
    logged = entries(folder / "tensorboard" / "train")
    steps = {3: 2, 4: 1, 6: 1, 8: 2}
    assert logged["speed/images_per_second"] == pytest.approx({step: n * 10 / 0.5 for step, n in steps.items()})
    assert logged["speed/step_ms"] == pytest.approx({step: 500 / n for step, n in steps.items()})
    assert logged["speed/waiting_for_input_ms"] == pytest.approx(dict.fromkeys(steps, 100))
    summary = json.loads((folder / "training.json").read_text())
    assert summary["images_per_second"] == pytest.approx(6 * 10 / (4 * 0.5))


def test_validation_uses_all_validation_images_without_noise(run):
    folder, _ = run
    model = keras.models.load_model(folder / "model.keras")
    ((images, labels),) = reader.make_evaluation_dataset(folder.parent / "data", 10, 56)
    probabilities, labels = model.predict(images, verbose=0), labels.numpy()
    logged = entries(folder / "tensorboard" / "validation")
    loss = -np.log(probabilities[np.arange(10), labels]).mean()
    error = np.mean(probabilities.argmax(axis=1) != labels)
    assert logged["epoch/loss"][8] == pytest.approx(loss, rel=1e-4)
    summary = json.loads((folder / "training.json").read_text())
    assert summary["val_top1_error"] == pytest.approx(error, abs=1e-6)
    assert summary["val_top5_error"] == 0  # of two classes
    assert logged["epoch/top1_error"][8] == pytest.approx(error, abs=1e-6) and logged["epoch/top5_error"][8] == 0


def test_learning_rate_follows_warm_up_and_cosine(run):
    # The highest is 0.64 * 10 / 128 = 0.05, after 2 of 8 steps. A log point has the rate of its step, counted from 1.
    rates = entries(run[0] / "tensorboard" / "train")["step/learning_rate"]
    expected = {step: 0.05 * (1 + np.cos(np.pi * (step - 1 - 2) / 6)) / 2 for step in rates}
    assert rates == pytest.approx(expected, rel=1e-5)


def test_only_weights_with_a_learning_rate_change(run, start, tmp_path):
    trained = keras.models.load_model(run[0] / "model.keras")
    initial = start(tmp_path / "initial", **INITIAL).network
    for layer in ("conv1", "conv2", "conv3", "fc6", "fc7", "fc8"):
        for weight, before in zip(trained.get_layer(layer).weights, initial.get_layer(layer).weights, strict=True):
            frozen = layer in ("conv2", "fc7") or "bias" in weight.name
            assert np.array_equal(weight, before) == frozen, weight.path
