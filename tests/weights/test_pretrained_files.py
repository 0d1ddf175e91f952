"""Small files in other programs' formats: which network they hold, and which files are refused."""

import contextlib
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import torch
from made_foreign import SETTINGS, blob, make_layers, message, torchvision_state, write_caffemodel, write_npy

from alexnet_tf.weights import caffe_files
from alexnet_tf.weights.pretrained_files import read_pretrained

LAYERS = make_layers()


class TestCaffe:
    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("pool_first, variant", [(False, "caffe"), (True, "caffenet")])
    def test_order_of_layers_tells_the_variant(self, pool_first, variant, old, tmp_path):
        for name in ("AlexNet", "CaffeNet"):
            write_caffemodel(tmp_path / "net.caffemodel", LAYERS, name, old, pool_first)
            assert read_pretrained(tmp_path / "net.caffemodel").variant == variant
        write_caffemodel(tmp_path / "net.caffemodel", LAYERS, "CaffeNet", old, only=("conv1", "fc8"))
        assert read_pretrained(tmp_path / "net.caffemodel").variant is None

    def test_normalization_before_and_after_pooling_is_refused(self, monkeypatch, tmp_path):
        write_caffemodel(tmp_path / "net.caffemodel", LAYERS)
        layers, settings = caffe_files.read_caffemodel(tmp_path / "net.caffemodel")
        (norm1, _) = [number for number, (kind, *_) in enumerate(settings) if kind == "LRN"]
        settings.insert(norm1 + 1, settings.pop(norm1))  # after pool1
        monkeypatch.setattr(caffe_files, "read_caffemodel", lambda _: (layers, settings))
        with pytest.raises(ValueError, match=r"before each pooling .caffe. or after each .caffenet.\. It does both"):
            read_pretrained(tmp_path / "net.caffemodel")

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
        ids=["strides", "padding", "k", "alpha", "region", "pool_size", "function"],
    )
    def test_other_settings_are_warned_of(self, layer, settings, difference, old, tmp_path, caplog):
        path = tmp_path / "net.caffemodel"
        write_caffemodel(path, LAYERS, old=old)
        read_pretrained(path)
        assert not caplog.text
        write_caffemodel(path, LAYERS, old=old, settings=SETTINGS | {layer: settings})
        read_pretrained(path)
        assert (
            f"{path} differs from caffe, which computes something else with its weights: {difference}\n" in caplog.text
        )

    def test_mean_image_is_red_first(self, tmp_path):
        mean = np.random.default_rng(0).uniform(0, 255, (3, 256, 256)).astype("float32")
        (tmp_path / "mean.binaryproto").write_bytes(blob(mean, old=True))
        np.save(tmp_path / "mean.npy", mean)
        for name in ("mean.binaryproto", "mean.npy"):
            np.testing.assert_array_equal(caffe_files.read_mean(tmp_path / name), mean[::-1].transpose(1, 2, 0))

    def test_damaged_caffemodel(self, tmp_path):
        path = tmp_path / "net.caffemodel"
        write_caffemodel(path, LAYERS)
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"\x0b" * 50, b""):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"net\.caffemodel"):
                read_pretrained(path)


class TestTorchvision:
    def test_state_dict_in_a_checkpoint_of_data_parallel_training(self, tmp_path):
        checkpoint = {"model": {"state_dict": torchvision_state(LAYERS, "module."), "epoch": 3}, "epoch": 3}
        torch.save(checkpoint, tmp_path / "net.pth")
        read = read_pretrained(tmp_path / "net.pth")
        np.testing.assert_array_equal(read.weights["fc8"][0], LAYERS.fc8.weight.numpy().T)
        np.testing.assert_array_equal(read.weights["conv1"][0], LAYERS.conv1.weight.numpy().transpose(2, 3, 1, 0))

    def test_safetensors_equal_pth(self, tmp_path):
        state = torchvision_state(LAYERS)
        path = tmp_path / "net.safetensors"
        safetensors.numpy.save_file({name: tensor.numpy() for name, tensor in state.items()}, path)
        torch.save(state, tmp_path / "net.pth")
        other = read_pretrained(tmp_path / "net.pth")
        for name, arrays in read_pretrained(path).weights.items():
            for array, same in zip(arrays, other.weights[name], strict=True):
                np.testing.assert_array_equal(array, same)
        content = path.read_bytes()
        for damaged in (b"", content[:50], content[:-1], b"\xff" * 20):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"net\.safetensors is not a complete"):
                read_pretrained(path)

    def test_another_network_is_refused(self, tmp_path):
        torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
        with pytest.raises(ValueError, match=r"must hold features\.0\.weight.*It holds layer1\.weight"):
            read_pretrained(tmp_path / "resnet.pth")

    def test_kernels_of_no_variant_name_the_nearest(self, tmp_path):
        torch.save(torchvision_state(make_layers(conv3=(24, 8, 3, 3))), tmp_path / "net.pth")
        with pytest.raises(ValueError, match=r"nearest is testing, whose conv3.*\(3, 3, 16, 24\).*\(3, 3, 8, 24\)"):
            read_pretrained(tmp_path / "net.pth")


