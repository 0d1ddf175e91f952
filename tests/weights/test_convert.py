"""Converted weights against the original network, built in PyTorch; merged and split columns."""

import keras
import numpy as np
import pytest
import torch
from made_foreign import (
    LAYERS,
    make_images,
    make_layers,
    make_network,
    make_thin,
    reference_logits,
    torchvision_state,
    write_caffemodel,
    write_npy,
)
from programs import call

from alexnet_tf import convert
from alexnet_tf.layers import device_placement
from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.weights import pretrained_files, transfer


@pytest.fixture(autouse=True)
def thin(monkeypatch):
    keras.utils.set_random_seed(0)  # some initial weights give small logits
    others = ("paper", "independent_columns", "batch_norm", "no_dropout")
    make_thin(monkeypatch, "caffe", "caffenet", "one_weird_trick", *others)


@pytest.fixture
def names_file(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    return tmp_path / "names.txt"


def logits(model, pixels):
    return keras.Model(model.input, model.get_layer("fc8").output)(pixels).numpy()


def assert_logits_equal(ours, expected):
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


class TestOtherPrograms:
    @pytest.mark.parametrize(
        "variant, form",
        [
            ("caffe", "caffemodel"),
            ("caffe", "old.caffemodel"),
            ("caffenet", "caffemodel"),
            ("caffe", "npy"),
            ("caffe", "python2.npy"),
            ("one_weird_trick", "pth"),
            ("one_weird_trick", "legacy.pth"),
        ],
    )
    def test_logits_equal_the_original_networks(self, variant, form, names_file, tmp_path, caplog):
        network, path = make_network(variant, 10), tmp_path / f"net.{form}"
        if "caffemodel" in form:
            write_caffemodel(path, network, old="old" in form, pool_first=variant == "caffenet")
        elif "npy" in form:
            write_npy(path, network, python2="python2" in form)
        else:
            state = {name: value.float() for name, value in torchvision_state(network).items()}
            torch.save(state, path, _use_new_zipfile_serialization=form == "pth")
        columns = ["--columns=split"] if form == "old.caffemodel" else []
        flags = [f"--input={path}", f"--class_names={names_file}", f"--output_dir={tmp_path / 'run'}", *columns]
        assert f": {variant}, " in call("convert", *flags)
        assert "compute something else" not in caplog.text
        model = load_model(tmp_path / "run")
        assert model.description.class_names == tuple("abcdefghij")
        assert model.description.resize == ("crop" if variant == "one_weird_trick" else "warp")
        assert len(model.get_layer("fc6").kernels) == (2 if columns else 1)
        pixels = make_images(model.input_shape[1])
        assert_logits_equal(logits(model, pixels), reference_logits(network, pixels))

    def test_another_variant_is_warned_of_with_the_differences(self, names_file, tmp_path, caplog):
        write_caffemodel(tmp_path / "net.caffemodel", make_layers("caffenet", 10), pool_first=True)
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--class_names={names_file}", "--variant=caffe"]
        call("convert", *flags, f"--output_dir={tmp_path / 'run'}")
        assert "holds weights of caffenet: they compute something else in caffe" in caplog.text
        assert "norm1" in caplog.text

    def test_class_names_must_be_known_and_output_dir_new(self, names_file, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", make_layers("caffe", 10))
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--output_dir={tmp_path / 'run'}"]
        with pytest.raises(ValueError, match="`class_names` must be given"):
            call("convert", *flags)
        assert not (tmp_path / "run").exists()
        (tmp_path / "run").mkdir()
        with pytest.raises(ValueError, match="`output_dir` must not exist yet"):
            call("convert", *flags, f"--class_names={names_file}")

    def test_mean_image(self, names_file, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", make_layers("caffe", 10))
        np.save(tmp_path / "mean.npy", np.broadcast_to(np.float32([1, 2, 3])[:, None, None], (3, 256, 256)))
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--class_names={names_file}"]
        call("convert", *flags, f"--mean_image={tmp_path / 'mean.npy'}", f"--output_dir={tmp_path / 'run'}")
        mean = load_model(tmp_path / "run").get_layer("mean_image").mean
        np.testing.assert_array_equal(mean, np.broadcast_to([3, 2, 1], mean.shape))


class TestLoadPretrained:
    def weights(self, classes=3, **changes):
        model = build_alexnet("testing", classes)
        weights = {n: tuple(transfer.merged_weights(model.get_layer(n)).values()) for n in LAYERS}
        weights = {name: arrays for name, arrays in (weights | changes).items() if arrays}
        return pretrained_files.PretrainedWeights("testing", weights, False, (1.0,) * 3, (0.0,) * 3)

    @pytest.mark.parametrize(
        "changes, message",
        [
            (
                {"conv2": (np.zeros((5, 5, 8, 16)), np.zeros(16))},
                r"conv2's kernel must be of shape \(5, 5, 4, 16\).*\(5, 5, 8, 16\)",
            ),
            ({"classes": 5}, r"fc8's kernel must be of shape \(32, 3\). Received: \(32, 5\)"),
            ({"fc7": (np.full((32, 32), np.nan, "float32"), np.zeros(32))}, "fc7's kernel must be finite"),
            ({"fc7": None}, r"fc7 is missing\. There are conv1, "),
        ],
    )
    def test_weights_that_do_not_fit(self, changes, message):
        with pytest.raises(ValueError, match=message):
            transfer.load_pretrained(self.weights(**changes), build_alexnet("testing", 3))

    def test_input_scale_is_folded_into_conv1(self, tmp_path):
        network = make_network("one_weird_trick", 10)
        torch.save({name: each.float() for name, each in torchvision_state(network).items()}, tmp_path / "net.pth")
        model = build_alexnet("one_weird_trick", 10, weights=tmp_path / "net.pth", input_scale=0.0125)
        pixels = make_images(224)
        assert_logits_equal(logits(model, pixels), reference_logits(network, pixels))


class TestCopyWeights:
    @pytest.mark.parametrize("variant", ["paper", "independent_columns", "batch_norm"])
    def test_merged_and_split_columns_have_equal_logits(self, variant):
        split, merged, back = (
            build_alexnet(variant, 10, initializer="he_normal", input_scale=0.0125, merge_columns=merge)
            for merge in (False, True, False)
        )
        random = np.random.default_rng(0)
        for weight in split.weights:
            if len(weight.shape) == 1:
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
        split.get_layer("mean_image").mean.assign(random.uniform(0, 255, split.get_layer("mean_image").mean.shape))
        transfer.copy_weights(split, merged)
        transfer.copy_weights(merged, back)
        pixels = make_images(split.input_shape[1])
        assert_logits_equal(logits(merged, pixels), logits(split, pixels))
        for weight, expected in zip(back.get_weights(), split.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_input_scale_and_dropout_are_folded_into_the_weights(self):
        source = build_alexnet("paper", 10, initializer="he_normal", input_scale=0.0125)
        target = build_alexnet("no_dropout", 10, initializer="zeros")
        transfer.copy_weights(source, target)
        pixels = make_images(224)
        assert_logits_equal(logits(target, pixels), logits(source, pixels))

    def test_caffe_with_columns_on_devices(self, tmp_path, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)
        write_caffemodel(tmp_path / "net.caffemodel", make_layers("caffe"))
        models = [
            build_alexnet("caffe", 3, weights=tmp_path / "net.caffemodel", **arguments)
            for arguments in ({}, {"merge_columns": False, "column_devices": ["CPU:0", "CPU:0"]})
        ]
        assert_logits_equal(*(logits(each, make_images(227)) for each in models))
        models[1].compile("sgd", "sparse_categorical_crossentropy")
        models[1].fit(make_images(227), np.arange(2), verbose=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("names.txt", "a\nb\n", "must name the 3 classes. Received: 2 names"),
        ("dataset.json", '{"class_names": ["a", "b", "a"]}', "Line 3 of .* is the same as line 1: 'a'"),
        ("dataset.json", "[" * 100_000, "must be a dataset.json or a text file"),
    ],
)
def test_class_names_must_be_as_many_as_classes_and_unique(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        convert.read_class_names(tmp_path / name, 3)


class TestOwnModels:
    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_saved_model_with_other_columns(self, suffix, tmp_path):
        model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.0125)
        model.save(tmp_path / f"model.{suffix}")
        (tmp_path / "names.txt").write_text("a\nb\nc\n")
        flags = [f"--input={tmp_path / 'model'}.{suffix}", f"--class_names={tmp_path / 'names.txt'}"]
        call("convert", *flags, f"--output_dir={tmp_path / 'merged'}", "--columns=merged")
        merged = load_model(tmp_path / "merged")
        assert [len(layer.kernels) for layer in merged.layers if hasattr(layer, "kernels")] == [1, 2, 1, 2, 2, 1, 1, 1]
        call("convert", f"--input={tmp_path / 'merged'}", f"--output_dir={tmp_path / 'split'}", "--columns=split")
        split = load_model(tmp_path / "split")
        assert split.description.class_names == ("a", "b", "c")
        assert len(split.get_layer("conv1").kernels) == 2
        for each in (merged, split):
            assert_logits_equal(logits(each, make_images(56)), logits(model, make_images(56)))

    def test_another_variant_is_refused(self, tmp_path):
        build_alexnet("testing", 3).save(tmp_path / "model.keras")
        flags = [f"--input={tmp_path / 'model.keras'}", "--variant=one_column", f"--output_dir={tmp_path / 'run'}"]
        with pytest.raises(ValueError, match=r"does not fit --variant=one_column: .* must be of shape"):
            call("convert", *flags)
