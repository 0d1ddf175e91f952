"""The arguments of build_alexnet, weights of other networks, and saved models."""

import dataclasses
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import ENVIRONMENT

from alexnet_tf.model import build_alexnet, load_model, open_model, with_color_offset
from alexnet_tf.networks import descriptions
from alexnet_tf.tfrecords import schema

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("uint8")


def assert_equal_weights(weights, expected):
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(weight, other)


class TestBuildAlexnet:
    def test_other_initializer_has_zero_biases(self):
        model = build_alexnet("testing", 10, initializer="he_normal")
        conv2 = model.get_layer("conv2")
        assert abs(np.std(conv2.kernels[0]) / np.sqrt(2 / (5 * 5 * 4)) - 1) < 0.1
        assert np.all(np.asarray(conv2.biases[0]) == 0)

    def test_bytes_and_floats_give_equal_probabilities(self):
        model = build_alexnet("testing", 7)
        probabilities = model.predict(PIXELS, verbose=0)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(model.predict(np.float32(PIXELS), verbose=0), probabilities, rtol=1e-5)

    def test_unknown_variant(self):
        with pytest.raises(ValueError, match=r"one of \['batch_norm', .*variant='vgg'"):
            build_alexnet("vgg")

    def test_one_class(self):
        with pytest.raises(ValueError, match="num_classes=1"):
            build_alexnet("testing", 1)


