"""Published weights by name, and weights files."""

import dataclasses
import functools
import hashlib
import http.server
import pathlib
import shutil

import keras
import numpy as np
import onnx
import pytest
import torch
import torch_reference
from made_foreign import LAYERS, make_layers, torchvision_state, write_caffemodel
from programs import in_background

from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.networks import structure
from alexnet_tf.weights import downloads, pretrained, published, transfer

BVLC = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_bvlc_alexnet.onnx"


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
            return downloads.RemoteFile(path.name, (url,), checksum, path.stat().st_size)

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


def save_random_torchvision(path):
    """Writes a synthetic alexnet-owt file. Returns the network, in double precision."""
    torch.manual_seed(0)
    network = torch_reference.build("one_weird_trick", 1000).double().eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5)
                layer.bias.normal_(0, 0.5)
    state = {name: value.float() for name, value in torchvision_state(network).items()}
    torch.save(state, path)
    return network


@pytest.mark.slow
def test_imagenet_weights(publish):
    networks = []
    publish("torchvision", lambda path: networks.append(save_random_torchvision(path)))
    model = build_alexnet("one_weird_trick", weights="imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("uint8")
    normalized = (np.float64(pixels) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        expected = networks[0](torch.tensor(normalized.transpose(0, 3, 1, 2))).numpy()
    logits = keras.Model(model.input, model.get_layer("fc8").output)(pixels).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    without_softmax = build_alexnet("one_weird_trick", weights="torchvision", classifier_activation=None)
    np.testing.assert_allclose(without_softmax(pixels), logits, rtol=1e-5, atol=1e-5)

    features = build_alexnet("one_weird_trick", weights="torchvision", include_top=False, pooling="avg", image_px=300)
    assert features.output_shape == (None, 256)
    for weight in features.weights:
        layer, _, name = weight.path.partition("/")
        (same,) = [each for each in model.weights if each.path == weight.path]
        assert layer == "mean_image" or np.array_equal(weight, same), name

    tuned = build_alexnet("one_weird_trick", 7, weights="imagenet")  # fc8 is new
    np.testing.assert_array_equal(tuned.get_layer("fc7").get_weights()[0], model.get_layer("fc7").get_weights()[0])
    assert tuned.get_layer("fc8").get_weights()[0].shape == (4096, 7)
    assert np.std(tuned.get_layer("fc8").get_weights()[0]) > 0

    opened = load_model("torchvision")
    description = opened.description
    np.testing.assert_array_equal(opened.get_layer("fc8").get_weights()[0], model.get_layer("fc8").get_weights()[0])
    assert description.class_names[0] == "n01440764 tench, Tinca tinca"
    assert len(set(description.class_names)) == 1000


class TestMeanImage:
    def publish_bvlc(self, publish, mean_image):
        publish("bvlcalexnet", lambda path: shutil.copy(BVLC, path), mean_image)

    @pytest.mark.slow
    def test_mean_image_of_published_weights(self, publish):
        mean_image = np.random.default_rng(0).uniform(0, 255, (3, 256, 256))
        self.publish_bvlc(publish, mean_image)
        model = build_alexnet("caffe", weights="bvlcalexnet")
        expected = mean_image[::-1, 14:241, 14:241].transpose(1, 2, 0)
        np.testing.assert_allclose(model.get_layer("mean_image").mean, expected, rtol=1e-6)
        assert {float(np.ptp(weight)) for weight in model.trainable_weights} == {0.0}  # as in the graph

    def test_larger_images_use_the_mean_color(self, publish):
        self.publish_bvlc(publish, np.broadcast_to(np.float32([1, 2, 3])[:, None, None], (3, 256, 256)))
        model = build_alexnet("caffe", weights="bvlcalexnet", include_top=False, image_px=257)
        expected = np.broadcast_to(np.float32([3, 2, 1]), (257, 257, 3))
        np.testing.assert_array_equal(model.get_layer("mean_image").mean, expected)


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

    def test_state_dict_with_features_only(self, tmp_path):
        network = save_random_torchvision(tmp_path / "net.pth")
        state = torchvision_state(network)
        torch.save({name: x for name, x in state.items() if name.startswith("features.")}, tmp_path / "features.pth")
        arguments = {"include_top": False, "image_px": 64}
        model = build_alexnet("one_weird_trick", weights=tmp_path / "features.pth", **arguments)
        complete = build_alexnet("one_weird_trick", weights=tmp_path / "net.pth", **arguments)
        for weight, expected in zip(model.get_weights(), complete.get_weights(), strict=True):
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
        unreachable = dataclasses.replace(published.PUBLISHED["torchvision"].file, urls=("http://localhost:9/",))
        row = dataclasses.replace(published.PUBLISHED["torchvision"], file=unreachable)
        monkeypatch.setitem(published.PUBLISHED, "torchvision", row)
        with pytest.raises(ValueError, match="convolutions alone are available: weights='torchvision_features'"):
            build_alexnet("one_weird_trick", weights="imagenet")


class TestRefusals:
    def test_weights_of_another_variant(self):
        with pytest.raises(ValueError, match=r"'caffe'.* belong to variant 'caffe'\. Received: variant='paper'"):
            build_alexnet("paper", weights="caffe")

    def test_variant_without_published_weights(self):
        with pytest.raises(ValueError, match=r"published for caffe, caffenet, one_weird_trick\. Received: .*paper"):
            build_alexnet("paper", weights="imagenet")

    def test_other_image_size(self, publish):
        with pytest.raises(ValueError, match="`image_px` must be 224 with `weights` and `include_top`"):
            build_alexnet("one_weird_trick", image_px=256, weights="imagenet")

    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"torchvision, caffe, .*, imagenet, or a file\. Received: vgg"):
            build_alexnet("paper", weights="vgg")
