"""The steps of a training run: what each flag changes in the network, its optimizer and its callbacks."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.distribution.workers import Worker
from alexnet_tf.networks import rows, variants
from alexnet_tf.training import callbacks, checkpoints, experiment, fit, inputs, optimizers
from alexnet_tf.training.devices import choose_devices


@pytest.fixture(scope="module")
def data(small_data_dir):
    return inputs.open_data(small_data_dir, variant="testing", batch_size=10, on_bad_record="fail", max_bad_records=100)


def one_device(jit="auto"):
    return choose_devices(Worker(), strategy="auto", column_devices=[], allow_fewer_devices=False, jit=jit)


def build_network(data, **changes):
    arguments = {
        "variant": "testing",
        "initializer": "variant",
        "input_scale": None,
        "init_from": None,
        "new_head": False,
        "freeze": [],
        "column_devices": None,
    }
    keras.utils.clear_session()  # random generators are then named as in a process of its own
    keras.utils.set_random_seed(0)
    return experiment.build_network(data, **arguments | changes)


def make_optimizer(**changes):
    arguments = {
        "optimizer": "momentum",
        "learning_rate": 0.08,
        "schedule": "plateau",
        "steps_per_epoch": 10,
        "epochs": 5,
        "warmup_steps": 0,
        "step_epochs": None,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "lars_trust": 0.001,
        "reduce_in": "float32",
    }
    return experiment.make_optimizer(**arguments | changes)


def compile_training(data, devices=None, label_smoothing=0.0, **changes):
    return experiment.compile_training(
        build_network(data, **changes),
        make_optimizer(),
        devices or one_device(),
        learning_rate=0.08,
        label_smoothing=label_smoothing,
    )


class TestBuildNetwork:
    @pytest.mark.parametrize("kind", ["image", "color"])
    def test_mean_is_that_of_the_training_images(self, kind, data, monkeypatch):
        row = dataclasses.replace(variants.VARIANTS["testing"], mean=kind)
        monkeypatch.setitem(variants.VARIANTS, "testing", row)
        mean = np.asarray(build_network(data).get_layer("mean_image").mean)
        expected = data.statistics.mean(kind)[2:-2, 2:-2]  # the middle 56 of 60 pixels
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
        np.testing.assert_allclose(mean[..., 2], 22.5, rtol=1e-6)  # of the numbers 0 to 45

    def test_initial_weights_are_the_variants_or_the_initializers(self, data):
        of_variant, of_he, zeros = (
            build_network(data, initializer=name).get_layer("fc6") for name in ("variant", "he_normal", "zeros")
        )
        assert np.std(of_variant.kernels[0]) == pytest.approx(0.01, rel=0.2)
        assert np.all(np.asarray(of_variant.biases[0]) == 1)
        assert np.std(of_he.kernels[0]) > 0.02 and not np.any(of_he.biases[0])
        assert not np.any(zeros.kernels[0])

    def test_classes_and_input_scale_are_those_asked_for(self, data):
        assert build_network(data).output_shape == (None, 2)
        assert build_network(data).get_layer("mean_image").scale == 1
        assert build_network(data, input_scale=0.5).get_layer("mean_image").scale == 0.5

    def test_weights_mean_and_scale_come_from_another_model(self, data, tmp_path):
        source = build_network(data, initializer="he_normal", input_scale=0.25)
        source.get_layer("mean_image").set_mean_image(np.full((56, 56, 3), 7.0, "float32"))
        source.save(tmp_path / "source.keras")
        copied = build_network(data, init_from=str(tmp_path / "source.keras"))
        assert copied.get_layer("mean_image").scale == 0.25
        for weight, expected in zip(copied.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        scaled = build_network(data, init_from=str(tmp_path / "source.keras"), input_scale=0.5)
        assert scaled.get_layer("mean_image").scale == 0.5
        new_head = build_network(data, init_from=str(tmp_path / "source.keras"), new_head=True)
        for name, same in (("conv1", True), ("fc7", True), ("fc8", False)):
            pair = (np.asarray(network.get_layer(name).kernels[0]) for network in (new_head, source))
            assert np.array_equal(*pair) == same, name

    def test_model_with_other_classes_is_refused_unless_with_a_new_head(self, data, tmp_path):
        three = dataclasses.replace(data.description, class_names=("a", "b", "c"))
        build_network(dataclasses.replace(data, description=three)).save(tmp_path / "source.keras")
        with pytest.raises(ValueError, match=r"The model of `init_from`, .* does not fit: fc8's kernel"):
            build_network(data, init_from=str(tmp_path / "source.keras"))
        build_network(data, init_from=str(tmp_path / "source.keras"), new_head=True)

    def test_frozen_layers_do_not_learn(self, data):
        network = build_network(data, freeze=["conv1", "fc6"])
        learning = {layer.name for layer in network.layers if layer.trainable_weights}
        assert learning == {"conv2", "conv3", "conv4", "conv5", "fc7", "fc8"}
        with pytest.raises(ValueError, match=r"`freeze` must name layers that learn: conv1, .*'norm1'"):
            build_network(data, freeze=["norm1"])

    def test_columns_are_on_their_devices(self, data):
        with pytest.raises(ValueError, match="column_devices=GPU:0,GPU:1"):
            build_network(data, column_devices=["GPU:0", "GPU:1"])


class TestMakeOptimizer:
    def test_arguments_reach_the_rule(self):
        optimizer = make_optimizer(momentum=0.7, weight_decay=0.002, reduce_in="float16")
        assert type(optimizer) is optimizers.PaperMomentum
        assert (optimizer.momentum, optimizer.weight_decay, optimizer.reduce_dtype) == (0.7, 0.002, "float16")
        lars = make_optimizer(optimizer="lars", momentum=0.7, weight_decay=0.002, reduce_in="bfloat16", lars_trust=0.01)
        assert type(lars) is optimizers.Lars
        assert (lars.momentum, lars.weight_decay, lars.reduce_dtype, lars.trust) == (0.7, 0.002, "bfloat16", 0.01)

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"learning_rate": 0.5},
            {"momentum": 0.7},
            {"weight_decay": 0.1},
            {"optimizer": "lars"},
            {"optimizer": "lars", "lars_trust": 0.01},
        ],
    )
    def test_arguments_change_the_steps(self, changes):
        optimizer = make_optimizer(**changes)
        given = {"learning_rate": 0.08, "momentum": 0.9, "weight_decay": 0.0005, "lars_trust": 0.001} | changes
        kernel, expected, velocity = keras.Variable(np.full((2, 3), 2.0)), np.full((2, 3), 2.0), 0.0
        for _ in range(3):
            optimizer.apply([keras.ops.ones((2, 3))], [kernel])
            rate, decay = given["learning_rate"], given["weight_decay"]
            if "optimizer" in changes:
                norm = np.linalg.norm(expected)
                rate *= given["lars_trust"] * norm / (np.sqrt(6) + decay * norm)
            velocity = given["momentum"] * velocity - rate * (1 + decay * expected)
            expected = expected + velocity
        np.testing.assert_allclose(kernel, expected, rtol=1e-6)

    @pytest.mark.parametrize("reduce_in", ["float32", "float16", "bfloat16"])
    def test_gradients_are_rounded_to_what_they_are_reduced_in(self, reduce_in):
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            optimizer = make_optimizer(reduce_in=reduce_in, weight_decay=0.0)
            kernel = keras.Variable(np.zeros((2, 3)))
            optimizer.build([kernel])
        strategy.run(lambda: optimizer.apply([tf.fill((2, 3), 1 / 3)], [kernel]))
        gradient = tf.cast(tf.cast(1 / 3, reduce_in), tf.float32).numpy()
        np.testing.assert_allclose(kernel, np.full((2, 3), -0.08 * gradient), rtol=1e-6)

    @pytest.mark.parametrize(
        "changes, rates",
        [
            ({"schedule": "plateau"}, {0: 0.08, 49: 0.08}),
            ({"schedule": "original"}, {0: 0.08, 49: 0.08}),
            ({"schedule": "constant"}, {0: 0.08, 49: 0.08}),
            ({"schedule": "cosine"}, {0: 0.08, 25: 0.04, 50: 0.0}),
            ({"schedule": "cosine", "epochs": 10}, {50: 0.04, 100: 0.0}),
            ({"schedule": "cosine", "warmup_steps": 10}, {0: 0.0, 5: 0.04, 10: 0.08, 30: 0.04, 50: 0.0}),
            ({"schedule": "poly"}, {0: 0.08, 25: 0.02, 50: 0.0}),
            ({"schedule": "poly", "warmup_steps": 10}, {5: 0.04, 10: 0.08, 30: 0.02, 50: 0.0}),
            ({"schedule": "step", "step_epochs": 2}, {19: 0.08, 20: 0.008, 40: 0.0008}),
        ],
    )
    def test_schedule_gives_the_rate_of_each_step(self, changes, rates):
        optimizer = make_optimizer(**changes)
        for step, rate in rates.items():
            optimizer.iterations.assign(step)
            assert float(optimizer.learning_rate) == pytest.approx(rate, abs=1e-8), step


def loss_of(training):
    """The loss of a batch whose probabilities are known: (loss, probabilities, labels)."""
    images = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype("uint8")
    batch, labels = {"image": images, "color_offset": np.zeros((4, 3), "float32")}, np.array([0, 1, 1, 0])
    loss = training.model.evaluate(batch, labels, verbose=0, return_dict=True)["loss"]
    return loss, training.network.predict(images, verbose=0), labels


class TestCompileTraining:
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
    def test_loss_has_the_label_smoothing(self, label_smoothing, data):
        training = compile_training(data, label_smoothing=label_smoothing, initializer="he_normal", input_scale=0.01)
        loss, probabilities, labels = loss_of(training)
        wanted = (1 - label_smoothing) * np.eye(2)[labels] + label_smoothing / 2
        np.testing.assert_allclose(loss, -np.mean(np.sum(wanted * np.log(probabilities), axis=1)), rtol=1e-4)

    def test_optimizer_has_the_weights_that_learn_and_measures_them(self, data):
        training = compile_training(data, freeze=["conv1"])
        names = {variable.path.split("/")[0] for variable in training.optimizer._trainable_variables}
        assert names == {"conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"}
        assert training.optimizer.gradient_norms is training.gradient_norms
        assert training.confusion_matrix.classes == 2

    @pytest.mark.parametrize("jit", ["true", "false"])
    def test_xla_compiles_on_request(self, jit, data, monkeypatch):
        def in_python(labels, probabilities, label_smoothing):  # which XLA can't compile
            return tf.ensure_shape(tf.py_function(lambda p: p[:, 0], [probabilities], tf.float32), (None,))

        monkeypatch.setattr(keras.losses, "categorical_crossentropy", in_python)
        training = compile_training(data, one_device(jit=jit), label_smoothing=0.1)
        if jit == "true":
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"compile.*EagerPyFunc"):
                loss_of(training)
        else:
            loss, probabilities, _ = loss_of(training)
            assert loss == pytest.approx(probabilities[:, 0].mean(), rel=1e-5)


def settings(steps_per_epoch):
    return {"steps_per_epoch": steps_per_epoch}


class TestRestore:
    def test_run_without_a_checkpoint_starts_at_its_beginning(self, data, tmp_path):
        assert experiment.restore(tmp_path, compile_training(data), settings(4), publish=True) == (experiment.Start())

    def test_weights_step_and_plateau_come_back(self, data, tmp_path):
        saved = compile_training(data, initializer="he_normal")
        state = {"best_top1": 0.5, "epochs_without_improvement": 1, "divisions": 2}
        progress = {"step": 8, "settings": {"steps_per_epoch": 4}, "validation_due": True, "schedule": state}
        checkpoints.save(tmp_path, saved.network, saved.model, progress)
        training = compile_training(data)
        start = experiment.restore(tmp_path, training, settings(4), publish=False)
        assert start == experiment.Start(step=8, resumed=True, validation_due=True, plateau=state)
        for weight, expected in zip(training.network.get_weights(), saved.network.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_optimizer_has_the_rate_given_and_not_the_saved_one(self, data, tmp_path):
        saved = compile_training(data)
        saved.optimizer.learning_rate = 0.5
        checkpoints.save(
            tmp_path,
            saved.network,
            saved.model,
            {"step": 8, "settings": {"steps_per_epoch": 4}} | {"validation_due": False},
        )
        training = compile_training(data)
        experiment.restore(tmp_path, training, settings(4), publish=False)
        assert float(training.optimizer.learning_rate) == np.float32(0.08)

    def test_other_number_of_steps_leaves_the_same_part_of_the_run(self, data, tmp_path):
        saved = compile_training(data)
        progress = {"step": 8, "settings": {"steps_per_epoch": 4}, "validation_due": False}
        checkpoints.save(tmp_path, saved.network, saved.model, progress)
        training = compile_training(data)
        assert experiment.restore(tmp_path, training, settings(2), publish=False).step == 4
        assert int(training.optimizer.iterations) == 4


class TestOpenRunDir:
    def test_writer_describes_the_data_and_keeps_others_out(self, data, tmp_path):
        with experiment.open_run_dir(tmp_path / "run", data, writes=True):
            assert {path.name for path in (tmp_path / "run").iterdir()} >= {"dataset.json", "statistics.npz"}
            with (
                pytest.raises(ValueError, match="Another process trains"),
                experiment.open_run_dir(tmp_path / "run", data, writes=True),
            ):
                pass
            with experiment.open_run_dir(tmp_path / "run", data, writes=False):
                pass

    def test_others_write_nothing(self, data, tmp_path):
        with experiment.open_run_dir(tmp_path / "run", data, writes=False):
            assert not (tmp_path / "run").exists()


class TestSetRateMultipliers:
    @pytest.mark.parametrize(
        "arguments, layer_rates, expected",
        [
            ({"schedule": "plateau", "bias_rate": 1.0}, {}, {"conv2/kernel": 1, "conv2/bias": 1, "fc8/bias": 1}),
            ({"schedule": "plateau", "bias_rate": 3.0}, {}, {"conv2/kernel": 1, "conv2/bias": 3, "fc8/bias": 3}),
            (
                {"schedule": "cosine", "bias_rate": 3.0},
                {"conv2": 0.5, "fc8/bias": 0.0},
                {"conv2/kernel": 0.5, "conv2/bias": 1.5, "fc8/bias": 0, "fc8/kernel": 1},
            ),
            ({"schedule": "original", "bias_rate": 1.0}, {}, {"conv2/kernel": 1, "conv2/bias": 1}),
        ],
    )
    def test_rates_of_biases_and_layers(self, arguments, layer_rates, expected, data):
        training = compile_training(data)
        experiment.set_rate_multipliers(training, layer_rates, **arguments)
        multipliers = np.asarray(training.optimizer.rate_multipliers)
        paths = [variable.path for variable in training.optimizer._trainable_variables]
        for name, multiplier in expected.items():
            found = [value for path, value in zip(paths, multipliers, strict=True) if path.startswith(name)]
            assert found and all(value == multiplier for value in found), name


class TestMakeScheduleCallback:
    def test_plateau_has_the_patience_and_the_state_given(self, data):
        training = compile_training(data)
        arguments = {"schedule": "plateau", "plateau_patience": 7}
        callback = experiment.make_schedule_callback(training, None, **arguments)
        assert isinstance(callback, callbacks.DivideRateOnPlateau) and callback.patience == 7
        assert callback.state["divisions"] == 0
        state = {"best_top1": 0.5, "epochs_without_improvement": 1, "divisions": 2}
        assert experiment.make_schedule_callback(training, state, **arguments).state == state

    def test_original_begins_with_the_rate_given(self, data):
        training = compile_training(data)
        callback = experiment.make_schedule_callback(training, None, schedule="original", plateau_patience=5)
        assert isinstance(callback, callbacks.FollowOriginalSchedule)
        callback.on_epoch_begin(24)
        assert float(training.optimizer.learning_rate) == pytest.approx(0.008)

    @pytest.mark.parametrize("schedule", ["step", "cosine", "poly", "constant"])
    def test_others_have_none(self, schedule, data):
        training = compile_training(data)
        assert experiment.make_schedule_callback(training, None, schedule=schedule, plateau_patience=5) is None


class TestMakeLogger:
    def test_logger_has_the_first_inputs_texts_and_steps(self, data, tmp_path):
        training = compile_training(data)
        logger = experiment.make_logger(
            tmp_path,
            training,
            dataclasses.replace(data, skipped=["a problem"]),
            lambda step, share: inputs.validation_input(data)(share).map(
                lambda images, labels: ({"image": images, "color_offset": 0.0 * keras.ops.ones((10, 3))}, labels)
            ),
            12,
            fit.InputClock(),
            log_every=9,
            profile_steps=(2, 3),
            hparams={"variant": "testing"},
            flag_lines=["--variant=testing"],
            writes=True,
        )
        assert (logger.step, logger.log_every, logger.batch_size, logger.profile_steps) == (12, 9, 10, (2, 3))
        assert logger.first_images.shape == (8, 56, 56, 3)
        assert "--variant=testing" in logger.texts["flags"] and "records skipped: 1" in logger.texts["data"]
        assert logger.records_skipped == 1
        assert logger.gradient_norms is training.gradient_norms


def test_description_counts_what_is_trained(data):
    training = compile_training(data, freeze=["conv1"])
    text = experiment.describe(one_device(), data, training, variant="testing", epochs=5)
    parameters = sum(shape.parameters for shape in rows.trace(variants.VARIANTS["testing"], 2))
    assert text.startswith(f"Training testing: {parameters:,} parameters, ")  # without the mean image
    assert "2 classes, 46 images, 4 steps per epoch, 5 epochs, 1 replicas on 1 workers." in text
