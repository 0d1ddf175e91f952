"""The network that is built: the paper's against an independent build of it in NumPy, its forms, saving, precision."""

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet, load_model, with_color_offset


@pytest.fixture(scope="module")
def paper():
    keras.utils.set_random_seed(0)
    return build_alexnet("paper")


class TestBuildAlexnet:
    def test_first_weights_are_the_papers(self, paper):
        for name, bias in zip(
            ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"], [0, 1, 0, 1, 1, 1, 1], strict=True
        ):
            layer = paper.get_layer(name)
            for kernel, values in zip(layer.kernels, layer.biases, strict=True):
                assert abs(np.std(kernel) - 0.01) < 0.0005, name
                assert abs(np.mean(kernel)) < 0.0005, name
                assert np.all(np.asarray(values) == bias), name
        kernel, bias = paper.get_layer("fc8").get_weights()
        assert abs(np.std(kernel) - 0.01) < 0.0005
        assert np.all(bias == 0)

    def test_other_initializer_comes_with_biases_of_zero(self):
        model = build_alexnet("testing", 10, initializer="he_normal")
        conv2 = model.get_layer("conv2")
        assert abs(np.std(conv2.kernels[0]) / np.sqrt(2 / (5 * 5 * 4)) - 1) < 0.1
        assert np.all(np.asarray(conv2.biases[0]) == 0)

    def test_logits_and_gradients_equal_an_independent_numpy_build(self, paper):
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (2, 224, 224, 3)).astype("uint8")
        mean = np.full((224, 224, 3), 120, "float32")
        paper.get_layer("mean_image").set_mean_image(mean)
        labels = np.array([3, 997])
        weights = {}
        for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"):
            layer = paper.get_layer(name)
            # He's weights, so that every layer's signal, and with it every gradient, is of a size to be compared.
            for kernel in layer.kernels:
                kernel.assign(random.normal(scale=np.sqrt(2 / np.prod(kernel.shape[:-1])), size=kernel.shape))
            weights[name] = tuple([np.float64(w) for w in ws] for ws in (layer.kernels, layer.biases))
        kernel, bias = paper.get_layer("fc8").weights
        weights["fc8"] = ([np.float64(kernel)], [np.float64(bias)])

        logits_model = keras.Model(paper.input, paper.get_layer("fc8").output)
        with tf.GradientTape() as tape:
            logits = logits_model(images, training=False)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
        gradients = tape.gradient(loss, [w.value for w in paper.trainable_weights])
        gradients = {w.path: g.numpy() for w, g in zip(paper.trainable_weights, gradients, strict=True)}

        expected_logits, expected_loss, expected = reference.paper_alexnet(np.float64(images) - mean, weights, labels)
        np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-4 * np.abs(expected_logits).max())
        assert abs(float(loss) - expected_loss) < 1e-4 * abs(expected_loss)
        compared = 0
        for name, (d_kernels, d_biases) in expected.items():
            for column, (d_kernel, d_bias) in enumerate(zip(d_kernels, d_biases, strict=True), start=1):
                suffix = "" if name == "fc8" else f"_{column}"
                for kind, gradient in (("kernel", d_kernel), ("bias", d_bias)):
                    ours = gradients[f"{name}/{kind}{suffix}"]
                    error = np.linalg.norm(ours - gradient) / np.linalg.norm(gradient)
                    assert error < 1e-4, f"{name} {kind}{suffix}: {error:.2e}"
                    compared += 1
        assert compared == len(gradients) == 30

    def test_probabilities_sum_to_one_and_take_bytes_or_floats(self):
        model = build_alexnet("testing", 7)
        pixels = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("uint8")
        probabilities = model.predict(pixels, verbose=0)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(model.predict(np.float32(pixels), verbose=0), probabilities, rtol=1e-5)

    def test_saved_model_gives_the_same_output(self, tmp_path):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.01)
        model.get_layer("mean_image").set_mean_image(np.full((64, 64, 3), 100.0))
        pixels = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("uint8")
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(pixels), model(pixels))

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision_is_near_float32_and_ends_in_float32(self, policy):
        pixels = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("uint8")
        whole = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
        keras.config.set_dtype_policy(policy)
        try:
            mixed = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
        finally:
            keras.config.set_dtype_policy("float32")
        mixed.set_weights(whole.get_weights())
        output = mixed(pixels)
        assert output.dtype == tf.float32
        assert mixed.get_layer("conv1").compute_dtype != "float32"
        np.testing.assert_allclose(output, whole(pixels), atol=0.02)

    def test_unknown_variant_is_refused_with_the_names_there_are(self):
        with pytest.raises(ValueError, match=r"one of \['batch_norm', .*variant='vgg'"):
            build_alexnet("vgg")

    def test_one_class_is_refused(self):
        with pytest.raises(ValueError, match="num_classes=1"):
            build_alexnet("testing", 1)


