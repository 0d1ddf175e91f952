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
def compile_network(make_config, data):
    def compile_network(data=data, **changes):
        config = make_config(**changes)
        return build.compile_network(config, dataclasses.replace(data, config=config), choose_devices(config, Worker()))

    return compile_network


class TestBuildNetwork:
    @pytest.mark.parametrize("kind", ["image", "color"])
    def test_mean_is_that_of_the_training_images(self, kind, data, build_network, monkeypatch):
        row = dataclasses.replace(variants.VARIANTS["testing"], mean=kind)
        monkeypatch.setitem(variants.VARIANTS, "testing", row)
        mean = np.asarray(build_network().get_layer("mean_image").mean)
        expected = data.statistics.mean(kind)[2:-2, 2:-2]  # the central 56 of 60 pixels
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
        np.testing.assert_allclose(mean[..., 2], 22.5, rtol=1e-6)  # the mean of the numbers 0 to 45

    @pytest.mark.parametrize(
        "changes, std, bias",  # a standard deviation of None is that of glorot_uniform
        [
            ({}, 0.01, 1),
            ({"initial_biases": 0.5}, 0.01, 0.5),
            ({"initializer": "glorot_uniform"}, None, 0),
            ({"initializer": "zeros", "initial_biases": 0.5}, 0, 0.5),
        ],
    )
    def test_initial_weights_are_the_variants_or_the_initializers(self, changes, std, bias, build_network):
        fc6 = build_network(**changes).get_layer("fc6")
        expected = np.sqrt(2 / sum(fc6.kernels[0].shape)) if std is None else std
        assert np.std(fc6.kernels[0]) == pytest.approx(expected, rel=0.2)
        assert np.all(np.asarray(fc6.biases[0]) == bias)

    def test_mean_color_replaces_the_mean_of_the_data(self, build_network):
        network = build_network(mean_color=(1.0, 2.0, 3.5), input_scale=0.5)
        mean_image = network.get_layer("mean_image")
        np.testing.assert_array_equal(mean_image.mean, np.broadcast_to([1, 2, 3.5], mean_image.mean.shape))
        assert mean_image.scale == 0.5 and network.output_shape == (None, 2)

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, build_network, tmp_path_factory):
        """A saved network with other weights, scale and mean."""
        network = build_network(initializer="he_normal", input_scale=0.25)
        network.get_layer("mean_image").set_mean_image(np.full((56, 56, 3), 7.0, "float32"))
        path = str(tmp_path_factory.mktemp("source") / "source.keras")
        network.save(path)
        return network, path

    @pytest.mark.parametrize(
        "changes, scale, others",
        [
            ({}, 0.25, set()),
            ({"new_head": True}, 0.25, {"fc8"}),
            ({"input_scale": 0.5}, 0.5, {"conv1"}),  # whose outputs stay the same
            ({"init_layers": ("conv1", "fc6")}, 0.25, {"conv2", "conv3", "conv4", "conv5", "fc7", "fc8"}),
        ],
    )
    def test_init_from_copies_weights_mean_and_scale(self, changes, scale, others, source, build_network):
        network, path = source
        copied = build_network(init_from=path, **changes)
        assert copied.get_layer("mean_image").scale == scale
        if not changes:
            np.testing.assert_array_equal(copied.get_layer("mean_image").mean, network.get_layer("mean_image").mean)
        layers = [layer for layer in network.layers if layer.trainable_weights]
        differing = {
            layer.name
            for layer in layers
            if not np.array_equal(layer.kernels[0], copied.get_layer(layer.name).kernels[0])
        }
        assert differing == others

    @pytest.mark.parametrize("names", [("a", "b", "c"), ("odd", "even")])
    def test_init_from_with_other_classes_needs_a_new_head(self, names, data, build_network, tmp_path):
        path = str(tmp_path / "source.keras")
        other = dataclasses.replace(data.description, class_names=names)
        build_network(dataclasses.replace(data, description=other)).save(path)
        message = rf"other classes\. .*source\.keras with {len(names)} classes \({', '.join(names)}, .* Set `new_head`"
        with pytest.raises(ValueError, match=message):
            build_network(init_from=path)
        build_network(init_from=path, new_head=True)

    def test_network_keeps_the_description_of_the_data(self, data, build_network):
        copy = keras.models.clone_model(build_network())
        description = descriptions.find_description(copy)
        assert description.class_names == data.description.class_names
        assert description.image_px == data.description.image_px


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
        assert (lars.trust, lars.scale_biases) == (0.01, False)
        assert make_optimizer(optimizer="lars", lars_biases=True).scale_biases


