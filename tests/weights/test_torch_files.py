"""Reading .pth files without PyTorch: equal to torch.load, and safe for hostile files."""

import collections
import io
import pathlib
import pickle
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from alexnet_tf.weights import torch_files

FORMS = pytest.mark.parametrize("new_form", [True, False], ids=["zip", "legacy"])
_BASE = torch.arange(1000.0)
TENSORS = collections.OrderedDict(
    parameter=torch.nn.Parameter(torch.randn(3, 4, 5)),
    transposed=torch.randn(4, 6).t(),
    slice=_BASE[3:9],
    every_second=_BASE[10:30:2],
    scalar=torch.tensor(3.5),
    empty=torch.zeros(0),
    int64=torch.arange(5),
    uint8=torch.ones(3, dtype=torch.uint8),
    bool=torch.tensor([True, False]),
    half=torch.randn(7).half(),
    bfloat16=torch.randn(7).bfloat16(),
    double=torch.randn(3).double(),
)


def saved(content, new_form):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new_form)
    return file.getvalue()


def read(content, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    return torch_files.read_state_dict(tmp_path / "weights.pth")


class TestReadStateDict:
    @FORMS
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda tensors: tensors,
            dict,
            lambda tensors: {"state_dict": tensors, "epoch": 3, "best": 0.5, "arch": "alexnet"},
            lambda tensors: {"model": tensors, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        ],
        ids=["ordered", "dict", "state_dict", "model"],
    )
    def test_arrays_equal_torch_load(self, new_form, wrap, tmp_path):
        arrays = read(saved(wrap(TENSORS), new_form), tmp_path)
        assert list(arrays) == list(TENSORS)
        for name, tensor in torch.load(io.BytesIO(saved(TENSORS, new_form)), weights_only=True).items():
            assert arrays[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
            assert arrays[name].shape == tuple(tensor.shape)
            expected = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
            assert arrays[name].tobytes() == expected.tobytes(), name

    @FORMS
    def test_module_versions_are_ignored(self, new_form, tmp_path):
        network = torch.nn.BatchNorm1d(4)
        assert set(read(saved(network.state_dict(), new_form), tmp_path)) == set(network.state_dict())

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"[1, 2]", saved([torch.ones(2)], True)])
    def test_other_files_are_refused(self, content, tmp_path):
        with pytest.raises(ValueError, match=r"weights\.pth is not a state dict of PyTorch: "):
            read(content, tmp_path)