class CallsWhenUnpickled:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


class TestHostileFiles:
    def test_code_in_npy_is_not_run(self, tmp_path):
        path, marker = tmp_path / "dictionary.npy", tmp_path / "ran"
        np.save(path, np.array({"conv1": CallsWhenUnpickled(str(marker))}, dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match=r"dictionary\.npy.*it would call posix\.mkdir"):
            read_pretrained(path)
        assert not marker.exists()
        np.load(path, allow_pickle=True)
        assert marker.exists()  # so the file was hostile

    def test_numbers_of_a_small_npy_are_those_in_the_file(self, tmp_path):
        path = tmp_path / "net.npy"
        write_npy(path, LAYERS)
        content = path.read_bytes()
        peaks = []
        tracemalloc.start()
        for count in (b"J\x00\xca\x9a\x3b", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"):  # 10**9 and more
            # numpy's _reconstruct(ndarray, (0,), b"b") with another shape
            path.write_bytes(content.replace(b"K\x00\x85", count + b"\x85", 1))
            with contextlib.suppress(ValueError):
                read_pretrained(path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert max(peaks) < 10_000_000

    def test_text_that_is_encoded_many_times_is_refused(self, tmp_path):
        text = b"X\xe8\x03\x00\x00" + b"a" * 1000 + b"q\x00X\x06\x00\x00\x00latin1q\x01\x86q\x02c_codecs\nencode\nq\x03"
        with (tmp_path / "net.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            file.write(b"\x80\x02](" + text + b"h\x03h\x02R" * 1000 + b"e.")
        with pytest.raises(ValueError, match="larger than the file"):
            read_pretrained(tmp_path / "net.npy")

    def test_storage_under_many_names_takes_little_memory(self, tmp_path):
        shared = torch.zeros(1_000_000, dtype=torch.uint8)
        state = {f"name{number}": shared for number in range(300)}
        torch.save(state | {name: shared for name in torchvision_state(LAYERS)}, tmp_path / "net.pth")
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"net\.pth must hold kernels of 2 or 4 dimensions"):
            read_pretrained(tmp_path / "net.pth")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5_000_000

    def test_other_content_in_npy(self, tmp_path):
        contents = [b"", b"\x93NUMPY", b"no numpy file at all", b"\x93NUMPY\x09\x00" + b" " * 99]
        for array in (np.zeros(3), np.array({"conv1": [np.array(["text"]), np.zeros(1)]}, object)):
            np.save(tmp_path / "array.npy", array)
            contents.append((tmp_path / "array.npy").read_bytes())
        for content in contents:
            (tmp_path / "net.npy").write_bytes(content)
            with pytest.raises(ValueError, match=r"net\.npy is not a dictionary of layers"):
                read_pretrained(tmp_path / "net.npy")

    def test_arrays_of_odd_shapes(self, tmp_path):
        write_caffemodel(tmp_path / "flat.caffemodel", make_layers(conv1=(2, 3)))
        np.save(tmp_path / "flat.npy", np.array({"conv1": [np.zeros(5), np.zeros(2)]}, object))
        torch.save(dict.fromkeys(torchvision_state(LAYERS), torch.zeros(5)), tmp_path / "flat.pth")
        torch.save({"a": torch.zeros(3, 3).to_sparse()}, tmp_path / "sparse.pth")
        few_biases = make_layers()
        few_biases.conv2.bias = few_biases.conv2.bias[:-1]
        torch.save(torchvision_state(few_biases), tmp_path / "biases.pth")
        for name in ("flat.caffemodel", "flat.npy", "flat.pth", "sparse.pth", "biases.pth"):
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                read_pretrained(tmp_path / name)
        with (tmp_path / "mean.npy").open("wb") as file:  # its header claims 12 TiB
            header = {"descr": "<f4", "fortran_order": False, "shape": (3, 1 << 20, 1 << 20)}
            np.lib.format.write_array_header_1_0(file, header)
        np.save(tmp_path / "nan.npy", np.full((3, 8, 8), np.nan))
        for name in ("mean.npy", "nan.npy", "missing.npy"):
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                caffe_files.read_mean(tmp_path / name)

    @pytest.mark.parametrize("name", ["net.ckpt", "net.pth"])
    def test_unknown_or_missing_file(self, name, tmp_path):
        with pytest.raises(ValueError, match=r"net\.(ckpt|pth)"):
            read_pretrained(tmp_path / name)

    @pytest.mark.parametrize("name", ["net.pth", "net.caffemodel", "net.npy", "net.onnx"])
    def test_git_lfs_pointer_is_named(self, name, tmp_path):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:9a4d\nsize 243863542\n")
        with pytest.raises(ValueError, match=rf"{name} is a Git LFS pointer, not the file itself\. Run `git lfs pull`"):
            read_pretrained(tmp_path / name)


def test_npy_of_another_network_has_no_variant(tmp_path):
    write_npy(tmp_path / "net.npy", LAYERS)
    assert read_pretrained(tmp_path / "net.npy").variant is None
