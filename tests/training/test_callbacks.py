"""The callbacks of the learning rate schedules."""

import itertools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.training import callbacks, compilation, fit, phases
from alexnet_tf.training.checkpoints import Start
from alexnet_tf.training.optimizers import PaperMomentum


class TestDivideRateOnPlateau:
    def rates(self, values, name, **arguments):
        optimizer = PaperMomentum(0.01)
        plateau = callbacks.DivideRateOnPlateau(patience=2, **arguments)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        plateau.set_model(model)
        rates = []
        for epoch, value in enumerate(values):
            plateau.on_epoch_end(epoch, {"val_loss": 1.0, "top1": epoch, "accuracy": epoch, name: value})
            rates.append(float(optimizer.learning_rate))
        return rates

    @pytest.mark.parametrize("name", ["val_top1", "val_accuracy"])
    def test_divides_by_ten_at_most_three_times(self, name):
        rates = self.rates([0.1, 0.2, 0.2, 0.15, 0.3] + [0.3] * 8, name)
        np.testing.assert_allclose(rates, [0.01] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 5, rtol=1e-5)

    def test_monitored_metric_must_be_logged(self):
        assert self.rates([0.3, 0.2, 0.1], "val_auc", monitor="val_auc")[-1] == pytest.approx(1e-3)
        with pytest.raises(
            ValueError, match=r"val_top1 or val_accuracy in the logs.* Received: val_loss, top1, accuracy"
        ):
            self.rates([0.3], "lr")
        with pytest.raises(ValueError, match="needs val_auc in the logs"):
            self.rates([0.3], "val_top1", monitor="val_auc")

    def test_works_in_keras_fit_with_the_metric_accuracy(self):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        model.compile(PaperMomentum(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
        data = (np.eye(2), np.arange(2))
        plateau = callbacks.DivideRateOnPlateau(1)
        model.fit(*data, epochs=3, validation_data=data, callbacks=[plateau], verbose=0)
        assert plateau.state["divisions"] == 2


def small_training(lines, optimizer, first_epoch, epochs):
    """Trains the testing variant for epochs of one step, with twice the rates of the phases; returns the weights'
    paths, and their values after each epoch."""
    keras.utils.set_random_seed(0)
    model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.01)
    training_model = with_color_offset(model)
    compilation.compile_model(training_model, optimizer, jit=False)
    optimizer.build(training_model.trainable_variables)
    follow = callbacks.FollowPhases(optimizer, phases.parse_phases(lines), 1, first_epoch, factor=2.0)
    images = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype("uint8")
    labels = np.array([0, 1, 2, 0], "int32")
    batch = ({"image": images, "color_offset": np.zeros((4, 3), "float32")}, labels)
    history = []
    data = types.SimpleNamespace(
        steps_per_epoch=1,
        training=lambda step, share: tf.data.Dataset.from_tensors(batch).repeat(),
        validation=lambda share: tf.data.Dataset.from_tensors((images, labels)),
        validation_steps=lambda replicas: None,
    )
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: history.append(model.get_weights()))
    fit.fit(training_model, data, Start(first_epoch), epochs, [follow, record])
    return [w.path for w in model.weights], history


class TestMakeScheduleCallback:
    def test_plateau_has_the_patience_and_the_saved_state(self, make_config):
        optimizer = PaperMomentum(0.01)
        callback = callbacks.make_schedule_callback(make_config(plateau_patience=7), optimizer, None, 1, 0)
        assert (callback.patience, callback.state["divisions"]) == (7, 0)
        state = {"best_top1": 0.5, "epochs_without_improvement": 1, "divisions": 2}
        assert callbacks.make_schedule_callback(make_config(), optimizer, state, 1, 0).state == state
        assert float(optimizer.learning_rate) == pytest.approx(1e-4)

    @pytest.mark.parametrize("schedule", ["step", "cosine", "poly", "constant"])
    def test_other_schedules_have_no_callback(self, schedule, make_config):
        config = make_config(schedule=schedule, step_epochs=1 if schedule == "step" else None)
        assert callbacks.make_schedule_callback(config, PaperMomentum(), None, 1, 0) is None


LINES = ("1 weights=0.01 biases=0.02", "3 weights=0.001 biases=0.02 conv1/kernel=0.0001", "4 weights=0.001 conv1=0")


class TestFollowPhases:
    @pytest.mark.parametrize(
        "first_epoch, weights, bias, conv1, conv1_bias",
        [(0, 0.01, 2, 1, 2), (2, 1e-3, 20, 0.1, 20), (3, 1e-3, 1, 0, 0)],
    )
    def test_rates_are_set_in_whichever_epoch_the_run_begins(self, first_epoch, weights, bias, conv1, conv1_bias):
        optimizer = PaperMomentum(0.01)
        paths, _ = small_training(LINES, optimizer, first_epoch, first_epoch + 1)
        np.testing.assert_allclose(optimizer.learning_rate, 2 * weights, rtol=1e-6)  # scaled
        multipliers = dict(zip(paths[1:], np.asarray(optimizer.rate_multipliers), strict=True))
        for path, expected in (
            ("conv1/kernel_1", conv1),
            ("conv1/bias_2", conv1_bias),
            ("conv3/kernel_2", 1),
            ("fc8/bias", bias),
        ):
            np.testing.assert_allclose(multipliers[path], expected, rtol=1e-5, err_msg=path)

    def test_layer_with_rate_0_is_frozen_from_its_phase_on(self):
        paths, history = small_training(LINES, PaperMomentum(0.01), 1, 5)
        conv1 = [[w for path, w in zip(paths, weights, strict=True) if "conv1" in path] for weights in history]
        changed = [not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(conv1)]
        assert changed == [True, False, False]  # epochs 3, 4, 5
        fc8 = [weights[-1] for weights in history]
        assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(fc8))

    def test_phase_begins_within_an_epoch(self):
        optimizer = PaperMomentum(0.01)
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        optimizer.build(layer.trainable_variables)
        schedule = phases.parse_phases(["1 weights=0.01", "2.5 weights=0.001"])
        follow, rates = callbacks.FollowPhases(optimizer, schedule, steps_per_epoch=4, initial_step=3), []
        for batch in range(5):
            follow.on_train_batch_begin(batch)
            rates.append(float(optimizer.learning_rate))
            follow.on_train_batch_end(batch)
        np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.001, 0.001])  # steps 3 to 7; epoch 2.5 is step 6

    def test_unknown_layer_is_refused_before_the_first_step(self):
        with pytest.raises(ValueError, match=r"must be for .* a trainable layer"):
            small_training(("1 weights=0.01", "9 weights=0.01 conv9=0"), PaperMomentum(0.01), 0, 1)


def test_best_epoch_is_the_first_of_equal_ones():
    best = callbacks.BestEpoch(early_stopping_epochs=2)
    best.set_model(types.SimpleNamespace(stop_training=False))
    for epoch in range(3):
        best.on_epoch_end(epoch, {"val_top1": 0.5})
    assert best.state == {"epoch": 1, "top1": 0.5} and best.model.stop_training
