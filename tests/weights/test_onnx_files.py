"""AlexNets in ONNX: a third-party graph, and graphs of small layers."""

import pathlib
import re

import numpy as np
import onnx
import pytest
from made_foreign import LAYERS, make_layers
from onnx import TensorProto, helper, numpy_helper

from alexnet_tf.weights import onnx_files, pretrained_files

BVLC = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_bvlc_alexnet.onnx"


def arrays():
    layers = make_layers()
    return {name: (getattr(layers, name).weight.numpy(), getattr(layers, name).bias.numpy()) for name in LAYERS}


def write_graph(path, order="conv relu lrn pool", transposed=True, constants=False):
    """A graph of small layers, in one of the orders of normalization and pooling."""
    nodes, initializers, current = [], [], "data"

    def add(kind, *inputs, **attributes):
        nonlocal current
        nodes.append(helper.make_node(kind, [current, *inputs], [f"x{len(nodes)}"], **attributes))
        current = nodes[-1].output[0]

    for name, (kernel, bias) in arrays().items():
        if name == "fc6":
            add("Flatten")
        kernel = kernel if name.startswith("conv") or transposed else kernel.T
        for kind, value in (("w", kernel), ("b", bias)):
            tensor = numpy_helper.from_array(np.ascontiguousarray(value), f"{name}_{kind}")
            if constants:
                nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
            else:
                initializers.append(tensor)
        if name.startswith("conv"):
            add("Conv", f"{name}_w", f"{name}_b")
            if name in ("conv1", "conv2"):
                for step in order.split()[1:]:
                    kinds = {
                        "relu": ("Relu", {}),
                        "lrn": ("LRN", {"size": 5}),
                        "pool": ("MaxPool", {"kernel_shape": [3, 3]}),
                    }
                    kind, attributes = kinds[step]
                    add(kind, **attributes)
        else:
            add("Gemm", f"{name}_w", f"{name}_b", transB=int(transposed))
    inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 64, 64])]
    outputs = [helper.make_tensor_value_info(current, TensorProto.FLOAT, [1, 5])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", inputs, outputs, initializers)), path)


class TestReadOnnx:
    def test_third_party_graph(self, caplog):
        read = pretrained_files.read_pretrained(BVLC)
        assert read.variant == "caffe_224"
        assert not caplog.text
        assert {name: kernel.shape for name, (kernel, _) in read.weights.items()} == {
            "conv1": (11, 11, 3, 96),
            "conv2": (5, 5, 48, 256),
            "conv3": (3, 3, 256, 384),
            "conv4": (3, 3, 192, 384),
            "conv5": (3, 3, 192, 256),
            "fc6": (9216, 4096),
            "fc7": (4096, 4096),
            "fc8": (4096, 1000),
        }

    @pytest.mark.parametrize("transposed, constants", [(True, False), (False, True)])
    def test_weights(self, transposed, constants, tmp_path):
        write_graph(tmp_path / "net.onnx", transposed=transposed, constants=constants)
        layers, *_ = onnx_files.read_onnx(tmp_path / "net.onnx")
        for name, expected in arrays().items():
            for array, value in zip(layers[name], expected, strict=True):
                np.testing.assert_array_equal(array, value)

    @pytest.mark.parametrize(
        "order, variant, red",
        [
            ("conv relu lrn pool", "caffe", 2),
            ("conv relu pool lrn", "caffenet", 2),
            ("conv relu pool", "one_weird_trick", 0),
        ],
    )
    def test_normalization_tells_the_variant(self, order, variant, red, tmp_path):
        write_graph(tmp_path / "net.onnx", order)
        read = pretrained_files.read_pretrained(tmp_path / "net.onnx")
        assert read.variant == variant
        np.testing.assert_array_equal(
            read.weights["conv1"][0][:, :, 0], arrays()["conv1"][0][:, red].transpose(1, 2, 0)
        )

    @pytest.mark.parametrize(
        "kind, changes, difference",
        [
            ("LRN", {"bias": 2.0, "alpha": 5e-4}, r"'s alpha is 0\.0005, not 0\.0001; .*'s k is 2, not 1"),
            ("Conv", {"pads": [1, 1, 1, 1]}, r"conv1's padding is 1, not 0; conv2's padding is 1, not 2"),
            ("Conv", {"strides": [2, 1]}, r"conv1's strides is 1, 2, not 4"),
            ("Conv", {"auto_pad": "SAME_UPPER"}, r"conv1's padding is nan, not 0; conv2's padding is nan, not 2"),
            ("Tanh", {}, r"'s function is tanh, not relu"),
            ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2]}, r"'s function is 1, not 0"),
        ],
    )
    def test_other_settings_are_warned_of(self, kind, changes, difference, tmp_path, caplog):
        graph = onnx.load(BVLC)
        replaced = {"Tanh": "Relu", "AveragePool": "MaxPool"}.get(kind, kind)
        for node in graph.graph.node:
            if node.op_type == replaced:
                node.op_type = kind
                kept = [each for each in node.attribute if each.name not in changes]
                del node.attribute[:]
                node.attribute.extend([*kept, *(helper.make_attribute(*item) for item in changes.items())])
        onnx.save(graph, tmp_path / "net.onnx")
        pretrained_files.read_pretrained(tmp_path / "net.onnx")
        assert re.search(difference, caplog.text)

    def test_huge_constant_takes_no_memory(self, tmp_path):
        write_graph(tmp_path / "net.onnx")
        graph = onnx.load(tmp_path / "net.onnx")
        (kernel,) = [each for each in graph.graph.initializer if each.name == "fc6_w"]
        graph.graph.initializer.remove(kernel)
        shape = numpy_helper.from_array(np.array([1_000_000, 1_000_000_000]), "shape")
        value = numpy_helper.from_array(np.zeros(1))
        graph.graph.initializer.append(shape)
        graph.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["fc6_w"], value=value))
        onnx.save(graph, tmp_path / "net.onnx")
        with pytest.raises(ValueError, match="holds no network of alexnet-describe's list"):
            pretrained_files.read_pretrained(tmp_path / "net.onnx")

    def test_other_graphs(self, tmp_path):
        path = tmp_path / "net.onnx"
        for content in (b"", b"not a graph", BVLC.read_bytes()[:3000]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"net\.onnx"):
                onnx_files.read_onnx(path)
        graph = onnx.load(BVLC)
        del graph.graph.node[16]  # conv1
        onnx.save(graph, path)
        with pytest.raises(ValueError, match=r"must hold 5 Conv nodes with biases\. Received: 4"):
            onnx_files.read_onnx(path)
        write_graph(path)
        graph = onnx.load(path)
        del graph.graph.initializer[0]
        onnx.save(graph, path)
        with pytest.raises(ValueError, match=r"must hold the weights of conv1\. conv1_w is computed or missing"):
            onnx_files.read_onnx(path)

    def test_external_data_is_not_read(self, tmp_path):
        write_graph(tmp_path / "net.onnx")
        graph = onnx.load(tmp_path / "net.onnx")
        onnx.save(graph, tmp_path / "net.onnx", save_as_external_data=True, location="elsewhere", size_threshold=0)
        with pytest.raises(ValueError, match=r"net\.onnx .* are in another file"):
            onnx_files.read_onnx(tmp_path / "net.onnx")