SETTINGS = {"source": "folder:photos", "resize": "warp", "exif_orientation": False}
DESCRIPTION = schema.DatasetDescription(("a", "b", "c"), 72, False, "jpeg", {}, SETTINGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file of the network `testing` for 3 classes with a mean image, which knows its classes."""
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.01)
    model.get_layer("mean_image").set_mean_image(np.random.default_rng(0).uniform(0, 255, (56, 56, 3)))
    descriptions.set_description(model, DESCRIPTION)
    model.save(path)
    return path


class TestKerasApplicationsArguments:
    def test_include_top_false(self):
        whole = build_alexnet("testing", 10)
        base = build_alexnet("testing", include_top=False, weights=None)
        assert base.layers[-1].name == "pool5"
        assert base.output_shape == whole.get_layer("pool5").output.shape

    @pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
    def test_pooling(self, pooling, reduce):
        pooled = build_alexnet("testing", include_top=False, pooling=pooling, initializer="he_normal", input_scale=0.01)
        feature_maps = keras.Model(pooled.input, pooled.get_layer("pool5").output)(PIXELS).numpy()
        np.testing.assert_allclose(pooled(PIXELS), reduce(feature_maps, axis=(1, 2)), rtol=1e-5)

    def test_classifier_activation_none(self):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.01)
        logits = build_alexnet("testing", 10, initializer="zeros", input_scale=0.01, classifier_activation=None)
        logits.set_weights(model.get_weights())
        np.testing.assert_allclose(keras.ops.softmax(logits(PIXELS)), model(PIXELS), rtol=1e-5)

    @pytest.mark.parametrize("variant", ["paper", "caffe", "one_weird_trick", "testing"])
    def test_image_px(self, variant):
        for image_px in (32, 64, 96, 192, 300):
            try:
                model = build_alexnet(variant, 3, image_px=image_px, include_top=False, initializer="zeros")
            except ValueError as error:
                assert "the sides of the feature maps are conv1 " in str(error)
                assert f"has none. Received: image_px={image_px}" in str(error)
                assert image_px <= 64
            else:
                pixels = np.zeros((1, image_px, image_px, 3), "uint8")
                assert model(pixels).shape[1:] == model.output_shape[1:]

    def test_names_of_keras_applications(self):
        model = build_alexnet("testing", classes=3, input_shape=(64, 64, 3))
        assert (model.input_shape, model.output_shape) == ((None, 64, 64, 3), (None, 3))

    @pytest.mark.parametrize("size", [(56, 80), (None, None), (None, 70)])
    def test_rectangular_and_unknown_sizes_without_top(self, size, trained):
        known = build_alexnet("testing", include_top=False, weights=trained, image_px=80)
        base = build_alexnet("testing", include_top=False, weights=trained, input_shape=(*size, 3))
        assert base.input_shape == (None, *size, 3)
        color = np.mean(load_model(trained).get_layer("mean_image").mean, axis=(0, 1))
        pixels = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3)).astype("uint8")
        if size == (None, None):
            np.testing.assert_allclose(base.get_layer("mean_image").mean[0, 0], color, rtol=1e-5)
            np.testing.assert_allclose(base(pixels), known(pixels), atol=1e-5)
        pixels = pixels[:, : size[0], : size[1]]
        assert base(pixels).shape[1:] == keras.Model(base.input, base.output).compute_output_shape(pixels.shape)[1:]

    def test_input_tensor(self, trained):
        image = keras.Input((56, 56, 3), dtype="uint8")
        flipped = keras.ops.flip(image, 2)
        model = build_alexnet("testing", 3, input_tensor=flipped, weights=trained)
        expected = load_model(trained)(PIXELS[:, :, ::-1])
        np.testing.assert_allclose(model(PIXELS), expected, rtol=1e-5)
        noisy = with_color_offset(model)({"image": PIXELS, "color_offset": np.zeros((3, 3))})
        np.testing.assert_allclose(noisy, expected, rtol=1e-5)

    @pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64", "float32"])
    def test_dtype(self, dtype, trained, caplog):
        with caplog.at_level("WARNING", "absl"):
            model = build_alexnet("testing", 3, weights=trained, input_scale=0.01, dtype=dtype)
        assert ("mixed_float16 is slow without a GPU" in caplog.text) == (dtype == "mixed_float16")
        assert model.get_layer("conv1").compute_dtype == dtype.removeprefix("mixed_")
        assert model.output.dtype == ("float64" if dtype == "float64" else "float32")
        assert keras.config.dtype_policy().name == "float32"
        np.testing.assert_allclose(model(PIXELS), load_model(trained)(PIXELS), atol=0.02)
        with pytest.raises(ValueError, match="Valid policies include"):
            build_alexnet("testing", 3, dtype="float33")

    def test_image_px_determines_the_inputs_of_fc6(self):
        model = build_alexnet("testing", 3, image_px=88, name="mine")
        assert model.get_layer("fc6").kernels[0].shape[0] == np.prod(model.get_layer("pool5").output.shape[1:])
        assert model.name == "mine"

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"image_px": 20}, r"conv1 9, pool1 4, conv2 4, pool2 1, .* and pool5 has none\. Received: image_px=20"),
            ({"pooling": "avg"}, "None with `include_top`"),
            ({"pooling": "sum", "include_top": False}, r"Received: pooling='sum'"),
            ({"classifier_activation": "sigmoid"}, r'must be "softmax" or None'),
            ({"num_classes": 3, "classes": 4}, r"must be equal\. Received: num_classes=3, classes=4"),
            ({"input_shape": (56, 64, 3)}, r"unless `include_top` is False: .* input_shape of \(56, 64, 3"),
            ({"input_shape": (None, None, 3)}, r"squares of a known size .*Received: input_shape of \(None, None, 3\)"),
            ({"input_shape": (56, 56, 1)}, r"`input_shape` must have the shape \(height, width, 3\)\. Received"),
            ({"input_shape": (56, 56, 3), "image_px": 64}, "must have the same shape.*image_px of .64, 64, 3"),
            ({"input_tensor": np.zeros((1, 56, 56, 3))}, "must be symbolic.* Received: input_tensor=ndarray"),
        ],
    )
    def test_invalid_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            build_alexnet("testing", **arguments)

    @pytest.mark.parametrize("variant", ["one_weird_trick", "original"])
    def test_features_end_before_dropout(self, variant):
        base = build_alexnet(variant, include_top=False, initializer="zeros")
        assert base.layers[-1].name == {"one_weird_trick": "pool5", "original": "relu5"}[variant]


class TestWeightsOfAnotherNetwork:
    @pytest.mark.parametrize("form", [".keras", ".weights.h5"])
    def test_other_number_of_classes_loads_all_but_fc8_and_says_so(self, form, trained, tmp_path, caplog):
        source = load_model(trained)
        (source.save if form == ".keras" else source.save_weights)(tmp_path / f"net{form}")
        with caplog.at_level("WARNING", "absl"):
            model = build_alexnet("testing", 5, weights=tmp_path / f"net{form}", input_scale=0.01)
        assert "fc8 keeps its initial weights" in caplog.text
        assert_equal_weights(model.weights[:-2], source.weights[:-2])
        kernel, bias = model.get_layer("fc8").get_weights()
        assert kernel.shape == (32, 5) and np.std(kernel) > 0 and not bias.any()
        if form == ".keras":
            assert model.description.class_names == ("0", "1", "2", "3", "4") and model.description.resize == "warp"

    def test_saved_network_in_another_size_without_top(self, trained):
        source = load_model(trained)
        mean = np.array(source.get_layer("mean_image").mean)
        smaller = build_alexnet("testing", include_top=False, weights=trained, image_px=48)
        np.testing.assert_array_equal(smaller.get_layer("mean_image").mean, mean[4:52, 4:52])
        larger = build_alexnet("testing", include_top=False, weights=trained, image_px=72)
        np.testing.assert_allclose(larger.get_layer("mean_image").mean[9, 9], mean.mean((0, 1)), rtol=1e-5)

    @pytest.mark.parametrize("form", [".keras", ".weights.h5"])
    def test_file_with_features_only(self, form, trained, tmp_path):
        base = build_alexnet("testing", include_top=False, weights=trained)
        (base.save if form == ".keras" else base.save_weights)(tmp_path / f"base{form}")
        again = build_alexnet("testing", include_top=False, weights=tmp_path / f"base{form}")
        assert_equal_weights(again.weights, base.weights)
        with pytest.raises(ValueError, match="fc6"):
            build_alexnet("testing", 3, weights=tmp_path / f"base{form}")


class TestRefusedMethods:
    def test_quantize_in_place(self, trained):
        with pytest.raises(ValueError, match=r"can't be quantized in place.*--precision=int8.*conv1, mode='int8'"):
            load_model(trained).quantize("int8")

    def test_lora(self, trained):
        with pytest.raises(ValueError, match=r"has no LoRA.*trainable = False.*fc6, rank=4"):
            load_model(trained).get_layer("fc6").enable_lora(4)


class TestWithColorOffset:
    def test_shares_weights_and_adds_the_offset_in_training(self):
        model = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
        training_model = with_color_offset(model)
        assert [w.path for w in training_model.weights] == [w.path for w in model.weights]
        assert all(a is b for a, b in zip(training_model.weights, model.weights, strict=True))
        pixels = np.float32(PIXELS[:2])
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


def test_checkpoint_of_tensorflow_holds_all_weights(tmp_path):
    model, restored = build_alexnet("testing", 3, initializer="he_normal"), build_alexnet("testing", 3)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "weights"))
    tf.train.Checkpoint(model=restored).read(str(tmp_path / "weights")).assert_existing_objects_matched()
    assert_equal_weights(restored.weights, model.weights)


@pytest.mark.slow
def test_deleted_models_leave_no_memory():  # after `fit`, Keras itself keeps the weights of any model
    script = """
import gc, keras, numpy as np, psutil
from alexnet_tf.model import build_alexnet
sizes = []
for _ in range(5):
    model = build_alexnet("one_column", initializer="zeros")
    model.predict(np.zeros((1, 224, 224, 3), "uint8"), verbose=0)
    del model
    gc.collect()
    sizes.append(psutil.Process().memory_info().rss)
print(*sizes)
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    sizes = [int(size) for size in result.stdout.split()]
    assert sizes[-1] < 1.05 * sizes[2], sizes


class TestLoadModel:
    def test_lone_file_names_classes_by_index(self, tmp_path, caplog):
        model = build_alexnet("testing", 3)
        model.save(tmp_path / "mine.keras")
        with caplog.at_level("WARNING", "absl"):
            loaded = load_model(tmp_path / "mine.keras")
        assert (loaded.description.class_names, loaded.description.image_px) == (("0", "1", "2"), 256)
        descriptions.set_description(loaded, loaded.description)
        assert descriptions.find_description(keras.models.clone_model(loaded)).settings["source"] is None
        assert "No dataset.json found next to" in caplog.text

    def test_lone_file_keeps_the_description(self, trained):
        loaded = load_model(trained)
        assert loaded.description == DESCRIPTION
        for copy in (keras.models.clone_model(loaded), pickle.loads(pickle.dumps(loaded))):
            assert descriptions.find_description(copy) == DESCRIPTION
        assert descriptions.find_description(build_alexnet("testing", 3)) is None

    def test_nested_network(self, trained, tmp_path):
        base = build_alexnet("testing", include_top=False, pooling="avg", weights=trained)
        model = keras.Sequential([base, keras.layers.Dense(2, activation="softmax")])
        model.save(tmp_path / "mine.keras")
        loaded = load_model(tmp_path / "mine.keras")
        assert [layer.name for layer in loaded.layers[1:3]] == ["mean_image", "conv1"]
        np.testing.assert_array_equal(loaded(PIXELS), model(PIXELS))
        assert loaded.description == dataclasses.replace(DESCRIPTION, class_names=("0", "1"))

    def test_another_model(self, tmp_path):
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(tmp_path / "model.keras")
        with pytest.raises(ValueError, match="is not a model of this project"):
            open_model(tmp_path / "model.keras")
        (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
        with pytest.raises(ValueError, match="is not a complete Keras model"):
            open_model(tmp_path / "model.h5")
