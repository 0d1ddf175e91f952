"""What each option changes in the network, the optimizer and the compiled model."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.distribution.workers import Worker
from alexnet_tf.networks import descriptions, variants
from alexnet_tf.training import build, inputs, optimizers
from alexnet_tf.training.devices import choose_devices

HE = {"initializer": "he_normal", "input_scale": 0.01}


@pytest.fixture(scope="module")
def data(make_config):
    return inputs.open_data(make_config())


@pytest.fixture(scope="module")
def build_network(make_config, data):
    def build_network(data=data, column_devices=None, **changes):
        keras.utils.set_random_seed(0)
        return build.build_network(make_config(**changes), data, column_devices)

    return build_network


@pytest.fixture(scope="module")
def make_optimizer(make_config):
    def make_optimizer(**changes):
        return build.make_optimizer(make_config(**{"learning_rate": 0.08, "epochs": 5} | changes), steps_per_epoch=10)

    return make_optimizer


@pytest.fixture(scope="module")
def build_training(make_config, data):
    def build_training(data=data, **changes):
        config = make_config(**changes)
        return build.build_training(config, dataclasses.replace(data, config=config), choose_devices(config, Worker()))

    return build_training


class TestBuildNetwork:
    @pytest.mark.parametrize("kind", ["image", "color"])
    def test_mean_is_that_of_the_training_images(self, kind, data, build_network, monkeypatch):
        row = dataclasses.replace(variants.VARIANTS["testing"], mean=kind)
        monkeypatch.setitem(variants.VARIANTS, "testing", row)
        mean = np.asarray(build_network().get_layer("mean_image").mean)
        expected = data.statistics.mean(kind)[2:-2, 2:-2]  # the central 56 of 60 pixels
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
        np.testing.assert_allclose(mean[..., 2], 22.5, rtol=1e-6)  # the mean of the numbers 0 to 45

    def test_initial_weights_are_the_variants_or_the_initializers(self, build_network):
        paper, he, zeros = (
            build_network(initializer=name).get_layer("fc6") for name in ("variant", "he_normal", "zeros")
        )
        assert np.std(paper.kernels[0]) == pytest.approx(0.01, rel=0.2)
        assert np.all(np.asarray(paper.biases[0]) == 1)
        assert np.std(he.kernels[0]) > 0.02 and not np.any(he.biases[0])
        assert not np.any(zeros.kernels[0])

    def test_initial_biases(self, build_network):
        for initializer in ("variant", "he_normal"):
            network = build_network(initializer=initializer, initial_biases=0.5)
            for layer in ("conv1", "fc8"):
                assert np.all(np.asarray(network.get_layer(layer).biases[0]) == 0.5)

    def test_mean_color_replaces_the_mean_of_the_data(self, build_network):
        mean = np.asarray(build_network(mean_color=(1.0, 2.0, 3.5)).get_layer("mean_image").mean)
        np.testing.assert_array_equal(mean, np.broadcast_to([1, 2, 3.5], mean.shape))

    def test_init_layers_are_the_only_ones_copied(self, build_network, tmp_path):
        path = str(tmp_path / "source.keras")
        source = build_network(initializer="he_normal")
        source.save(path)
        network = build_network(init_from=path, init_layers=("conv1", "fc6"))
        for name, same in (("conv1", True), ("conv2", False), ("fc6", True), ("fc8", False)):
            pair = (np.asarray(each.get_layer(name).kernels[0]) for each in (network, source))
            assert np.array_equal(*pair) == same, name
        with pytest.raises(ValueError, match=r"does not fit: Layers must be among .* Received: 'conv9'"):
            build_network(init_from=path, init_layers=("conv9",))

    def test_number_of_classes_and_input_scale(self, build_network):
        assert build_network().output_shape == (None, 2)
        assert build_network().get_layer("mean_image").scale == 1
        assert build_network(input_scale=0.5).get_layer("mean_image").scale == 0.5

    def test_init_from_copies_weights_mean_and_scale(self, build_network, tmp_path):
        path = str(tmp_path / "source.keras")
        source = build_network(initializer="he_normal", input_scale=0.25)
        source.get_layer("mean_image").set_mean_image(np.full((56, 56, 3), 7.0, "float32"))
        source.save(path)
        copied = build_network(init_from=path)
        assert copied.get_layer("mean_image").scale == 0.25
        for weight, expected in zip(copied.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        assert build_network(init_from=path, input_scale=0.5).get_layer("mean_image").scale == 0.5
        new_head = build_network(init_from=path, new_head=True)
        for name, same in (("conv1", True), ("fc7", True), ("fc8", False)):
            pair = (np.asarray(network.get_layer(name).kernels[0]) for network in (new_head, source))
            assert np.array_equal(*pair) == same, name

    def test_init_from_with_other_classes_needs_a_new_head(self, data, build_network, tmp_path):
        path = str(tmp_path / "source.keras")
        three = dataclasses.replace(data.description, class_names=("a", "b", "c"))
        build_network(dataclasses.replace(data, description=three)).save(path)
        with pytest.raises(ValueError, match=r"source\.keras with 3 classes \(a, b, c, .* Set `new_head`"):
            build_network(init_from=path)
        build_network(init_from=path, new_head=True)

    def test_init_from_with_permuted_classes_needs_a_new_head(self, data, build_network, tmp_path):
        path = str(tmp_path / "source.keras")
        permuted = dataclasses.replace(data.description, class_names=data.description.class_names[::-1])
        build_network(dataclasses.replace(data, description=permuted)).save(path)
        with pytest.raises(ValueError, match="was trained on other classes"):
            build_network(init_from=path)
        build_network(init_from=path, new_head=True)

    def test_network_keeps_the_description_of_the_data(self, data, build_network):
        copy = keras.models.clone_model(build_network())
        description = descriptions.find_description(copy)
        assert description.class_names == data.description.class_names
        assert description.image_px == data.description.image_px

    def test_frozen_layers_are_not_trainable(self, build_network):
        network = build_network(freeze=("conv1", "fc6"))
        trainable = {layer.name for layer in network.layers if layer.trainable_weights}
        assert trainable == {"conv2", "conv3", "conv4", "conv5", "fc7", "fc8"}
        with pytest.raises(ValueError, match=r"`freeze` must name trainable layers: conv1, .*'norm1'"):
            build_network(freeze=("norm1",))

    def test_columns_are_on_their_devices(self, build_network):
        with pytest.raises(ValueError, match="column_devices=GPU:0,GPU:1"):
            build_network(column_devices=["GPU:0", "GPU:1"])


class TestMakeOptimizer:
    @pytest.mark.parametrize("decay_biases", [False, True])
    def test_options_reach_both_rules(self, decay_biases, make_optimizer):
        options = {"momentum": 0.7, "weight_decay": 0.002, "reduce_in": "float16", "decay_biases": decay_biases}
        options |= {"layer_decays": {"conv1": 0.0}}
        paper, lars = make_optimizer(**options), make_optimizer(optimizer="lars", lars_trust=0.01, **options)
        assert (type(paper), type(lars)) == (optimizers.PaperMomentum, optimizers.Lars)
        for optimizer in (paper, lars):
            assert (optimizer.momentum, optimizer.weight_decay, optimizer.reduce_dtype) == (0.7, 0.002, "float16")
            assert (optimizer.decay_biases, optimizer.layer_decays) == (decay_biases, {"conv1": 0.0})
        assert lars.trust == 0.01

    @pytest.mark.parametrize("reduce_in", ["float32", "float16", "bfloat16"])
    def test_gradients_are_rounded_to_what_they_are_reduced_in(self, reduce_in, make_optimizer):
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
            ({"schedule": "constant"}, {0: 0.08, 49: 0.08}),
            ({"schedule": "cosine"}, {0: 0.08, 25: 0.04, 50: 0.0}),
            ({"schedule": "cosine", "scale_lr": "linear", "batch_size": 64}, {0: 0.04, 25: 0.02, 50: 0.0}),
            ({"schedule": "cosine", "epochs": 10}, {50: 0.04, 100: 0.0}),
            ({"schedule": "cosine", "warmup_steps": 10}, {0: 0.0, 5: 0.04, 10: 0.08, 30: 0.04, 50: 0.0}),
            ({"schedule": "poly"}, {0: 0.08, 25: 0.02, 50: 0.0}),
            ({"schedule": "poly", "warmup_steps": 10}, {0: 0.0, 5: 0.04, 10: 0.08, 30: 0.02, 50: 0.0}),
            ({"schedule": "step", "step_epochs": 2}, {19: 0.08, 20: 0.008, 40: 0.0008}),
        ],
    )
    def test_schedule_gives_the_rate_of_each_step(self, changes, rates, make_optimizer):
        optimizer = make_optimizer(**changes)
        for step, rate in rates.items():
            optimizer.iterations.assign(step)
            assert float(optimizer.learning_rate) == pytest.approx(rate, abs=1e-8), step


def known_loss(training):
    """The loss of a batch, its probabilities and its labels."""
    images = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype("uint8")
    batch, labels = {"image": images, "color_offset": np.zeros((4, 3), "float32")}, np.array([0, 1, 1, 0])
    loss = training.model.evaluate(batch, labels, verbose=0, return_dict=True)["loss"]
    return loss, training.network.predict(images, verbose=0), labels


class TestBuildTraining:
    def test_seed_determines_the_initial_weights(self, build_training):
        first, same, other = (build_training(seed=seed).network.get_weights() for seed in (7, 7, 8))
        for weight, equal in zip(first, same, strict=True):
            np.testing.assert_array_equal(weight, equal)
        assert not np.array_equal(first[1], other[1])

    @pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
    def test_loss_has_the_label_smoothing(self, label_smoothing, build_training):
        loss, probabilities, labels = known_loss(build_training(label_smoothing=label_smoothing, **HE))
        targets = (1 - label_smoothing) * np.eye(2)[labels] + label_smoothing / 2
        np.testing.assert_allclose(loss, -np.mean(np.sum(targets * np.log(probabilities), axis=1)), rtol=1e-4)

    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_loss_has_balanced_class_weights(self, smoothing, build_training, data):
        description = data.description
        split = dataclasses.replace(description.splits["train"], count_per_class=(40, 6))
        description = dataclasses.replace(description, splits=description.splits | {"train": split})
        unbalanced = dataclasses.replace(data, description=description)
        changes = {"class_weights": "balanced", "label_smoothing": smoothing}
        loss, probabilities, labels = known_loss(build_training(unbalanced, **changes, **HE))
        targets = (1 - smoothing) * np.eye(2)[labels] + smoothing / 2
        losses = -np.sum(targets * np.log(probabilities), axis=1)
        np.testing.assert_allclose(loss, np.mean(np.array([46 / 2 / 40, 46 / 2 / 6])[labels] * losses), rtol=1e-4)

    def test_optimizer_updates_and_measures_the_trainable_weights(self, build_training):
        training = build_training(freeze=("conv1",))
        names = {variable.path.split("/")[0] for variable in training.optimizer._trainable_variables}
        assert names == {"conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"}
        assert training.optimizer.gradient_norms is training.gradient_norms
        assert training.confusion_matrix.classes == 2

    @pytest.mark.parametrize("jit", ["true", "false"])
    def test_xla_compiles_on_request(self, jit, build_training, monkeypatch):
        def in_python(labels, probabilities, label_smoothing):  # XLA can't compile it
            return tf.ensure_shape(tf.py_function(lambda p: p[:, 0], [probabilities], tf.float32), (None,))

        monkeypatch.setattr(keras.losses, "categorical_crossentropy", in_python)
        training = build_training(jit=jit, label_smoothing=0.1)
        if jit == "true":
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"compile.*EagerPyFunc"):
                known_loss(training)
        else:
            loss, probabilities, _ = known_loss(training)
            assert loss == pytest.approx(probabilities[:, 0].mean(), rel=1e-5)

    def test_half_precision_scales_the_loss(self, build_training):
        try:
            training = build_training(precision="mixed_float16", optimizer="lars")
        finally:
            keras.config.set_dtype_policy("float32")
        assert isinstance(training.model.optimizer, optimizers.AgreedLossScale)
        assert type(training.optimizer) is optimizers.Lars
        assert training.network.get_layer("conv2").compute_dtype == "float16"
        assert {weight.dtype for weight in training.network.weights} == {"float32"}


class TestSetRates:
    @pytest.mark.parametrize(
        "changes, expected",
        [
            ({}, {"conv2/kernel": 1, "conv2/bias": 1, "fc8/bias": 1}),
            ({"bias_rate": 3.0}, {"conv2/kernel": 1, "conv2/bias": 3, "fc8/bias": 3}),
            (
                {"schedule": "cosine", "bias_rate": 3.0, "layer_rates": {"conv2": 0.5, "fc8/bias": 0.0}},
                {"conv2/kernel": 0.5, "conv2/bias": 1.5, "fc8/bias": 0, "fc8/kernel": 1},
            ),
            ({"schedule": "phases", "phase": ("1 weights=0.01 biases=0.02",)}, {"conv2/bias": 1}),  # set later
        ],
    )
    def test_multipliers_of_biases_and_layers(self, changes, expected, build_training, make_config):
        training = build_training(**changes)
        training.set_rates(make_config(**changes))
        multipliers = np.asarray(training.optimizer.rate_multipliers)
        paths = [variable.path for variable in training.optimizer._trainable_variables]
        for name, multiplier in expected.items():
            found = [value for path, value in zip(paths, multipliers, strict=True) if path.startswith(name)]
            assert found and all(value == multiplier for value in found), name

    def test_learning_rate_is_that_of_the_flags(self, build_training, make_config):
        training = build_training()
        training.set_rates(make_config(learning_rate=0.16, scale_lr="linear", batch_size=64))
        assert float(training.optimizer.learning_rate) == np.float32(0.08)
