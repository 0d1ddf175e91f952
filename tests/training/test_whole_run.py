"""A run of two epochs of four steps in this process: what it writes, and what must not stop it."""

import json
import shutil
import signal

import keras
import numpy as np
import pytest
from event_files import entries, profiled_steps

from alexnet_tf.tfrecords import reader
from alexnet_tf.training import callbacks


def test_failing_picture_is_a_warning_and_the_others_are_drawn(whole_run):
    folder, warnings = whole_run.folder, whole_run.warnings
    assert set(warnings) == {
        "Can't draw TensorBoard's conv1 kernels; training continues: ZeroDivisionError('division by zero')"
    }
    assert "conv1 kernels" not in entries(folder / "tensorboard" / "train")
    assert list(entries(folder / "tensorboard" / "validation")["confusion matrix"]) == [4, 8]
    assert "$x^2$" in (folder / "tensorboard" / "fc7_classes.tsv").read_text()


def test_checkpoints_and_log_points_are_at_their_steps(whole_run):
    folder = whole_run.folder
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["00000007", "00000008"]
    assert json.loads((folder / "training.json").read_text())["epochs"] == 2
    logged = entries(folder / "tensorboard" / "train")
    expected = {"step/loss", "step/top1_error", "step/top5_error", "step/learning_rate"}
    expected |= {"speed/images_per_second", "speed/step_ms", "speed/waiting_for_input_ms"}
    trained = ("conv1", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    expected |= {f"{kind}_norm/{layer}" for kind in ("gradient", "weight") for layer in trained}
    assert {tag for tag in logged if tag.startswith(("step/", "speed/", "gradient_", "weight_"))} == expected
    assert all(list(logged[tag]) == [3, 4, 6, 8] for tag in expected)
    assert all(value > 0 for tag in expected - {"step/top1_error", "step/top5_error"} for value in logged[tag].values())
    mean = np.average(list(logged["step/loss"].values())[2:], weights=[2, 2])
    assert logged["epoch/loss"][8] == pytest.approx(mean, rel=1e-5)
    assert profiled_steps(folder) == [2, 3]


def test_speeds_are_those_between_log_points_without_the_first_step_of_an_epoch(whole_run):
    folder = whole_run.folder
    logged = entries(folder / "tensorboard" / "train")
    steps = {3: 2, 4: 1, 6: 1, 8: 2}
    assert logged["speed/images_per_second"] == pytest.approx({step: n * 10 / 0.5 for step, n in steps.items()})
    assert logged["speed/step_ms"] == pytest.approx({step: 500 / n for step, n in steps.items()})
    assert logged["speed/waiting_for_input_ms"] == pytest.approx(dict.fromkeys(steps, 100))
    summary = json.loads((folder / "training.json").read_text())
    assert summary["images_per_second"] == pytest.approx(6 * 10 / (4 * 0.5))


def test_validation_uses_all_validation_images_without_noise(whole_run):
    folder = whole_run.folder
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


def test_learning_rate_follows_warm_up_and_cosine(whole_run):
    # The highest is 0.64 * 10 / 128 = 0.05, after 2 of 8 steps. A log point has the rate of its step, counted from 1.
    rates = entries(whole_run.folder / "tensorboard" / "train")["step/learning_rate"]
    expected = {step: 0.05 * (1 + np.cos(np.pi * (step - 1 - 2) / 6)) / 2 for step in rates}
    assert rates == pytest.approx(expected, rel=1e-5)


def test_only_weights_with_a_learning_rate_change(whole_run, start, tmp_path):
    trained = keras.models.load_model(whole_run.folder / "model.keras")
    initial = start(tmp_path / "initial", **whole_run.options).network
    for layer in ("conv1", "conv2", "conv3", "fc6", "fc7", "fc8"):
        for weight, before in zip(trained.get_layer(layer).weights, initial.get_layer(layer).weights, strict=True):
            frozen = layer in ("conv2", "fc7") or "bias" in weight.name
            assert np.array_equal(weight, before) == frozen, weight.path


@pytest.mark.usefixtures("without_pictures")
def test_resumed_run_is_bit_identical_and_logs_the_same(whole_run, train_here, tmp_path):
    folder = shutil.copytree(whole_run.folder, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "00000008")  # which leaves that of step 7
    shutil.rmtree(folder / "tensorboard")
    options = whole_run.options | {"profile_steps": None}
    train_here(folder, data_dir=str(whole_run.folder.parent / "data"), **options)
    assert_same_run(folder, whole_run.folder)
    resumed, expected = (entries(each / "tensorboard" / "train") for each in (folder, whole_run.folder))
    for tag in ("step/learning_rate", "gradient_norm/conv1", "weight_norm/fc6"):
        assert resumed[tag] == {8: expected[tag][8]}
    assert "_hparams_/session_end_info" in entries(folder / "tensorboard")


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_stops_within_an_epoch_and_a_validation_change_nothing(whole_run, train_here, tmp_path, monkeypatch, capsys):
    options = whole_run.options | {"data_dir": str(whole_run.folder.parent / "data"), "profile_steps": None}

    def train_and_stop(method, step, number):
        begin = getattr(callbacks.SaveCheckpoints, method)

        def signal_and_begin(self, batch, logs=None):
            if self.step == step:
                signal.raise_signal(number)
            begin(self, batch, logs)

        with monkeypatch.context() as patch:
            patch.setattr(callbacks.SaveCheckpoints, method, signal_and_begin)
            with pytest.raises(callbacks.Stopped):
                train_here(tmp_path / "run", **options)
        newest = max((tmp_path / "run" / "checkpoints").iterdir())
        return int(newest.name), json.loads((newest / "progress.json").read_text())["validation_due"]

    assert train_and_stop("on_train_batch_begin", 1, signal.SIGINT) == (2, False)
    assert train_and_stop("on_test_batch_begin", 4, signal.SIGTERM) == (4, True)
    train_here(tmp_path / "run", **options)
    assert_same_run(tmp_path / "run", whole_run.folder)
    states = [
        json.loads((each / "checkpoints" / "00000008" / "progress.json").read_text())
        for each in (tmp_path / "run", whole_run.folder)
    ]
    assert states[0]["best"] == states[1]["best"]
    begun = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch ")]
    assert begun == ["Epoch 1/2", "Epoch 1/2", "Epoch 2/2"]  # the rest of the first epoch is the first of two, too


def assert_same_run(folder, other_folder):
    weights, others = (keras.models.load_model(each / "model.keras").get_weights() for each in (folder, other_folder))
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, other)
    summary, other = (json.loads((each / "training.json").read_text()) for each in (folder, other_folder))
    for key in ("epochs", "val_top1_error", "val_top5_error"):
        assert summary[key] == other[key]