class _Touch:
    """A pickle of it creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def legacy(pickled, keys, numbers):
    """A file in the legacy form, with any bytes as its state."""
    parts = [torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    return head + pickled + pickle.dumps(keys, 2) + numbers


def tensor_pickle(size, offset, shape, strides):
    """A pickle of {"x": a tensor of these numbers}."""

    def of(value):
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + of("0") + of("cpu") + of(size) + b"NtQ"
    return (
        b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + of(offset)
        + of(shape)
        + of(strides)
        + b"\x89}tRs."
    )


class TestHostileFiles:
    @FORMS
    def test_code_is_not_run(self, new_form, tmp_path):
        with pytest.raises(ValueError, match=r"which could run any code\. .*torch\.save\(network\.state_dict"):
            read(saved({"x": torch.ones(2), "y": _Touch(tmp_path / "touched")}, new_form), tmp_path)
        assert not (tmp_path / "touched").exists()

    def test_tensor_within_its_storage_is_read(self, tmp_path):
        numbers = struct.pack("<q4f", 4, 0, 1, 2, 3)
        array = read(legacy(tensor_pickle(4, 1, (2,), (2,)), ["0"], numbers), tmp_path)["x"]
        np.testing.assert_array_equal(array, [1, 3])

    @pytest.mark.parametrize(
        "size, offset, shape, strides",
        [
            (4, 0, (5,), (1,)),
            (4, 1, (2, 2), (2, 1)),
            (4, -1, (2,), (1,)),
            (4, 0, (2,), (-1,)),
            (4, 0, (2**40,), (0,)),
            (4, 0, (2**70, 0), (1, 1)),
            (4, 0, (2, 2), (1,)),
            (2**40, 0, (4,), (1,)),
            (-4, 0, (4,), (1,)),
        ],
    )
    def test_tensor_beyond_its_storage_is_refused(self, size, offset, shape, strides, tmp_path):
        numbers = struct.pack("<q4f", size, 0, 1, 2, 3)
        with pytest.raises(ValueError, match="not a state dict"):
            read(legacy(tensor_pickle(size, offset, shape, strides), ["0"], numbers), tmp_path)

    def test_compressed_archives_are_refused(self, tmp_path):
        content = saved({"x": torch.zeros(1_000_000)}, True)
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as new:
            for info in old.infolist():
                new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)
        with pytest.raises(ValueError, match=r"bomb\.pth.*is compressed"):
            torch_files.read_state_dict(tmp_path / "bomb.pth")

    def test_nested_tuples_are_refused_at_once(self, tmp_path):
        tuples = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(40))
        as_name, as_key = b"\x80\x02" + tuples + b"X\x01\x00\x00\x00x\x93.", b"\x80\x02}" + tuples + b"K\x01s."
        for pickled in (as_name, as_key):
            with pytest.raises(ValueError, match="not a state dict") as raised:
                read(legacy(pickled, [], b""), tmp_path)
            assert len(str(raised.value)) < 500

    @pytest.mark.parametrize(
        "pickled, message",
        [
            (b"cos\nsystem\nX\x02\x00\x00\x00id\x85R.", r"would call os\.system"),
            (b"\x8c\x02os\x8c\x06system\x93X\x02\x00\x00\x00id\x85R.", r"would call os\.system"),
            (b"(X\x02\x00\x00\x00idios\nsystem\n.", "an instruction for other objects"),
            (b"ccollections\nOrderedDict\n)\x81.", "an instruction for other objects"),
            (b"ctorch._utils\n_rebuild_tensor\n}b.", "sets the state"),
            (b"\x8f(K\x01\x90.", "an instruction for other objects"),
            (b"}r\xff\xff\xff\x7f(K\x01.", "holds no dictionary|keys"),
            (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "an instruction for other objects"),
        ],
        ids=["reduce", "stack_global", "inst", "newobj", "build", "set", "huge_memo_index", "huge_bytes"],
    )
    def test_other_instructions_are_refused(self, pickled, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            read(legacy(b"\x80\x04" + pickled, [], b""), tmp_path)

    def test_repeated_list_is_copied_once(self, tmp_path):
        pairs = b"](" + b"".join(b"X\x04\x00\x00\x00%04dK\x01\x86" % n for n in range(9000)) + b"eq\x00"
        pickled = b"\x80\x02](" + pairs + b"ccollections\nOrderedDict\nq\x010"[:-1]
        pickled += b"h\x01h\x00\x85R" * 9000 + b"e."
        tracemalloc.start()
        with pytest.raises(ValueError, match="holds no dictionary"):
            read(legacy(pickled, [], b""), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000_000

    @FORMS
    def test_mutated_files_take_little_memory(self, new_form, tmp_path):
        tensors = {"features.0.weight": torch.randn(4, 3, 5, 5), "classifier.6.bias": torch.randn(1000)}
        content = saved(tensors, new_form)
        draw = random.Random(0)
        refused = 0
        tracemalloc.start()
        for _ in range(400):
            mutated = bytearray(content)
            for _ in range(draw.randrange(1, 6)):
                at = draw.randrange(len(mutated) if draw.random() < 0.3 else 900)  # names and shapes are at the front
                replaced = draw.randrange(4)
                mutated[at : at + replaced] = draw.randbytes(draw.choice((replaced, draw.randrange(9))))
            try:
                read(mutated, tmp_path)
            except ValueError:
                refused += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert refused > 200
        assert peak < 10_000_000  # the pickles of a legacy file are read as 4 MiB at once