class TestKerasApplicationsArguments:
    def test_without_top_the_output_is_the_last_pooling(self):
        whole = build_alexnet("testing", 10)
        base = build_alexnet("testing", include_top=False, weights=None)
        assert base.layers[-1].name == "pool5"
        assert base.output_shape == whole.get_layer("pool5").output.shape

    @pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
    def test_pooling_reduces_its_feature_maps(self, pooling, reduce):
        pooled = build_alexnet("testing", include_top=False, pooling=pooling, initializer="he_normal", input_scale=0.01)
        pixels = np.random.default_rng(0).integers(0, 256, (2, *pooled.input_shape[1:])).astype("uint8")
        feature_maps = keras.Model(pooled.input, pooled.get_layer("pool5").output)(pixels).numpy()
        np.testing.assert_allclose(pooled(pixels), reduce(feature_maps, axis=(1, 2)), rtol=1e-5)

    def test_logits_are_what_softmax_would_take(self):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.01)
        logits = build_alexnet("testing", 10, initializer="zeros", input_scale=0.01, classifier_activation=None)
        logits.set_weights(model.get_weights())
        pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3)).astype("uint8")
        np.testing.assert_allclose(keras.ops.softmax(logits(pixels)), model(pixels), rtol=1e-5)

    @pytest.mark.parametrize("variant", ["paper", "caffe", "one_weird_trick", "testing"])
    def test_other_sizes_are_built_or_refused_with_the_sides_of_the_feature_maps(self, variant):
        for image_px in (32, 64, 96, 128, 192, 256, 300, 512):
            try:
                model = build_alexnet(variant, 3, image_px=image_px, include_top=False, initializer="zeros")
            except ValueError as error:
                assert "the sides of the feature maps are conv1 " in str(error)
                assert f"has none. Received: image_px={image_px}" in str(error)
                assert image_px <= 64
            else:
                pixels = np.zeros((1, image_px, image_px, 3), "uint8")
                assert model(pixels).shape[1:] == model.output_shape[1:]

    def test_first_dense_layer_has_an_input_for_each_place(self):
        model = build_alexnet("testing", 3, image_px=88, name="mine")
        places, channels = model.get_layer("pool5").output.shape[1:3], model.get_layer("pool5").output.shape[3]
        assert sum(kernel.shape[0] for kernel in model.get_layer("fc6").kernels[:1]) == places[0] * places[1] * channels
        assert model.name == "mine"

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"image_px": 20}, r"conv1 9, pool1 4, conv2 4, pool2 1, .* and pool5 has none\. Received: image_px=20"),
            ({"pooling": "avg"}, "None with `include_top`"),
            ({"pooling": "sum", "include_top": False}, r"Received: pooling='sum'"),
            ({"classifier_activation": "sigmoid"}, r'must be "softmax" or None'),
        ],
    )
    def test_impossible_arguments_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            build_alexnet("testing", **arguments)


class TestWithColorOffset:
    def test_shares_every_weight_and_adds_the_offset_in_training(self):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
        training_model = with_color_offset(model)
        assert [w.path for w in training_model.weights] == [w.path for w in model.weights]
        assert all(a is b for a, b in zip(training_model.weights, model.weights, strict=True))
        pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3)).astype("float32")
        offset = np.float32([[30, -20, 10], [-5, 50, 0]])
        shifted = model(pixels + offset[:, None, None, :], training=False)
        first_layers = keras.Model(
            training_model.inputs, training_model.get_layer("mean_image")._inbound_nodes[1].outputs[0]
        )
        seen = first_layers({"image": pixels, "color_offset": offset}, training=True)
        np.testing.assert_allclose(seen, (pixels + offset[:, None, None, :]) / 80, rtol=1e-5)
        unshifted = training_model({"image": pixels, "color_offset": offset}, training=False)
        np.testing.assert_array_equal(unshifted, model(pixels, training=False))
        assert not np.allclose(unshifted, shifted)


class TestLoadModel:
    def test_file_of_model_save_alone_has_classes_named_by_their_numbers(self, tmp_path, caplog):
        model = build_alexnet("testing", 3)
        model.save(tmp_path / "mine.keras")
        with caplog.at_level("WARNING", "absl"):
            loaded, description = load_model(tmp_path / "mine.keras")
        np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
        assert (description.class_names, description.image_px) == (("0", "1", "2"), 256)
        assert "no dataset.json lies beside it" in caplog.text
