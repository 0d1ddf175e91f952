"""Published weights by name, and weights files."""

import dataclasses
import functools
import hashlib
import http.server

import keras
import numpy as np
import pytest
import torch
import yaml
from made_foreign import (
    LAYERS,
    make_images,
    make_layers,
    make_network,
    make_thin,
    reference_logits,
    torchvision_state,
    write_caffemodel,
)
from programs import call, in_background

from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.networks import structure
from alexnet_tf.weights import downloads, pretrained, published, transfer


@pytest.fixture
def thin(monkeypatch):
    make_thin(monkeypatch, "caffe", "one_weird_trick")


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """A function that serves a file, and the mean image of Caffe's rows, under the row of published weights."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with in_background(http.server.ThreadingHTTPServer(("localhost", 0), handler)) as server:

        def remote(path):
            url = f"http://localhost:{server.server_address[1]}/{path.name}"
            checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            return downloads.RemoteFile(path.name, checksum, path.stat().st_size, (url,))

        def publish(name, write, mean_image=None):
            row = published.PUBLISHED[name]
            path = folder / row.file.name
            write(path)
            if mean_image is not None:
                np.save(folder / "mean.npy", mean_image)
                mean_image = remote(folder / "mean.npy")
            made = dataclasses.replace(row, file=remote(path), mean_image=mean_image)
            monkeypatch.setitem(published.PUBLISHED, name, made)

        yield publish


@pytest.fixture
def network(thin):
    return make_network("one_weird_trick", 1000)


def save_state(network, path, prefix=""):
    """Writes the part of a network whose names in torchvision begin with `prefix`."""
    state = torchvision_state(network).items()
    torch.save({name: value.float() for name, value in state if name.startswith(prefix)}, path)


def test_imagenet_weights(publish, network):
    publish("torchvision", lambda path: save_state(network, path))
    model = build_alexnet("one_weird_trick", weights="imagenet")
    pixels = make_images(224)
    expected = reference_logits(network, pixels)
    logits = keras.Model(model.input, model.get_layer("fc8").output)(pixels)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    without_softmax = build_alexnet("one_weird_trick", weights="torchvision", classifier_activation=None)
    np.testing.assert_allclose(without_softmax(pixels), logits, rtol=1e-5, atol=1e-5)

    features = build_alexnet("one_weird_trick", weights="torchvision", include_top=False, pooling="avg", image_px=300)
    assert features.output_shape == (None, 8)
    for weight in features.weights:
        (same,) = [each for each in model.weights if each.path == weight.path]
        assert weight.path.startswith("mean_image/") or np.array_equal(weight, same), weight.path

    tuned = build_alexnet("one_weird_trick", 7, weights="imagenet")
    np.testing.assert_array_equal(tuned.get_layer("fc7").get_weights()[0], model.get_layer("fc7").get_weights()[0])
    head = tuned.get_layer("fc8").get_weights()[0]
    assert head.shape == (16, 7) and np.std(head) > 0

    opened = load_model("torchvision")
    np.testing.assert_array_equal(opened.get_layer("fc8").get_weights()[0], model.get_layer("fc8").get_weights()[0])
    assert opened.description.class_names[0] == "n01440764 tench, Tinca tinca"
    assert len(set(opened.description.class_names)) == 1000


@pytest.mark.parametrize("flags, expected", [([], "bsd-3-clause"), (["--license=MIT"], "mit")])
def test_license_of_converted_weights_is_the_published_or_the_given_one(flags, expected, publish, network, tmp_path):
    publish("torchvision", lambda path: save_state(network, path))
    call("convert", "--input=torchvision", f"--output_dir={tmp_path / 'out'}", *flags)
    header = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])
    assert header["license"] == expected


def test_center_of_the_published_mean_image_is_subtracted(publish, thin):
    mean_image = np.random.default_rng(0).uniform(0, 255, (3, 256, 256))
    publish("caffe", lambda path: write_caffemodel(path, make_layers("caffe", 1000)), mean_image)
    model = build_alexnet("caffe", weights="imagenet")
    expected = mean_image[::-1, 14:241, 14:241].transpose(1, 2, 0)
    np.testing.assert_allclose(model.get_layer("mean_image").mean, expected, rtol=1e-6)


class TestFiles:
    def test_caffemodel_without_order_fits_any_variant_of_its_shapes(self, tmp_path):
        layers = make_layers()
        write_caffemodel(tmp_path / "net.caffemodel", layers, only=(*LAYERS, "no more"))
        model = build_alexnet("testing", 3, weights=tmp_path / "net.caffemodel")
        np.testing.assert_allclose(
            structure.merged_weights(model.get_layer("fc7"))["kernel"], layers.fc7.weight.numpy().T
        )
        write_caffemodel(tmp_path / "net.caffemodel", layers)  # its order says that it is Caffe's
        with pytest.raises(ValueError, match=r"belongs to variant 'caffe'\. Received: variant='testing'"):
            build_alexnet("testing", 3, weights=tmp_path / "net.caffemodel")

    def test_state_dict_with_features_only(self, network, tmp_path):
        save_state(network, tmp_path / "net.pth")
        save_state(network, tmp_path / "features.pth", "features.")
        models = [
            build_alexnet("one_weird_trick", weights=tmp_path / name, include_top=False, image_px=64)
            for name in ("net.pth", "features.pth")
        ]
        for weight, expected in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(weight, expected)
        with pytest.raises(ValueError, match=r"fc6 is missing.*`include_top=False`"):
            build_alexnet("one_weird_trick", weights=tmp_path / "features.pth")

    @pytest.mark.parametrize("form", ["model.keras", ".", "model.weights.h5"])
    def test_own_weights(self, form, tmp_path):
        model = build_alexnet("testing", 3)
        model.get_layer("mean_image").set_mean_image(np.full((56, 56, 3), 7.0))
        (model.save_weights if form.endswith(".h5") else model.save)(
            tmp_path / ("model.keras" if form == "." else form)
        )
        loaded = build_alexnet("testing", 3, weights=tmp_path / form)
        for weight, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_empty_folder_does_not_hide_published_weights(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("imagenet", "caffe"):
            (tmp_path / name).mkdir()
        assert pretrained.published_name("imagenet", "one_weird_trick") == "torchvision"
        assert pretrained.published_name("caffe") == "caffe"
        build_alexnet("testing", 3).save(tmp_path / "caffe" / "model.keras")
        assert pretrained.published_name("caffe") is None

    def test_imagenet_without_the_top_needs_no_large_download(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        complete = published.PUBLISHED["torchvision"].file.path
        assert pretrained.published_name("imagenet", "one_weird_trick", include_top=False) == "torchvision_features"
        assert pretrained.published_name("imagenet", "caffe", include_top=False) == "caffe"
        complete.parent.mkdir()
        complete.touch()
        assert pretrained.published_name("imagenet", "one_weird_trick", include_top=False) == "torchvision"

    @pytest.mark.slow
    def test_features_become_a_network_of_convolutions(self, published_features, tmp_path):
        model = build_alexnet("one_weird_trick", weights="torchvision_features", include_top=False)
        kernel = structure.merged_weights(model.get_layer("conv1"))["kernel"]
        np.testing.assert_allclose(kernel[0, :3, 0, 0], [0.11864, 0.09407, 0.09544], atol=1e-5)  # torchvision's
        tuned = build_alexnet("one_weird_trick", 5, initializer="he_normal")
        before = tuned.get_layer("fc6").get_weights()[0]
        transfer.copy_weights(load_model("torchvision_features"), tuned, new_head=True)
        np.testing.assert_array_equal(tuned.get_layer("conv1").get_weights()[0], kernel)
        np.testing.assert_array_equal(tuned.get_layer("fc6").get_weights()[0], before)

    def test_features_with_the_top_are_refused_and_named_when_the_rest_is_missing(self, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="are convolutions only: `include_top` must be False"):
            build_alexnet("one_weird_trick", weights="torchvision_features")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(downloads, "_RETRIES", 0)
        unreachable = dataclasses.replace(published.PUBLISHED["torchvision"].file, urls=("http://localhost:9/",))
        row = dataclasses.replace(published.PUBLISHED["torchvision"], file=unreachable)
        monkeypatch.setitem(published.PUBLISHED, "torchvision", row)
        with pytest.raises(ValueError, match=r"--model=torchvision_features .convolutions, no classifier."):
            build_alexnet("one_weird_trick", weights="imagenet")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": "caffe"}, r"'caffe'.* belong to variant 'caffe'\. Received: variant='paper'"),
        ({"weights": "imagenet"}, r"published for caffe, caffenet, one_weird_trick\. Received: .*paper"),
        (
            {"variant": "one_weird_trick", "image_px": 256, "weights": "imagenet"},
            "`image_px` must be 224 with `weights` and `include_top`",
        ),
        ({"weights": "vgg"}, r"torchvision, caffe, .*, imagenet, or a file\. Received: vgg"),
    ],
)
def test_weights_that_do_not_belong_to_the_network(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_alexnet(**{"variant": "paper"} | arguments)


def test_images_are_resized_as_for_the_published_errors():
    resizes = {name: pretrained.description(name).resize for name in published.PUBLISHED}
    assert resizes == {name: row.resize for name, row in published.PUBLISHED.items()}
    assert set(resizes.values()) == {"crop", "warp"}
