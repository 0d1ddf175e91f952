"""Weights of a PyTorch network in the formats of Caffe, caffe-tensorflow and torchvision, by their descriptions."""

import dataclasses
import pickle
import struct
import types

import numpy as np
import torch
import torch_reference

from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


TORCHVISION_NAMES = dict(
    zip(LAYERS, [f"features.{n}" for n in (0, 3, 6, 8, 10)] + [f"classifier.{n}" for n in (1, 4, 6)], strict=True)
)


def make_thin(monkeypatch, *variants):
    """Gives variants few kernels and units, here and in the PyTorch reference."""
    for name in variants:
        row = VARIANTS[name].with_layers(rows.Conv, filters=8).with_layers("fc6 fc7", units=16)
        monkeypatch.setitem(VARIANTS, name, row)
        reference = dataclasses.replace(torch_reference._VARIANTS[name], kernels=(8,) * 5, units=(16, 16))
        monkeypatch.setitem(torch_reference._VARIANTS, name, reference)


def make_network(variant, num_classes):
    """The PyTorch reference with random weights, large enough that normalization changes the logits."""
    torch.manual_seed(0)
    network = torch_reference.build(variant, num_classes).double().eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5)
                layer.bias.normal_(0, 0.5)
    return network


def make_images(side):
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype("uint8")


def reference_logits(network, pixels):
    """The logits of a PyTorch network after the preprocessing of its own program: torchvision's, or Caffe's."""
    if network.variant.lrn_k == 1:
        centered = np.float64(pixels) - [123, 117, 104]
    else:
        centered = (np.float64(pixels) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        return network(torch.tensor(centered.transpose(0, 3, 1, 2))).numpy()


def make_layers(variant="testing", num_classes=3, **shapes):
    """The layers of a PyTorch network with random weights in the shapes of a variant, and other shapes for some."""
    layers, random = types.SimpleNamespace(), torch.Generator().manual_seed(0)
    for name, shape in rows.kernel_shapes(VARIANTS[variant], num_classes).items():
        order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
        shape = shapes.get(name, [shape[axis] for axis in order])
        weight, bias = torch.randn(shape, generator=random), torch.randn(shape[0], generator=random)
        setattr(layers, name, types.SimpleNamespace(weight=weight, bias=bias))
    return layers


def torchvision_state(layers, prefix=""):
    """The state dict in which torchvision saves such layers."""
    return {
        f"{prefix}{theirs}.{kind}": getattr(getattr(layers, ours), kind).detach()
        for ours, theirs in TORCHVISION_NAMES.items()
        for kind in ("weight", "bias")
    }


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def record(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array, old):
    data = np.asarray(array, "<f4")
    if old:
        shape = (1,) * (4 - data.ndim) + data.shape
        head = b"".join(varint(number << 3) + varint(size) for number, size in enumerate(shape, start=1))
    else:
        head = record(7, record(1, b"".join(map(varint, data.shape))))
    return head + record(5, data.tobytes())


def message(**numbers):
    """Settings of a layer by the numbers of their fields, such as _2=3: floats or whole numbers."""
    fields = ((int(name[1:]), value) for name, value in numbers.items())
    return b"".join(
        varint(number << 3 | 5) + struct.pack("<f", value)
        if isinstance(value, float)
        else varint(number << 3) + varint(value)
        for number, value in fields
    )


# Of bvlc_alexnet: stride and pad of convolutions, the constants of LRN, pooling's size and stride.
SETTINGS = {
    "conv1": message(_6=4),
    "conv2": message(_3=2),
    "conv3": message(_3=1),
    "conv4": message(_3=1),
    "conv5": message(_3=1),
    "LRN": message(_1=5, _2=1e-4, _3=0.75),
    "Pooling": message(_2=3, _3=2),
}
_NUMBERS = {"Convolution": (106, 10), "LRN": (118, 18), "Pooling": (121, 19)}  # of the message, new and old

V1_TYPES = {"Convolution": 4, "Data": 5, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18}


def write_caffemodel(path, network, net_name="AlexNet", old=False, pool_first=False, only=LAYERS, settings=SETTINGS):
    """Writes conv1's channels as blue, green, red. `old`: in the format of Caffe's first releases. `pool_first`: in
    CaffeNet's order. `only`: these layers with weights, and none without."""
    content, bottom = record(1, net_name.encode()), b"data"
    after = {name: ["ReLU"] for name in LAYERS[:-1]}
    for name in ("conv1", "conv2"):
        after[name] += ["Pooling", "LRN"] if pool_first else ["LRN", "Pooling"]
    after["conv5"] += ["Pooling"]
    rows = [("data", "Data")]
    for name in LAYERS:
        rows.append((name, "Convolution" if name.startswith("conv") else "InnerProduct"))
        rows += [(f"{kind.lower()}_{name}", kind) for kind in after.get(name, [])]
    for name, kind in rows:
        if only != LAYERS and name not in only:
            continue
        top = bottom if kind == "ReLU" else name.encode()  # in its own place
        number = varint(5 << 3) + varint(V1_TYPES[kind]) if old else record(2, kind.encode())
        layer = record(4 if old else 1, name.encode()) + number
        layer += b"" if kind == "Data" else record(2 if old else 3, bottom)
        layer += record(3 if old else 4, top)
        if kind in _NUMBERS:
            layer += record(_NUMBERS[kind][old], settings.get(name, settings.get(kind, b"")))
        if name in LAYERS:
            weight, bias = (
                each.detach().numpy() for each in (getattr(network, name).weight, getattr(network, name).bias)
            )
            for values in (weight[:, ::-1] if name == "conv1" else weight, bias):
                layer += record(6 if old else 7, blob(values, old))
        content += record(2 if old else 100, layer)
        bottom = top
    path.write_bytes(content)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote strings, as in bvlc_alexnet.npy."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, data):
        self.write(b"T" + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = save_bytes


def write_npy(path, network, python2=False):
    """Writes (rows, columns, channels, kernels) with blue, green, red, and fc6 for maps last, as caffe-tensorflow."""
    content = {}
    for name in LAYERS:
        layer = getattr(network, name)
        weight = layer.weight.detach().numpy().astype("float32")
        if name == "conv1":
            weight = weight[:, ::-1]
        if name == "fc6":
            maps = network.conv5.weight.shape[0]
            side = int((weight.shape[1] / maps) ** 0.5)
            weight = weight.reshape(-1, maps, side, side).transpose(0, 2, 3, 1).reshape(weight.shape)
        weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        # Both orders of elements occur in published files, and on old machines both orders of bytes.
        weight = np.asfortranarray(weight) if name in ("conv2", "fc7") else np.ascontiguousarray(weight)
        weight = weight.astype(">f4") if name == "conv3" else weight
        content[name] = [weight, layer.bias.detach().numpy().astype("float32")]
    array = np.array(content, dtype=object)
    with path.open("wb") as file:
        if not python2:
            np.lib.format.write_array(file, array)
            return
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        unpatched = path.with_suffix(".pickle")
        with unpatched.open("wb") as pickled:
            Python2Pickler(pickled, protocol=2).dump(array)
        file.write(unpatched.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
