"""Weights of a PyTorch network in Caffe's and caffe-tensorflow's formats, written from their descriptions."""

import pickle
import struct

import numpy as np

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


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


def write_caffemodel(path, network, net_name="AlexNet", old=False):
    """With conv1's channels blue, green, red. `old` is the format of Caffe's first releases."""
    content = record(1, net_name.encode())
    content += record(2 if old else 100, record(4 if old else 1, b"data"))  # a layer without weights
    for name in LAYERS:
        layer = getattr(network, name)
        weight = layer.weight.detach().numpy()
        if name == "conv1":
            weight = weight[:, ::-1]
        blobs = [record(6 if old else 7, blob(values, old)) for values in (weight, layer.bias.detach().numpy())]
        content += record(2 if old else 100, record(4 if old else 1, name.encode()) + b"".join(blobs))
    path.write_bytes(content)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings: bvlc_alexnet.npy is of its time."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, data):
        self.write(b"T" + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = save_bytes


def write_npy(path, network, python2=False):
    """As caffe-tensorflow writes it: (rows, columns, channels, kernels), blue, green, red; fc6 for maps last."""
    content = {}
    for name in LAYERS:
        layer = getattr(network, name)
        weight = layer.weight.detach().numpy().astype("float32")
        if name == "conv1":
            weight = weight[:, ::-1]
        if name == "fc6":
            weight = weight.reshape(-1, 256, 6, 6).transpose(0, 2, 3, 1).reshape(weight.shape)
        weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        content[name] = [np.ascontiguousarray(weight), layer.bias.detach().numpy().astype("float32")]
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