def known_loss(compiled):
    """The loss of a batch, its probabilities and its labels."""
    images = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype("uint8")
    batch, labels = {"image": images, "color_offset": np.zeros((4, 3), "float32")}, np.array([0, 1, 1, 0])
    loss = compiled.training_model.evaluate(batch, labels, verbose=0, return_dict=True)["loss"]
    return loss, compiled.network.predict(images, verbose=0), labels


class TestBuildTraining:
    def test_seed_determines_the_initial_weights(self, compile_network):
        first, same, other = (compile_network(seed=seed).network.get_weights() for seed in (7, 7, 8))
        for weight, equal in zip(first, same, strict=True):
            np.testing.assert_array_equal(weight, equal)
        assert not np.array_equal(first[1], other[1])

    @pytest.mark.parametrize("counts", [None, (40, 6)])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_loss_has_label_smoothing_and_balanced_class_weights(self, smoothing, counts, compile_network, data):
        changes, factors = {"label_smoothing": smoothing} | HE, np.ones(2)
        if counts:
            changes["class_weights"], factors = "balanced", 46 / 2 / np.array(counts)
            split = dataclasses.replace(data.description.splits["train"], count_per_class=counts)
            splits = data.description.splits | {"train": split}
            data = dataclasses.replace(data, description=dataclasses.replace(data.description, splits=splits))
        loss, probabilities, labels = known_loss(compile_network(data, **changes))
        targets = (1 - smoothing) * np.eye(2)[labels] + smoothing / 2
        losses = -np.sum(targets * np.log(probabilities), axis=1)
        np.testing.assert_allclose(loss, np.mean(factors[labels] * losses), rtol=1e-4)

    def test_optimizer_updates_and_measures_the_weights_that_are_not_frozen(self, compile_network):
        compiled = compile_network(freeze=("conv1", "fc6"))
        names = {variable.path.split("/")[0] for variable in compiled.optimizer._trainable_variables}
        assert names == {"conv2", "conv3", "conv4", "conv5", "fc7", "fc8"}
        kernels = [weight for weight in compiled.network.trainable_weights if len(weight.shape) > 1]
        assert [compiled.optimizer.gradient_norms.norm(kernel) for kernel in kernels] == [0.0] * 11  # no step yet
        assert compiled.confusion_matrix.classes == 2

    @pytest.mark.parametrize("jit", ["true", "false"])
    def test_xla_compiles_on_request(self, jit, compile_network, monkeypatch):
        def in_python(labels, probabilities, label_smoothing):  # XLA can't compile it
            return tf.ensure_shape(tf.py_function(lambda p: p[:, 0], [probabilities], tf.float32), (None,))

        monkeypatch.setattr(keras.losses, "categorical_crossentropy", in_python)
        compiled = compile_network(jit=jit, label_smoothing=0.1)
        if jit == "true":
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"compile.*EagerPyFunc"):
                known_loss(compiled)
        else:
            loss, probabilities, _ = known_loss(compiled)
            assert loss == pytest.approx(probabilities[:, 0].mean(), rel=1e-5)

    def test_half_precision_scales_the_loss(self, compile_network):
        try:
            compiled = compile_network(precision="mixed_float16", optimizer="lars")
        finally:
            keras.config.set_dtype_policy("float32")
        assert isinstance(compiled.training_model.optimizer, optimizers.AgreedLossScale)
        assert type(compiled.optimizer) is optimizers.Lars
        assert compiled.network.get_layer("conv2").compute_dtype == "float16"
        assert {weight.dtype for weight in compiled.network.weights} == {"float32"}
