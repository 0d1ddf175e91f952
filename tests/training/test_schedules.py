"""The learning rate of each step, by every schedule."""

import types

import keras
import numpy as np
import pytest

from alexnet_tf.training import build, schedules
from alexnet_tf.training.optimizers import PaperMomentum

WARM_UP = {"schedule": "poly", "learning_rate": 0.2, "warmup_steps": 10, "warmup_rate": 0.1, "epochs": 10}


@pytest.mark.parametrize(
    "changes, rates",
    [
        ({"schedule": "plateau"}, {0: 0.08, 49: 0.08}),
        ({"schedule": "constant"}, {0: 0.08, 49: 0.08}),
        ({"schedule": "cosine"}, {0: 0.08, 25: 0.04, 50: 0.0}),
        ({"schedule": "cosine", "scale_lr": "linear", "batch_size": 64}, {0: 0.04, 25: 0.02, 50: 0.0}),
        ({"schedule": "cosine", "epochs": 10}, {50: 0.04, 100: 0.0}),
        ({"schedule": "cosine", "warmup_steps": 10}, {0: 0.0, 5: 0.04, 10: 0.08, 30: 0.04, 50: 0.0}),
        ({"schedule": "poly"}, {0: 0.08, 25: 0.02, 50: 0.0}),
        (WARM_UP, {0: 0.1, 5: 0.15, 10: 0.2, 55: 0.05}),
        (WARM_UP | {"warmup_overlaps": True}, {0: 0.1, 5: 0.15, 10: 0.162, 55: 0.2 * 0.45**2}),
        ({"schedule": "step", "step_epochs": 2}, {19: 0.08, 20: 0.008, 40: 0.0008}),
    ],
)
def test_schedule_gives_the_rate_of_each_step_also_when_loaded(changes, rates, make_config):
    optimizer = build.make_optimizer(make_config(**{"learning_rate": 0.08, "epochs": 5} | changes), steps_per_epoch=10)
    for each in (optimizer, PaperMomentum.from_config(optimizer.get_config())):
        for step, rate in rates.items():
            each.iterations.assign(step)
            assert float(each.learning_rate) == pytest.approx(rate, abs=1e-7), step


@pytest.fixture
def optimizer():
    names = ("conv1", "conv2", "fc8")
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(2, name=name) for name in names)])
    optimizer = PaperMomentum(0.01)
    optimizer.build(model.trainable_variables)
    return optimizer


def multipliers(optimizer):
    paths = ("/".join(variable.path.split("/")[-2:]) for variable in optimizer._trainable_variables)
    return dict(zip(paths, np.asarray(optimizer.rate_multipliers).tolist(), strict=True))


class TestStartSchedule:
    @pytest.mark.parametrize(
        "changes, changed",
        [
            ({}, {}),
            ({"schedule": "cosine", "bias_rate": 3.0}, {"conv1/bias": 3, "conv2/bias": 3, "fc8/bias": 3}),
            (
                {"schedule": "step", "step_epochs": 1, "layer_rates": {"conv2": 0.5, "fc8/bias": 0.0}},
                {"conv2/kernel": 0.5, "conv2/bias": 0.5, "fc8/bias": 0},
            ),
        ],
    )
    def test_multipliers_of_biases_and_layers(self, changes, changed, optimizer, make_config):
        callback = schedules.start_schedule(make_config(**changes), optimizer, 4)
        assert (callback is None) == ("schedule" in changes)  # only plateau, the default, and phases need one
        assert multipliers(optimizer) == dict.fromkeys(multipliers(optimizer), 1) | changed

    def test_learning_rate_is_that_of_the_flags_divided_as_before(self, optimizer, make_config):
        config = make_config(learning_rate=0.16, scale_lr="linear", batch_size=64, plateau_patience=7)
        state = {"best_top1": 0.5, "epochs_without_improvement": 1, "divisions": 2}
        callback = schedules.start_schedule(config, optimizer, 4, 8, state)
        assert float(optimizer.learning_rate) == pytest.approx(0.0008)
        assert (callback.patience, callback.state) == (7, state)


class TestDivideRateOnPlateau:
    @pytest.fixture
    def rates(self, optimizer):
        """A function from the values of a metric to the learning rate after each epoch."""

        def rates(values, name, **arguments):
            plateau = schedules.DivideRateOnPlateau(patience=2, **arguments)
            plateau.set_model(types.SimpleNamespace(optimizer=optimizer))
            rates = []
            for epoch, value in enumerate(values):
                plateau.on_epoch_end(epoch, {"val_loss": 1.0, "top1": epoch, "accuracy": epoch, name: value})
                rates.append(float(optimizer.learning_rate))
            return rates

        return rates

    @pytest.mark.parametrize("name", ["val_top1", "val_accuracy"])
    def test_divides_by_ten_at_most_three_times(self, name, rates):
        found = rates([0.1, 0.2, 0.2, 0.15, 0.3] + [0.3] * 8, name)
        np.testing.assert_allclose(found, [0.01] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 5, rtol=1e-5)

    def test_monitored_metric_must_be_logged(self, rates):
        assert rates([0.3, 0.2, 0.1], "val_auc", monitor="val_auc")[-1] == pytest.approx(1e-3)
        message = r"val_top1 or val_accuracy in the logs.* Received: val_loss, top1, accuracy"
        with pytest.raises(ValueError, match=message):
            rates([0.3], "lr")
        with pytest.raises(ValueError, match="needs val_auc in the logs"):
            rates([0.3], "val_top1", monitor="val_auc")

    def test_works_in_keras_fit_with_the_metric_accuracy(self):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        model.compile(PaperMomentum(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
        data = (np.eye(2), np.arange(2))
        plateau = schedules.DivideRateOnPlateau(1)
        model.fit(*data, epochs=3, validation_data=data, callbacks=[plateau], verbose=0)
        assert plateau.state["divisions"] == 2


class TestFollowPhases:
    @pytest.mark.parametrize("first_step", [0, 6, 13])
    def test_each_step_has_the_rates_of_its_phase_whenever_the_run_begins(self, first_step, optimizer, make_config):
        lines = (
            "1 weights=0.01 biases=0.02",
            "2.5 weights=0.001 biases=0.02 conv1/kernel=0.0001",
            "4 weights=0.001 biases=0.002 conv1=0 fc8=0.004",
        )
        changes = {"schedule": "phases", "phase": lines, "scale_lr": "linear", "batch_size": 256}  # twice the rates
        follow = schedules.start_schedule(make_config(**changes), optimizer, 4, first_step)
        for step in range(first_step, 16):
            follow.on_train_batch_begin(step % 4)
            assert float(optimizer.learning_rate) == pytest.approx(0.02 if step < 6 else 0.002), step
            bias, conv1, conv1_bias = (2, 1, 2) if step < 6 else (20, 0.1, 20) if step < 12 else (2, 0, 0)
            expected = {"conv1/kernel": conv1, "conv1/bias": conv1_bias, "conv2/kernel": 1, "conv2/bias": bias}
            expected |= {"fc8/kernel": 1, "fc8/bias": bias} if step < 12 else {"fc8/kernel": 4, "fc8/bias": 4}
            assert multipliers(optimizer) == pytest.approx(expected), step
            follow.on_train_batch_end(step % 4)

    def test_layer_that_is_not_trained_is_refused_before_the_first_step(self, optimizer, make_config):
        config = make_config(schedule="phases", phase=("1 weights=0.01", "9 weights=0.01 conv3=0"))
        with pytest.raises(ValueError, match=r"must be for .* a trainable layer"):
            schedules.start_schedule(config, optimizer, 4)
