"""Converted weights against the original network, built in PyTorch; merged and split columns."""

import keras
import numpy as np
import pytest
import torch
import torch_reference
from made_foreign import LAYERS, make_layers, torchvision_state, write_caffemodel, write_npy
from programs import call

from alexnet_tf.layers import device_placement
from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.weights import pretrained_files, transfer


def random_network(variant, classes=1000):
    """A PyTorch network with random weights, large enough that normalization changes the logits."""
    torch.manual_seed(0)
    network = torch_reference.build(variant, classes).double().eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5)
                layer.bias.normal_(0, 0.5)
    return network


def images(side, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype("uint8")


def logits(model, pixels):
    return keras.Model(model.input, model.get_layer("fc8").output)(pixels).numpy()


def foreign_logits(network, centered):
    with torch.no_grad():
        return network(torch.tensor(np.float64(centered).transpose(0, 3, 1, 2))).numpy()


def assert_logits_equal(ours, expected):
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def caffe_network():
    return random_network("caffe")


class TestCaffe:
    @pytest.mark.parametrize("columns", [None, pytest.param("split", marks=pytest.mark.long)])
    @pytest.mark.slow
    def test_caffemodel_logits(self, caffe_network, columns, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", caffe_network, old=columns is None)
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--output_dir={tmp_path / 'run'}"]
        output = call("convert", *flags, *([f"--columns={columns}"] if columns else []))
        assert ": caffe, 60,965,224 parameters, 1000 classes." in output
        model = load_model(tmp_path / "run")
        description = model.description
        assert description.class_names[:2] == ("n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")
        assert len(model.get_layer("fc6").kernels) == (2 if columns else 1)
        pixels = images(227)
        expected = foreign_logits(caffe_network, np.float64(pixels) - [123, 117, 104])
        assert_logits_equal(logits(model, pixels), expected)

    @pytest.mark.slow
    @pytest.mark.long
    def test_caffenet_logits(self, tmp_path, caplog):
        network = random_network("caffenet", 10)
        write_caffemodel(tmp_path / "net.caffemodel", network, "finetuned", pool_first=True)
        (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--class_names={tmp_path / 'names.txt'}"]
        call("convert", *flags, f"--output_dir={tmp_path / 'run'}")
        assert "compute something else" not in caplog.text
        pixels = images(227)
        expected = foreign_logits(network, np.float64(pixels) - [123, 117, 104])
        assert_logits_equal(logits(load_model(tmp_path / "run"), pixels), expected)
        call("convert", *flags, f"--output_dir={tmp_path / 'other'}", "--variant=caffe")
        assert "holds weights of caffenet: they compute something else in caffe" in caplog.text
        assert "norm1" in caplog.text  # and what differs

    @pytest.mark.parametrize("python2", [False, True])
    def test_npy_logits(self, caffe_network, python2, tmp_path):
        write_npy(tmp_path / "net.npy", caffe_network, python2)
        model = build_alexnet("caffe", initializer="zeros")
        transfer.load_pretrained(pretrained_files.read_pretrained(tmp_path / "net.npy"), model)
        pixels = images(227)
        expected = foreign_logits(caffe_network, np.float64(pixels) - [123, 117, 104])
        assert_logits_equal(logits(model, pixels), expected)

    @pytest.mark.slow
    @pytest.mark.long
    def test_other_number_of_classes_needs_class_names(self, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", random_network("caffe", 10))
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--output_dir={tmp_path / 'run'}"]
        with pytest.raises(ValueError, match="`class_names` must be given"):
            call("convert", *flags)
        assert not (tmp_path / "run").exists()
        (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
        call("convert", *flags, f"--class_names={tmp_path / 'names.txt'}")
        assert load_model(tmp_path / "run").description.class_names == tuple("abcdefghij")
        with pytest.raises(ValueError, match="`output_dir` must not exist yet"):
            call("convert", *flags, f"--class_names={tmp_path / 'names.txt'}")


class TestTorchvision:
    @pytest.mark.parametrize("new_format", [True, pytest.param(False, marks=pytest.mark.long)])
    @pytest.mark.slow
    def test_state_dict_logits(self, new_format, tmp_path):
        network = random_network("one_weird_trick")
        state = {name: value.float() for name, value in torchvision_state(network).items()}
        torch.save(state, tmp_path / "alexnet.pth", _use_new_zipfile_serialization=new_format)
        call("convert", f"--input={tmp_path / 'alexnet.pth'}", f"--output_dir={tmp_path / 'run'}")
        model = load_model(tmp_path / "run")
        pixels = images(224)
        normalized = (np.float64(pixels) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert_logits_equal(logits(model, pixels), foreign_logits(network, normalized))

    def test_input_scale_is_folded_into_conv1(self, tmp_path):
        network = random_network("one_weird_trick", 10)
        weights = {}
        for name in LAYERS:
            kernel, bias = (getattr(getattr(network, name), kind).detach().numpy() for kind in ("weight", "bias"))
            weights[name] = (kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T, bias)
        scale = tuple(1 / (255 * np.array([0.229, 0.224, 0.225])))
        source = pretrained_files.PretrainedWeights("one_weird_trick", weights, True, scale, (100.0, 110.0, 120.0))
        model = build_alexnet("one_weird_trick", 10, initializer="zeros", input_scale=0.0125)
        transfer.load_pretrained(source, model)
        pixels = images(224)
        expected = foreign_logits(network, (np.float64(pixels) - [100, 110, 120]) * scale)
        assert_logits_equal(logits(model, pixels), expected)


class TestLoadForeign:
    def weights(self, **changes):
        model = build_alexnet("testing", 3)
        weights = {n: tuple(transfer.merged_weights(model.get_layer(n)).values()) for n in LAYERS}
        return pretrained_files.PretrainedWeights("testing", weights | changes, False, (1.0,) * 3, (0.0,) * 3)

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match=r"conv2's kernel must be of shape \(5, 5, 4, 16\).*\(5, 5, 8, 16\)"):
            transfer.load_pretrained(
                self.weights(conv2=(np.zeros((5, 5, 8, 16)), np.zeros(16))), build_alexnet("testing", 3)
            )

    def test_other_number_of_classes(self):
        with pytest.raises(ValueError, match=r"fc8's kernel must be of shape \(32, 5\). Received: \(32, 3\)"):
            transfer.load_pretrained(self.weights(), build_alexnet("testing", 5))

    def test_weights_must_be_finite(self):
        network = self.weights(fc7=(np.full((32, 32), np.nan, "float32"), np.zeros(32, "float32")))
        with pytest.raises(ValueError, match=r"fc7's kernel must be finite"):
            transfer.load_pretrained(network, build_alexnet("testing", 3))

    def test_missing_layer(self):
        network = self.weights()
        del network.weights["fc7"]
        with pytest.raises(ValueError, match=r"fc7 is missing\. There are conv1, "):
            transfer.load_pretrained(network, build_alexnet("testing", 3))


class TestCopyWeights:
    @pytest.mark.parametrize(
        "variant",
        [
            "paper",
            *(
                pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long])
                for name in ("independent_columns", "batch_norm")
            ),
        ],
    )
    def test_merged_and_split_columns_have_equal_logits(self, variant):
        split = build_alexnet(variant, 10, initializer="he_normal", input_scale=0.0125, merge_columns=False)
        merged = build_alexnet(variant, 10, initializer="zeros", input_scale=0.0125, merge_columns=True)
        back = build_alexnet(variant, 10, initializer="zeros", input_scale=0.0125, merge_columns=False)
        random = np.random.default_rng(0)
        for weight in split.weights:
            if len(weight.shape) == 1:
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
        split.get_layer("mean_image").mean.assign(random.uniform(0, 255, split.get_layer("mean_image").mean.shape))
        transfer.copy_weights(split, merged)
        transfer.copy_weights(merged, back)
        pixels = images(split.input_shape[1])
        assert_logits_equal(logits(merged, pixels), logits(split, pixels))
        for weight, expected in zip(back.get_weights(), split.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_input_scale_and_dropout_are_folded_into_the_weights(self):
        source = build_alexnet("paper", 10, initializer="he_normal", input_scale=0.0125)
        target = build_alexnet("no_dropout", 10, initializer="zeros")
        transfer.copy_weights(source, target)
        pixels = images(224)
        assert_logits_equal(logits(target, pixels), logits(source, pixels))

    def test_new_head(self):
        source, target = build_alexnet("testing", 10), build_alexnet("testing", 3)
        own = target.get_layer("fc8").get_weights()
        with pytest.raises(ValueError, match="fc8's kernel"):
            transfer.copy_weights(source, target)
        transfer.copy_weights(source, target, new_head=True)
        for weight, expected in zip(target.get_layer("fc8").get_weights(), own, strict=True):
            np.testing.assert_array_equal(weight, expected)
        for weight, expected in zip(
            target.get_layer("fc7").get_weights(), source.get_layer("fc7").get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, expected)

    def test_caffe_with_columns_on_devices(self, tmp_path, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda devices: None)
        row = VARIANTS["caffe"].with_layers(rows.Conv, filters=4).with_layers("fc6 fc7", units=8)
        monkeypatch.setitem(VARIANTS, "caffe", row)
        write_caffemodel(tmp_path / "net.caffemodel", make_layers("caffe"))
        models = [
            build_alexnet("caffe", 3, weights=tmp_path / "net.caffemodel", **arguments)
            for arguments in ({}, {"merge_columns": False, "column_devices": ["CPU:0", "CPU:0"]})
        ]
        assert_logits_equal(*(logits(each, images(227)) for each in models))
        models[1].compile("sgd", "sparse_categorical_crossentropy")
        models[1].fit(images(227), np.arange(2), verbose=0)


class TestReadClassNames:
    @pytest.mark.parametrize("content", ["\ufeffécluse\r\nb\r\n", "écluse\nb\n\n \n"], ids=["windows", "empty lines"])
    def test_byte_order_mark_and_empty_last_lines(self, content, tmp_path):
        (tmp_path / "names.txt").write_bytes(content.encode())
        assert list(transfer.read_class_names(tmp_path / "names.txt", 2)) == ["écluse", "b"]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("names.txt", "a\nb\na\n", "Line 3 of .* is the same as line 1: 'a'"),
            ("names.txt", "a\n\nb\n", "Line 2 of .* is empty"),
            ("dataset.json", '{"class_names": ["a", "b", "a"]}', "Line 3 of .* is the same as line 1: 'a'"),
            ("dataset.json", "[" * 100_000, "must be a dataset.json or a text file"),
        ],
    )
    def test_names_must_be_unique_and_not_empty(self, name, content, message, tmp_path):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            transfer.read_class_names(tmp_path / name, 3)


class TestOwnModels:
    @pytest.mark.parametrize("suffix", ["keras", pytest.param("h5", marks=pytest.mark.long)])
    @pytest.mark.slow
    def test_saved_model_with_other_columns(self, suffix, tmp_path):
        model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.0125)
        model.save(tmp_path / f"model.{suffix}")
        (tmp_path / "names.txt").write_text("a\nb\nc\n")
        flags = [f"--input={tmp_path / f'model.{suffix}'}", f"--class_names={tmp_path / 'names.txt'}"]
        call("convert", *flags, f"--output_dir={tmp_path / 'merged'}", "--columns=merged")
        merged = load_model(tmp_path / "merged")
        assert [len(layer.kernels) for layer in merged.layers if hasattr(layer, "kernels")] == [1, 2, 1, 2, 2, 1, 1, 1]
        assert_logits_equal(logits(merged, images(56)), logits(model, images(56)))
        call("convert", f"--input={tmp_path / 'merged'}", f"--output_dir={tmp_path / 'split'}", "--columns=split")
        split = load_model(tmp_path / "split")
        description = split.description
        assert description.class_names == ("a", "b", "c")
        assert len(split.get_layer("conv1").kernels) == 2
        assert_logits_equal(logits(split, images(56)), logits(model, images(56)))

    def test_another_variant_is_refused(self, tmp_path):
        build_alexnet("testing", 3).save(tmp_path / "model.keras")
        flags = [f"--input={tmp_path / 'model.keras'}", "--variant=one_column", f"--output_dir={tmp_path / 'run'}"]
        with pytest.raises(ValueError, match=r"does not fit --variant=one_column: .* must be of shape"):
            call("convert", *flags)
