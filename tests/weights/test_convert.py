"""Weights from elsewhere, held against the foreign network itself, built in PyTorch; and both forms of columns."""

import os
import pickle
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch
import torch_reference
from made_foreign import LAYERS, SETTINGS, blob, message, write_caffemodel, write_npy

from alexnet_tf.model import build_alexnet, load_model, open_model
from alexnet_tf.weights import caffe_files, pretrained_files, transfer

ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def run_convert(*flags):
    command = [sys.executable, "-m", "alexnet_tf.convert", *map(str, flags)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def random_network(variant, classes=1000):
    """A foreign network with random weights, large enough that normalization and saturation show in the logits."""
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


def small_layers(**shapes):
    """Layers of a PyTorch network whose kernels are zeros of some shapes."""
    defaults = {name: (2, 3, 1, 1) if name.startswith("conv") else (2, 3) for name in LAYERS}
    layers = types.SimpleNamespace()
    for name, shape in (defaults | shapes).items():
        parts = {"weight": torch.zeros(shape), "bias": torch.zeros(2)}
        setattr(layers, name, types.SimpleNamespace(**parts))
    return layers


SMALL_CAFFE = small_layers()


class TestCaffe:
    @pytest.mark.parametrize("columns", [None, pytest.param("split", marks=pytest.mark.long)])
    @pytest.mark.slow
    def test_caffemodel_gives_the_logits_of_the_network_itself(self, caffe_network, columns, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", caffe_network, old=columns is None)
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--output_dir={tmp_path / 'run'}"]
        result = run_convert(*flags, *([f"--columns={columns}"] if columns else []))
        assert result.returncode == 0, result.stderr
        assert ": caffe, 60,965,224 parameters, 1000 classes." in result.stdout
        model, description = load_model(tmp_path / "run")
        assert description.class_names[:2] == ("n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")
        assert len(model.get_layer("fc6").kernels) == (2 if columns else 1)
        pixels = images(227)
        expected = foreign_logits(caffe_network, np.float64(pixels) - [123, 117, 104])
        assert_logits_equal(logits(model, pixels), expected)

    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("pool_first, variant", [(False, "caffe"), (True, "caffenet")])
    def test_order_of_layers_tells_the_network_and_not_its_name(self, pool_first, variant, old, tmp_path):
        network = SMALL_CAFFE
        for name in ("AlexNet", "CaffeNet"):
            write_caffemodel(tmp_path / "net.caffemodel", network, name, old, pool_first)
            assert pretrained_files.read_pretrained(tmp_path / "net.caffemodel").variant == variant
        write_caffemodel(tmp_path / "net.caffemodel", network, "CaffeNet", old, only=("conv1", "fc8"))
        assert pretrained_files.read_pretrained(tmp_path / "net.caffemodel").variant is None

    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize(
        "layer, settings, difference",
        [
            ("conv1", message(_6=3), "conv1's strides is 3, not 4"),
            ("conv2", message(_9=2, _10=1), "conv2's padding is 1, 2, not 2"),
            ("LRN", message(_2=1e-4, _3=0.75, _5=2.0), "lrn_conv1's k is 2, not 1; lrn_conv2's k is 2, not 1"),
            ("lrn_conv2", message(_2=5e-4), "lrn_conv2's alpha is 0.0005, not 0.0001"),
            ("lrn_conv1", message(_2=1e-4, _4=1), "lrn_conv1's region is 1, not 0"),
            ("pooling_conv5", message(_2=2, _3=2), "pooling_conv5's pool_size is 2, not 3"),
            ("pooling_conv5", message(_1=1, _2=3, _3=2), "pooling_conv5's function is 1, not 0"),
        ],
    )
    def test_settings_of_another_network_are_warned_of(self, layer, settings, difference, old, tmp_path, caplog):
        path = tmp_path / "net.caffemodel"
        write_caffemodel(path, SMALL_CAFFE, old=old)
        pretrained_files.read_pretrained(path)
        assert not caplog.text
        write_caffemodel(path, SMALL_CAFFE, old=old, settings=SETTINGS | {layer: settings})
        pretrained_files.read_pretrained(path)
        assert f"{path} is another network than caffe, which computes something else: {difference}\n" in caplog.text

    @pytest.mark.slow
    def test_caffenet_gives_the_logits_of_the_network_itself(self, tmp_path):
        network = random_network("caffenet", 10)
        write_caffemodel(tmp_path / "net.caffemodel", network, "finetuned", pool_first=True)
        (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--class_names={tmp_path / 'names.txt'}"]
        result = run_convert(*flags, f"--output_dir={tmp_path / 'run'}")
        assert result.returncode == 0, result.stderr
        assert "compute something else" not in result.stderr
        pixels = images(227)
        expected = foreign_logits(network, np.float64(pixels) - [123, 117, 104])
        assert_logits_equal(logits(load_model(tmp_path / "run")[0], pixels), expected)
        result = run_convert(*flags, f"--output_dir={tmp_path / 'other'}", "--variant=caffe")
        assert result.returncode == 0, result.stderr
        assert "holds weights of caffenet: in caffe they compute something else" in result.stderr
        assert "norm1" in result.stderr  # and what differs

    @pytest.mark.parametrize("python2", [False, True])
    def test_npy_dictionary_gives_the_logits_of_the_network_itself(self, caffe_network, python2, tmp_path):
        write_npy(tmp_path / "net.npy", caffe_network, python2)
        model = build_alexnet("caffe", initializer="zeros")
        transfer.load_pretrained(pretrained_files.read_pretrained(tmp_path / "net.npy"), model)
        pixels = images(227)
        expected = foreign_logits(caffe_network, np.float64(pixels) - [123, 117, 104])
        assert_logits_equal(logits(model, pixels), expected)

    def test_mean_image_of_caffe_comes_out_red_first_and_cropped(self, tmp_path):
        mean = np.random.default_rng(0).uniform(0, 255, (3, 256, 256)).astype("float32")
        (tmp_path / "mean.binaryproto").write_bytes(blob(mean, old=True))
        np.save(tmp_path / "mean.npy", mean)
        for name in ("mean.binaryproto", "mean.npy"):
            read = caffe_files.read_mean(tmp_path / name)
            np.testing.assert_array_equal(read, mean[::-1].transpose(1, 2, 0))

    @pytest.mark.slow
    @pytest.mark.long
    def test_other_number_of_classes_needs_their_names(self, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", random_network("caffe", 10))
        flags = [f"--input={tmp_path / 'net.caffemodel'}", f"--output_dir={tmp_path / 'run'}"]
        result = run_convert(*flags)
        assert result.returncode != 0
        assert "`class_names` must be given" in result.stderr
        assert not (tmp_path / "run").exists()
        (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
        result = run_convert(*flags, f"--class_names={tmp_path / 'names.txt'}")
        assert result.returncode == 0, result.stderr
        assert load_model(tmp_path / "run")[1].class_names == tuple("abcdefghij")
        result = run_convert(*flags, f"--class_names={tmp_path / 'names.txt'}")
        assert "`output_dir` must not exist yet" in result.stderr

    def test_damaged_caffemodel_is_refused(self, tmp_path):
        path = tmp_path / "net.caffemodel"
        write_caffemodel(path, random_network("caffe", 2))
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"\x0b" * 50, b""):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"net\.caffemodel"):
                pretrained_files.read_pretrained(path)


class TestTorchvision:
    @pytest.mark.parametrize("new_format", [True, pytest.param(False, marks=pytest.mark.long)])
    @pytest.mark.slow
    def test_state_dict_gives_the_logits_of_the_network_itself(self, new_format, tmp_path):
        network = random_network("one_weird_trick")
        modules = {f"{theirs}.{kind}": getattr(getattr(network, ours), kind) for theirs, ours in
                   pretrained_files._TORCHVISION_NAMES.items() for kind in ("weight", "bias")}  # fmt: skip
        state = {name: value.detach().float() for name, value in modules.items()}
        torch.save(state, tmp_path / "alexnet.pth", _use_new_zipfile_serialization=new_format)
        result = run_convert(f"--input={tmp_path / 'alexnet.pth'}", f"--output_dir={tmp_path / 'run'}")
        assert result.returncode == 0, result.stderr
        model, _ = load_model(tmp_path / "run")
        pixels = images(224)
        normalized = (np.float64(pixels) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert_logits_equal(logits(model, pixels), foreign_logits(network, normalized))

    def test_other_input_scale_is_put_into_conv1(self, tmp_path):
        network = random_network("one_weird_trick", 10)
        weights = {}
        for name in LAYERS:
            layer = getattr(network, name)
            weights[name] = (
                pretrained_files._from_output_first(layer.weight.detach().numpy()),
                layer.bias.detach().numpy(),
            )
        scale = tuple(1 / (255 * np.array([0.229, 0.224, 0.225])))
        source = pretrained_files.PretrainedWeights("one_weird_trick", weights, True, scale, (100.0, 110.0, 120.0))
        model = build_alexnet("one_weird_trick", 10, initializer="zeros", input_scale=0.0125)
        transfer.load_pretrained(source, model)
        pixels = images(224)
        expected = foreign_logits(network, (np.float64(pixels) - [100, 110, 120]) * scale)
        assert_logits_equal(logits(model, pixels), expected)

    def test_state_dict_of_another_network_is_refused_by_its_missing_layer(self, tmp_path):
        torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
        with pytest.raises(ValueError, match=r"must hold features\.0\.weight.*It holds layer1\.weight"):
            pretrained_files.read_pretrained(tmp_path / "resnet.pth")

    @pytest.mark.parametrize("keys", [("model",), ("state_dict",), ("model", "state_dict")])
    def test_state_dict_is_found_in_a_training_programs_checkpoint(self, keys, tmp_path):
        state = {}
        for name in pretrained_files._TORCHVISION_NAMES:
            shape = (2, 3, 1, 1) if name.startswith("features") else (2, 3)
            state |= {f"module.{name}.weight": torch.rand(shape), f"module.{name}.bias": torch.rand(2)}
        saved = state
        for key in reversed(keys):
            saved = {key: saved, "epoch": 3}
        torch.save(saved, tmp_path / "net.pth")
        read = pretrained_files.read_pretrained(tmp_path / "net.pth")
        np.testing.assert_array_equal(read.weights["fc8"][0], state["module.classifier.6.weight"].numpy().T)

    def test_safetensors_hold_the_same(self, tmp_path):
        draw = np.random.default_rng(0)
        state = {}
        for name in pretrained_files._TORCHVISION_NAMES:
            shape = (2, 3, 1, 1) if name.startswith("features") else (2, 3)
            state |= {f"{name}.weight": draw.random(shape, "float32"), f"{name}.bias": draw.random(2, "float32")}
        safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
        torch.save({name: torch.tensor(array) for name, array in state.items()}, tmp_path / "net.pth")
        one, other = (pretrained_files.read_pretrained(tmp_path / f"net.{end}") for end in ("safetensors", "pth"))
        for name, arrays in one.weights.items():
            for array, same in zip(arrays, other.weights[name], strict=True):
                np.testing.assert_array_equal(array, same)
        content = (tmp_path / "net.safetensors").read_bytes()
        for damaged in (b"", content[:50], content[:-1], b"\xff" * 20):
            (tmp_path / "net.safetensors").write_bytes(damaged)
            with pytest.raises(ValueError, match=r"net\.safetensors is not a complete"):
                pretrained_files.read_pretrained(tmp_path / "net.safetensors")


class CallsWhenUnpickled:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


class TestHostileFiles:
    def test_pickle_that_would_run_code_is_refused_and_runs_none(self, tmp_path):
        marker = tmp_path / "ran"
        hostile = CallsWhenUnpickled(str(marker))
        np.save(tmp_path / "dictionary.npy", np.array({"conv1": hostile}, dtype=object), allow_pickle=True)
        torch.save({"features.0.weight": hostile}, tmp_path / "zip.pth")
        torch.save({"features.0.weight": hostile}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        (tmp_path / "bare.pth").write_bytes(pickle.dumps(hostile))
        for name in ("dictionary.npy", "zip.pth", "old.pth", "bare.pth"):
            with pytest.raises(ValueError, match=name):
                pretrained_files.read_pretrained(tmp_path / name)
            assert not marker.exists(), name
        with pytest.raises(ValueError, match=r"it would call posix\.mkdir"):
            pretrained_files.read_pretrained(tmp_path / "dictionary.npy")
        with pytest.raises(ValueError, match=r"it would call posix\.mkdir"):
            pretrained_files.read_pretrained(tmp_path / "zip.pth")
        np.load(tmp_path / "dictionary.npy", allow_pickle=True)
        assert marker.exists()  # so the file was hostile indeed

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no numpy file at all", b"\x93NUMPY\x09\x00" + b" " * 99])
    def test_file_that_is_no_array_is_refused(self, content, tmp_path):
        (tmp_path / "net.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.npy is not a dictionary of layers"):
            pretrained_files.read_pretrained(tmp_path / "net.npy")

    def test_array_that_is_no_dictionary_is_refused(self, tmp_path):
        np.save(tmp_path / "net.npy", np.zeros(3))
        with pytest.raises(ValueError, match="is no dictionary of layers"):
            pretrained_files.read_pretrained(tmp_path / "net.npy")

    def test_odd_arrays_are_refused_with_the_files_name(self, tmp_path):
        write_caffemodel(tmp_path / "flat.caffemodel", small_layers(conv1=(2, 3)))
        np.save(tmp_path / "flat.npy", np.array({"conv1": [np.zeros(5), np.zeros(2)]}, object))
        torch.save({f"{name}.{kind}": torch.zeros(5) for name in pretrained_files._TORCHVISION_NAMES
                    for kind in ("weight", "bias")}, tmp_path / "flat.pth")  # fmt: skip
        torch.save({"a": torch.zeros(3, 3).to_sparse()}, tmp_path / "sparse.pth")
        for name in ("flat.caffemodel", "flat.npy", "flat.pth", "sparse.pth"):
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                pretrained_files.read_pretrained(tmp_path / name)
        with (tmp_path / "mean.npy").open("wb") as file:  # of 12 TiB, it says
            header = {"descr": "<f4", "fortran_order": False, "shape": (3, 1 << 20, 1 << 20)}
            np.lib.format.write_array_header_1_0(file, header)
        np.save(tmp_path / "nan.npy", np.full((3, 8, 8), np.nan))
        for name in ("mean.npy", "nan.npy", "missing.npy"):
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                caffe_files.read_mean(tmp_path / name)
        (tmp_path / "names.json").write_text("{}")
        with pytest.raises(ValueError, match=r"`class_names` must be .*names\.json"):
            transfer.read_class_names(tmp_path / "names.json", 3)

    @pytest.mark.parametrize("name", ["net.ckpt", "net.pth"])
    def test_unknown_or_missing_file_is_refused(self, name, tmp_path):
        with pytest.raises(ValueError, match=r"net\.(ckpt|pth)"):
            pretrained_files.read_pretrained(tmp_path / name)


class TestLoadForeign:
    def weights(self, **changes):
        model = build_alexnet("testing", 3)
        weights = {n: tuple(transfer.merged_weights(model.get_layer(n)).values()) for n in LAYERS}
        return pretrained_files.PretrainedWeights("testing", weights | changes, False, (1.0,) * 3, (0.0,) * 3)

    def test_wrong_shape_names_layer_expected_and_found(self):
        with pytest.raises(ValueError, match=r"conv2's kernel must be of shape \(5, 5, 4, 16\).*\(5, 5, 8, 16\)"):
            transfer.load_pretrained(
                self.weights(conv2=(np.zeros((5, 5, 8, 16)), np.zeros(16))), build_alexnet("testing", 3)
            )

    def test_other_class_count_names_the_classifier(self):
        with pytest.raises(ValueError, match=r"fc8's kernel must be of shape \(32, 5\). Received: \(32, 3\)"):
            transfer.load_pretrained(self.weights(), build_alexnet("testing", 5))

    def test_weights_that_are_not_finite_are_refused(self):
        network = self.weights(fc7=(np.full((32, 32), np.nan, "float32"), np.zeros(32, "float32")))
        with pytest.raises(ValueError, match=r"fc7's kernel must be finite"):
            transfer.load_pretrained(network, build_alexnet("testing", 3))

    def test_missing_layer_is_named(self):
        network = self.weights()
        del network.weights["fc7"]
        with pytest.raises(ValueError, match=r"fc7 is missing\. There are conv1, "):
            transfer.load_pretrained(network, build_alexnet("testing", 3))


class TestCopyWeights:
    @pytest.mark.parametrize(
        "variant",
        ["paper", *(pytest.param(name, marks=pytest.mark.slow) for name in ("independent_columns", "batch_norm"))],
    )
    def test_columns_merge_and_split_to_the_same_logits(self, variant):
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

    def test_input_scale_and_dropout_of_the_target_change_nothing(self):
        source = build_alexnet("paper", 10, initializer="he_normal", input_scale=0.0125)
        target = build_alexnet("no_dropout", 10, initializer="zeros")
        transfer.copy_weights(source, target)
        pixels = images(224)
        assert_logits_equal(logits(target, pixels), logits(source, pixels))

    def test_new_head_keeps_the_targets_own_classifier(self):
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


class TestReadClassNames:
    def test_mark_and_line_ends_of_windows_are_no_part_of_the_names(self, tmp_path):
        (tmp_path / "names.txt").write_bytes("\ufeffécluse\r\nb\r\n".encode())
        assert list(transfer.read_class_names(tmp_path / "names.txt", 2)) == ["écluse", "b"]


class TestOwnModels:
    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    @pytest.mark.slow
    def test_saved_model_in_the_other_form_gives_the_same_logits(self, suffix, tmp_path):
        model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.0125)
        model.save(tmp_path / f"model.{suffix}")
        (tmp_path / "names.txt").write_text("a\nb\nc\n")
        flags = [f"--input={tmp_path / f'model.{suffix}'}", f"--class_names={tmp_path / 'names.txt'}"]
        result = run_convert(*flags, f"--output_dir={tmp_path / 'merged'}", "--columns=merged")
        assert result.returncode == 0, result.stderr
        merged, _ = load_model(tmp_path / "merged")
        assert [len(layer.kernels) for layer in merged.layers if hasattr(layer, "kernels")] == [1, 2, 1, 2, 2, 1, 1, 1]
        assert_logits_equal(logits(merged, images(56)), logits(model, images(56)))
        result = run_convert(f"--input={tmp_path / 'merged'}", f"--output_dir={tmp_path / 'split'}", "--columns=split")
        assert result.returncode == 0, result.stderr
        split, description = load_model(tmp_path / "split")
        assert description.class_names == ("a", "b", "c")
        assert len(split.get_layer("conv1").kernels) == 2
        assert_logits_equal(logits(split, images(56)), logits(model, images(56)))

    def test_model_of_another_variant_is_refused_by_the_layer_that_differs(self, tmp_path):
        build_alexnet("testing", 3).save(tmp_path / "model.keras")
        result = run_convert(
            f"--input={tmp_path / 'model.keras'}", "--variant=one_column", f"--output_dir={tmp_path / 'run'}"
        )
        assert result.returncode != 0
        assert "does not fit --variant=one_column: " in result.stderr
        assert "must be of shape" in result.stderr

    def test_model_of_another_project_is_refused(self, tmp_path):
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(tmp_path / "model.keras")
        with pytest.raises(ValueError, match="is not a model of this project"):
            open_model(tmp_path / "model.keras")
        (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
        with pytest.raises(ValueError, match="is not a complete Keras model"):
            open_model(tmp_path / "model.h5")
