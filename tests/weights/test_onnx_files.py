"""AlexNets in ONNX: a third party's graph, and weights through an export of PyTorch's."""

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from alexnet_tf.weights import onnx_files, pretrained_files

BVLC = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_bvlc_alexnet.onnx"
SHAPES = {
    "conv1": (4, 3, 11, 11),
    "conv2": (6, 2, 5, 5),
    "conv3": (8, 6, 3, 3),
    "conv4": (8, 4, 3, 3),
    "conv5": (6, 4, 3, 3),
    "fc6": (9, 6),
    "fc7": (9, 9),
    "fc8": (5, 9),
}


def arrays():
    draw = np.random.default_rng(0)
    return {
        name: (draw.normal(size=shape).astype("float32"), draw.normal(size=shape[0]).astype("float32"))
        for name, shape in SHAPES.items()
    }


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
    def test_graph_of_a_third_party_is_identified_and_wired(self):
        read = pretrained_files.read_pretrained(BVLC)
        assert read.variant == "caffe"
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

    @pytest.mark.parametrize("transposed", [True, False])
    @pytest.mark.parametrize("constants", [True, False])
    def test_weights_are_those_of_the_graph(self, transposed, constants, tmp_path):
        write_graph(tmp_path / "net.onnx", transposed=transposed, constants=constants)
        layers, _ = onnx_files.read_onnx(tmp_path / "net.onnx")
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
    def test_network_and_order_of_colors_follow_from_the_normalization(self, order, variant, red, tmp_path):
        write_graph(tmp_path / "net.onnx", order)
        read = pretrained_files.read_pretrained(tmp_path / "net.onnx")
        assert read.variant == variant
        np.testing.assert_array_equal(
            read.weights["conv1"][0][:, :, 0], arrays()["conv1"][0][:, red].transpose(1, 2, 0)
        )

    def test_other_graphs_are_refused(self, tmp_path):
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

    def test_weights_in_other_files_are_not_followed(self, tmp_path):
        write_graph(tmp_path / "net.onnx")
        graph = onnx.load(tmp_path / "net.onnx")
        onnx.save(graph, tmp_path / "net.onnx", save_as_external_data=True, location="elsewhere", size_threshold=0)
        with pytest.raises(ValueError, match=r"net\.onnx is not a complete ONNX graph"):
            onnx_files.read_onnx(tmp_path / "net.onnx")
