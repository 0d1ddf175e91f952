"""alexnet-describe FILE on small files of every format."""

import dataclasses
import pathlib

import keras
import onnx
import pytest
import safetensors.numpy
import torch
from made_foreign import LAYERS, make_layers, make_thin, torchvision_state, write_caffemodel, write_npy
from programs import call

from alexnet_tf import identification
from alexnet_tf.identification import describe_file
from alexnet_tf.layers import device_placement
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import downloads, published

BVLC = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_bvlc_alexnet.onnx"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_thin(monkeypatch, "caffe", "caffenet", "one_weird_trick")


class TestOtherPrograms:
    @pytest.mark.parametrize("name", ["net.pth", "net.pth.tar", "net.safetensors"])
    def test_state_dict(self, name, tmp_path):
        path, state = tmp_path / name, torchvision_state(make_layers("one_weird_trick", 1000))
        if name.endswith("safetensors"):
            safetensors.numpy.save_file({key: each.numpy() for key, each in state.items()}, path)
        else:  # as PyTorch's training example saves it
            state = {key.replace("features.", "features.module."): each for key, each in state.items()}
            torch.save({"state_dict": state, "epoch": 9}, path)
        text = describe_file(path)
        assert f"{path}: variant one_weird_trick, torchvision's alexnet" in text
        assert "1,000 classes, assumed to be ImageNet's: n01440764 tench, n01443537 goldfish" in text
        assert "subtracts the mean color (123.67, 116.28, 103.53) and divides by (58.395, 57.12, 57.375)" in text
        assert "conv1 takes red, green, blue" in text
        assert f'build_alexnet("one_weird_trick", weights="{path}")' in text
        assert f"alexnet-convert --input={path} --output_dir=converted" in text
        assert "one_weird_trick  conv1" in text  # where it departs from the paper's

    @pytest.mark.parametrize("pool_first, variant", [(False, "caffe"), (True, "caffenet")])
    def test_fine_tuned_caffemodel(self, pool_first, variant, tmp_path):
        path = tmp_path / "net.caffemodel"
        write_caffemodel(path, make_layers(variant, 20), pool_first=pool_first)
        path.write_bytes(path.read_bytes().replace(b"\x03fc8", b"\x03new"))  # as Caffe's users name a new classifier
        text = describe_file(path)
        assert f": variant {variant}, " in text and "\n20 classes.\n" in text
        assert f'build_alexnet("{variant}", 20, weights="{path}")' in text
        assert "conv1 takes blue, green, red" in text and "--class_names=FILE_WITH_A_NAME_PER_LINE" in text

    def test_caffemodel_without_order_fits_several_variants(self, tmp_path):
        path = tmp_path / "net.caffemodel"
        write_caffemodel(path, make_layers("caffe", 1000), only=(*LAYERS, "no more"))
        text = describe_file(path)
        assert "Its layers fit several variants:\n  caffe: " in text and "\n  caffenet: " in text
        assert "--variant=caffe|caffenet" in text and "build_alexnet(VARIANT, " in text

    def test_npy(self, tmp_path):
        write_npy(tmp_path / "net.npy", make_layers("caffe", 1000))
        assert ": variant caffe, " in describe_file(tmp_path / "net.npy")

    @pytest.mark.parametrize("size_published", [True, False])
    def test_published_file(self, size_published, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        path = tmp_path / "a_file_on_a_disk.pth"
        torch.save(torchvision_state(make_layers("one_weird_trick", 1000)), path)
        row = published.PUBLISHED["torchvision"]
        num_bytes = path.stat().st_size if size_published else None
        file = dataclasses.replace(row.file, checksum=downloads.digest(path, "sha256"), num_bytes=num_bytes)
        monkeypatch.setitem(published.PUBLISHED, "torchvision", dataclasses.replace(row, file=file))
        text = describe_file(path)
        assert "Its checksum is that of the published file 'torchvision'" in text
        assert "top-1 43.478%, top-5 20.934%, on images resized with the shorter side to 256 pixels" in text
        assert "License: BSD-3-Clause" in text and f"Copied to {tmp_path / 'keras' / 'models' / row.file.name}" in text
        assert 'build_alexnet("one_weird_trick", weights="torchvision")' in text


class TestOwnFiles:
    @pytest.mark.parametrize(
        "variant, form", [("testing", "net.keras"), ("caffenet", "net.h5"), ("four_layer_tanh", "folder")]
    )
    def test_variant_follows_from_the_layers(self, variant, form, tmp_path):
        model, path = build_alexnet(variant, 3, name="mine", merge_columns=variant == "caffenet"), tmp_path / form
        if form == "folder":
            path.mkdir()
            schema.DatasetDescription(("a", "b", "c"), 64, False, "png", {}, {"source": "folder:photos"}).save(path)
        model.save(path / "model.keras" if form == "folder" else path)
        text = describe_file(path)
        assert f": variant {variant}, " in text and "\n3 classes.\n" in text
        assert ("Trained on folder:photos, 64 pixels: a, b, c" in text) == (form == "folder")
        assert f'load_model("{path}")' in text

    def test_network_without_its_top(self, tmp_path):
        build_alexnet("testing", include_top=False, pooling="avg").save(tmp_path / "net.keras")
        text = describe_file(tmp_path / "net.keras")
        assert ": variant testing, " in text and "Without its fully-connected layers." in text

    def test_network_with_columns_on_devices(self, tmp_path, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)
        build_alexnet("testing", 3, column_devices=["CPU:0", "CPU:0"]).save(tmp_path / "net.keras")
        assert ": variant testing, " in describe_file(tmp_path / "net.keras")

    @pytest.mark.parametrize("name, value", [("k", 1.0), ("n", 3), ("alpha", 2e-4), ("beta", 0.5)])
    def test_another_normalization_is_no_variant(self, name, value):
        network, testing = build_alexnet("testing", 3), VARIANTS["testing"]
        assert identification._is_variant(network, testing, 3)
        setattr(structure.column_layer(network.get_layer("norm2")), name, value)
        assert not identification._is_variant(network, testing, 3)

    def test_own_classifier_on_a_base(self, tmp_path):
        base = build_alexnet("testing", include_top=False, pooling="avg")
        keras.Sequential([base, keras.layers.Dense(5, activation="softmax")]).save(tmp_path / "net.keras")
        text = describe_file(tmp_path / "net.keras")
        assert ": variant testing, " in text and "\n5 classes.\n" in text


class TestRefusals:
    @pytest.mark.parametrize(
        "name, content, message",
        [
            ("net.bin", b"", r"must end in one of \.caffemodel, .*\.keras, \.h5\. Received: .*net\.bin"),
            ("net.pth", b"no network", r"net\.pth is not a state dict"),
            ("net.weights.h5", b"", r"net\.weights\.h5 holds weights without their network"),
            ("net.keras", b"no network", r"net\.keras is not a complete Keras model"),
        ],
    )
    def test_other_file(self, name, content, message, tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            describe_file(tmp_path / name)


def test_third_party_onnx_graph(monkeypatch):
    monkeypatch.undo()
    assert (
        f"{BVLC}: variant caffe_224, Caffe's bvlc_alexnet for 224 pixels, as in the ONNX model zoo.\n1,000 classes"
        in describe_file(BVLC)
    )


def test_program_describes_several_files(tmp_path):
    torch.save(torchvision_state(make_layers("one_weird_trick", 20)), tmp_path / "net.pth")
    output = call("describe", tmp_path / "net.pth", tmp_path / "net.pth")
    assert output == "\n".join([describe_file(tmp_path / "net.pth")] * 2)
