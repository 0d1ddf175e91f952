"""The table of variants: each network, and its description."""

import pathlib
import re
import types

import keras
import numpy as np
import pytest
from absl import flags as absl_flags

from alexnet_tf import describe
from alexnet_tf.figures import architecture
from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import keras_layers, layer_table, rows
from alexnet_tf.networks.variants import VARIANTS

ROOT = pathlib.Path(__file__).parents[2]

# For each variant: trainable parameters for 1000 classes, multiply-adds of a forward pass for one image, and its
# layers, with their output size where it changes. The numbers of `paper` are counted by hand from section 3.5 and
# figure 2, and the parameters of `one_weird_trick` are torchvision's. A changed number is a changed network.
GOLDENS = {
    "paper": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "original": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, norm1, pool1 27x27x96, relu1, conv2 27x27x256, relu2, norm2, within2, pool2 13x13x256, "
        "conv3 13x13x384, relu3, conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, fc6 4096, relu6, drop6, "
        "fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "caffe": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "caffenet": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, relu1, pool1 27x27x96, norm1, conv2 27x27x256, relu2, pool2 13x13x256, norm2, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "caffe_224": (
        60_965_224,
        654_560_384,
        "conv1 54x54x96, relu1, norm1, pool1 26x26x96, conv2 26x26x256, relu2, norm2, pool2 12x12x256, conv3 "
        "12x12x384, relu3, conv4, relu4, conv5 12x12x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "one_weird_trick": (
        61_100_840,
        714_188_480,
        "conv1 55x55x64, relu1, pool1 27x27x64, conv2 27x27x192, relu2, pool2 13x13x192, conv3 13x13x384, relu3, "
        "conv4 13x13x256, relu4, conv5, relu5, pool5 6x6x256, drop5, fc6 4096, relu6, drop6, fc7, relu7, fc8 "
        "1000, softmax",
    ),
    "cuda_convnet2": (
        61_100_840,
        714_188_480,
        "conv1 55x55x64, norm1, pool1 27x27x64, relu1, conv2 27x27x192, relu2, norm2, pool2 13x13x192, conv3 "
        "13x13x384, relu3, conv4 13x13x256, relu4, conv5, pool5 6x6x256, relu5, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "krizhevsky_2014": (
        61_838_248,
        838_788_800,
        "conv1 55x55x64, norm1, pool1 27x27x64, relu1, conv2 27x27x192, relu2, norm2, pool2 13x13x192, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "batch_norm": (
        60_966_856,
        724_406_816,
        "conv1 55x55x96, bn1, relu1, pool1 27x27x96, conv2 27x27x256, bn2, relu2, pool2 13x13x256, conv3 "
        "13x13x384, bn3, relu3, conv4, bn4, relu4, conv5 13x13x256, bn5, relu5, pool5 6x6x256, fc6 4096, relu6, "
        "drop6, fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "batch_norm_32k": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, relu1, pool1 27x27x96, bn2, conv2 27x27x256, relu2, pool2 13x13x256, bn3, conv3 "
        "13x13x384, relu3, bn4, conv4, relu4, bn5, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, "
        "fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "no_lrn": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, relu1, pool1 27x27x96, conv2 27x27x256, relu2, pool2 13x13x256, conv3 13x13x384, relu3, "
        "conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 "
        "1000, softmax",
    ),
    "no_overlap": (
        60_965_224,
        686_891_552,
        "conv1 55x55x96, relu1, norm1, pool1 28x28x96, conv2 26x26x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 11x11x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "one_column": (
        59_798_312,
        391_514_384,
        "conv1 55x55x48, relu1, norm1, pool1 27x27x48, conv2 27x27x128, relu2, norm2, pool2 13x13x128, conv3 "
        "13x13x192, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "independent_columns": (
        60_714_408,
        724_323_872,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x320, relu2, norm2, pool2 13x13x320, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 8192, relu6, drop6, fc7 4096, "
        "relu7, drop7, fc8 1000, softmax",
    ),
    "original_no_lrn": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, pool1 27x27x96, relu1, conv2 27x27x256, relu2, pool2 13x13x256, conv3 13x13x384, relu3, "
        "conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 "
        "1000, softmax",
    ),
    "original_no_overlap": (
        60_965_224,
        686_891_552,
        "conv1 55x55x96, norm1, pool1 28x28x96, relu1, conv2 26x26x256, relu2, norm2, within2, pool2 13x13x256, "
        "conv3 13x13x384, relu3, conv4, relu4, conv5 11x11x256, pool5 6x6x256, relu5, fc6 4096, relu6, drop6, "
        "fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "original_one_column": (
        59_798_312,
        391_514_384,
        "conv1 55x55x48, norm1, pool1 27x27x48, relu1, conv2 27x27x128, relu2, norm2, within2, pool2 13x13x128, "
        "conv3 13x13x192, relu3, conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, fc6 4096, relu6, drop6, "
        "fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "original_independent_columns": (
        60_714_408,
        724_323_872,
        "conv1 55x55x96, norm1, pool1 27x27x96, relu1, conv2 27x27x320, relu2, norm2, within2, pool2 13x13x320, "
        "conv3 13x13x384, relu3, conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, fc6 8192, relu6, drop6, fc7 "
        "4096, relu7, drop7, fc8 1000, softmax",
    ),
    "original_six_conv": (
        61_555_304,
        745_640_480,
        "conv1 55x55x96, norm1, pool1 27x27x96, relu1, conv2 27x27x256, relu2, norm2, within2, pool2 13x13x256, "
        "conv3 13x13x384, relu3, conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, conv6, relu_conv6, fc6 "
        "4096, relu6, drop6, fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "original_six_conv_2011": (
        67_897_960,
        751_981_088,
        "conv1 55x55x96, norm1, pool1 27x27x96, relu1, conv2 27x27x256, relu2, norm2, within2, pool2 13x13x256, "
        "conv3 13x13x384, relu3, conv4, relu4, conv5 13x13x256, pool5 6x6x256, relu5, conv6, relu_conv6, fc6 "
        "4096, relu6, drop6, fc7, relu7, drop7, fc_linear 2048, fc8 1000, softmax",
    ),
    "tanh": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, tanh1, norm1, pool1 27x27x96, conv2 27x27x256, tanh2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, tanh3, conv4, tanh4, conv5 13x13x256, tanh5, pool5 6x6x256, fc6 4096, tanh6, drop6, fc7, "
        "tanh7, drop7, fc8 1000, softmax",
    ),
    "no_dropout": (
        60_965_224,
        724_406_816,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, fc7, relu7, fc8 "
        "1000, softmax",
    ),
    "six_conv": (
        61_555_304,
        745_640_480,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, conv6, relu_conv6, fc6 4096, "
        "relu6, drop6, fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "no_conv1": (
        60_642_280,
        409_039_616,
        "pool1 27x27x3, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 13x13x384, relu3, conv4, relu4, "
        "conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "no_conv2": (
        60_104_808,
        407_007_776,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, pool2 13x13x96, conv3 13x13x384, relu3, conv4, relu4, "
        "conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 1000, softmax",
    ),
    "no_conv3": (
        59_858_920,
        537_506_336,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv4 "
        "13x13x384, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 "
        "1000, softmax",
    ),
    "no_conv4": (
        60_301_288,
        612_266_528,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 "
        "1000, softmax",
    ),
    "no_conv5": (
        79_396_968,
        668_520_992,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, pool5 6x6x384, fc6 4096, relu6, drop6, fc7, relu7, drop7, fc8 1000, "
        "softmax",
    ),
    "no_fc6": (
        44_183_912,
        707_629_600,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc7 4096, relu7, drop7, fc8 1000, "
        "softmax",
    ),
    "no_fc7": (
        44_183_912,
        707_629_600,
        "conv1 55x55x96, relu1, norm1, pool1 27x27x96, conv2 27x27x256, relu2, norm2, pool2 13x13x256, conv3 "
        "13x13x384, relu3, conv4, relu4, conv5 13x13x256, relu5, pool5 6x6x256, fc6 4096, relu6, drop6, fc8 1000, "
        "softmax",
    ),
    "four_layer": (
        1_104_328,
        13_312_000,
        "conv1 32x32x32, relu1, pool1 16x16x32, conv2, relu2, pool2 8x8x32, conv3 8x8x64, relu3, pool3 4x4x64, fc4 "
        "1000, softmax",
    ),
    "four_layer_tanh": (
        1_104_328,
        13_312_000,
        "conv1 32x32x32, tanh1, pool1 16x16x32, conv2, tanh2, pool2 8x8x32, conv3 8x8x64, tanh3, pool3 4x4x64, fc4 "
        "1000, softmax",
    ),
    "cifar_13pct": (
        2_257_960,
        19_657_728,
        "conv1 24x24x64, relu1, pool1 12x12x64, conv2, relu2, pool2 6x6x64, local3 6x6x32, relu3, local4, relu4, "
        "fc10 1000, softmax",
    ),
    "cifar_11pct": (
        3_254_440,
        20_653_056,
        "conv1 24x24x64, relu1, pool1 12x12x64, norm1, conv2, relu2, norm2, pool2 6x6x64, local3, relu3, local4 "
        "6x6x32, relu4, fc10 1000, softmax",
    ),
    "testing": (
        46_776,
        1_442_712,
        "conv1 27x27x8, relu1, norm1, pool1 13x13x8, conv2 13x13x16, relu2, norm2, pool2 6x6x16, conv3 6x6x24, "
        "relu3, conv4, relu4, conv5 6x6x16, relu5, pool5 2x2x16, fc6 32, relu6, drop6, fc7, relu7, drop7, fc8 "
        "1000, softmax",
    ),
}


def test_every_variant_has_a_golden():
    assert GOLDENS.keys() == VARIANTS.keys()


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_equals_its_golden(name):
    model = build_alexnet(name, initializer="zeros")
    parameters, multiply_adds, layers, before = 0, 0, [], None
    for layer in model.layers[2:]:
        *places, _ = shape = layer.output.shape[1:]
        for weight in layer.trainable_weights:
            parameters += int(np.prod(weight.shape))
            if len(weight.shape) > 1:  # convolutions apply theirs at every place
                multiply_adds += int(np.prod(weight.shape) * (np.prod(places) if len(weight.shape) == 4 else 1))
        layers.append(layer.name if shape == before else f"{layer.name} {'x'.join(map(str, shape))}")
        before = shape
    assert (parameters, multiply_adds, ", ".join(layers)) == GOLDENS[name]


class TestInitialWeights:
    def test_one_weird_trick_has_pytorchs_initial_weights(self):
        model = build_alexnet("one_weird_trick", 10)
        for name, inputs in (("conv1", 11 * 11 * 3), ("conv4", 3 * 3 * 384), ("fc6", 9216), ("fc8", 4096)):
            for values in model.get_layer(name).get_weights():
                limit = inputs**-0.5
                assert np.abs(values).max() <= limit
                if values.ndim > 1:
                    assert abs(values.std() / (limit / 3**0.5) - 1) < 0.02, name
                else:
                    assert len(np.unique(values)) > 1

    def test_original_has_the_programs_initial_weights(self):
        model = build_alexnet("original", 10)
        for name, std, bias in (("conv1", 0.01, 0), ("conv3", 0.03, 0), ("conv5", 0.03, 1), ("fc6", 0.01, 1)):
            layer = model.get_layer(name)
            assert abs(np.std(layer.kernels[1]) / std - 1) < 0.05, name
            assert np.all(np.asarray(layer.biases[1]) == bias), name

    def test_batch_norm_has_biases_only_in_conv5(self):
        model = build_alexnet("batch_norm", 10, initializer="zeros")
        assert [len(model.get_layer(f"conv{i}").biases) for i in range(1, 6)] == [0, 0, 0, 0, 2]


class TestKerasLayers:
    def test_layers_have_the_numbers_of_their_rows(self):
        kinds = {
            rows.LRN: ("k", "n", "alpha", "beta", "alpha_divided_by_n"),
            rows.WithinMapNorm: ("k", "n", "alpha", "beta"),
            rows.BatchNorm: ("momentum", "epsilon"),
            rows.Dropout: ("rate",),
        }
        compared = set()
        for variant in VARIANTS.values():
            for shape in rows.trace(variant, 10):
                for name in kinds.get(type(shape.row), ()):
                    layer = keras_layers.make_layer(shape, variant.columns, variant.columns_merged, None, None)
                    assert getattr(layer, name) == getattr(shape.row, name), (variant.title, shape.name, name)
                    compared.add((type(shape.row), getattr(shape.row, name)))
        assert {(rows.LRN, True), (rows.LRN, 2.0), (rows.LRN, 1.0)} < compared


class TestDescribe:
    @pytest.mark.parametrize("form", ["text", "markdown"])
    def test_program(self, form, monkeypatch, capsys):
        values = dict.fromkeys(("fill_in", "weights", "picture")) | {"variant": "caffenet", "against": "caffe"}
        monkeypatch.setattr(absl_flags, "FLAGS", types.SimpleNamespace(**values, num_classes=7, format=form))
        describe.main([])
        printed = capsys.readouterr().out
        assert printed == layer_table.describe("caffenet", "caffe", 7, markdown=form == "markdown")
        assert printed != layer_table.describe("caffenet", "caffe", 1000, markdown=form == "markdown")

    def test_list(self):
        lines = layer_table.describe().splitlines()[1:]
        assert [line.split()[0] for line in lines] == list(VARIANTS)
        for line, (parameters, _, _) in zip(lines, GOLDENS.values(), strict=True):
            assert f"{parameters:,}" in line

    def test_table_of_the_paper(self):
        text = layer_table.describe("paper")
        assert "Parameters: 60,965,224. The paper says 60 million." in text
        assert "Neurons: 659,272. The paper says 650,000. Its figure 2 counts 253,440 in conv1" in text
        (conv2,) = [line.split() for line in text.splitlines() if line.startswith("conv2")]
        words = "conv2 5 x 5 1 2 own column 27 x 27 x 256 307,456 223,948,800 1, 2 std 0.01, bias 1"
        assert conv2 == words.split()

    def test_against_prints_only_differences(self):
        differing = {
            line.split()[1] for line in layer_table.describe("original", "paper").split("\n\n")[0].splitlines()[1:]
        }
        expected = {"mean_image", "norm1", "relu1", "norm2", "within2", "conv3", "conv4", "conv5", "relu5"}
        assert differing - {""} == expected

    def test_variant_against_itself(self):
        assert layer_table.describe("paper", "paper") == "paper and paper do not differ.\n"

    def test_num_classes(self):
        assert "Parameters: 14,106." in layer_table.describe("testing", num_classes=10)

    @pytest.mark.parametrize("arguments", [{"variant": "vgg"}, {"variant": "paper", "against": "vgg"}])
    def test_unknown_variant(self, arguments):
        with pytest.raises(ValueError, match=r"must be one of .*'paper'.*'vgg'"):
            layer_table.describe(**arguments)

    def test_against_needs_a_variant(self):
        with pytest.raises(ValueError, match="needs a `variant`"):
            layer_table.describe(against="paper")

    @pytest.mark.skipif(not (ROOT / "docs").exists(), reason="a Bazel sandbox holds no docs")
    def test_tables_in_the_docs_are_current(self):
        text = (ROOT / "docs" / "variants.md").read_text(encoding="utf-8")
        assert text.count("<!-- alexnet-describe") >= 3
        assert layer_table.fill_in(text) == text

    def test_old_table_is_updated(self):
        stale = "before\n<!-- alexnet-describe --variant=testing -->\n| old |\n<!-- end -->\nafter\n"
        fresh = layer_table.fill_in(stale)
        assert "| conv1 | 7 x 7 | 2 |" in fresh
        assert fresh.startswith("before\n<!--") and fresh.endswith("<!-- end -->\nafter\n")
        assert layer_table.fill_in(fresh) == fresh


class TestSaveArchitecture:
    def texts(self, path):
        return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))

    def test_picture_names_each_layer_of_each_column(self, tmp_path):
        architecture.save_architecture(tmp_path / "paper.svg", "paper")
        texts = self.texts(tmp_path / "paper.svg")
        assert [texts.count(name) for name in ("conv1", "conv5", "fc7", "fc8", "image")] == [2, 2, 2, 1, 1]
        assert texts.count("13 x 13 x 192") == 4
        assert [texts.count(text) for text in ("11 x 11 kernels", "5 x 5 kernels", "3 x 3 kernels")] == [1, 1, 3]
        assert texts.count("stride 4") == 1
        assert "within a column, or from the image" in texts and "from a column to another, or to fc8" in texts
        architecture.save_architecture(tmp_path / "again.svg", "paper")
        assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "paper.svg").read_bytes()

    def test_columns_that_do_not_meet_have_fewer_arrows(self, tmp_path):
        arrows = {}
        for variant in ("paper", "independent_columns", "one_column"):
            architecture.save_architecture(tmp_path / "picture.svg", variant)
            paths = re.findall(r"<path [^>]*>", (tmp_path / "picture.svg").read_text(encoding="utf-8"))
            # Of an arrow, the line and the head; of the legend, a line.
            arrows[variant] = [sum(color in path for path in paths) for color in ("#b2182b", "#404040")]
        # Across into conv3, fc6 and fc7, and from column 2 into fc8, on column 1's device.
        assert arrows == {"paper": [15, 31], "independent_columns": [3, 31], "one_column": [0, 16]}

    @pytest.mark.skipif(not (ROOT / "docs").exists(), reason="a Bazel sandbox holds no docs")
    def test_picture_in_the_docs_is_current(self, tmp_path):
        architecture.save_architecture(tmp_path / "columns.svg", "paper")
        assert self.texts(tmp_path / "columns.svg") == self.texts(ROOT / "docs" / "columns.svg")


class TestForms:
    def test_merged_columns_are_one_kernel_where_every_column_is_seen(self):
        split, merged = (build_alexnet("testing", 10, merge_columns=value) for value in (False, True))
        assert [len(layer.kernels) for layer in split.layers if hasattr(layer, "kernels")] == [*[2] * 7, 1]
        assert [len(layer.kernels) for layer in merged.layers if hasattr(layer, "kernels")] == [1, 2, 1, 2, 2, 1, 1, 1]
        assert split.count_params() == merged.count_params()

    @pytest.mark.slow
    @pytest.mark.long
    def test_other_layers_train_and_save(self, tmp_path):
        for name in ("original", "batch_norm", "independent_columns"):
            model = build_alexnet(name, 3, initializer="he_normal", input_scale=0.01)
            side = VARIANTS[name].image_px
            images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype("uint8")
            model.compile(keras.optimizers.SGD(0.001), "sparse_categorical_crossentropy")
            before = [w.copy() for w in model.get_weights()[1:]]
            model.fit(images, np.array([0, 2]), verbose=0)
            assert all(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()[1:], strict=True))
            model.save(tmp_path / "model.keras")
            loaded = keras.models.load_model(tmp_path / "model.keras")
            np.testing.assert_array_equal(loaded(images), model(images))


class TestVariant:
    def test_operations_on_rows(self):
        paper = VARIANTS["paper"]
        names = [layer.name for layer in paper.layers]
        assert [layer.name for layer in paper.without(rows.LRN).layers] == [n for n in names if "norm" not in n]
        changed = paper.with_layers("conv4 fc6", std=0.5)
        assert [layer.name for layer in changed.layers if getattr(layer, "std", None) == 0.5] == ["conv4", "fc6"]
        moved = [layer.name for layer in paper.move("relu1", after="pool1").layers]
        assert moved[:4] == ["conv1", "norm1", "pool1", "relu1"] and moved[4:] == names[4:]

    def test_unknown_layer(self):
        with pytest.raises(ValueError, match=r"must name layers of the variant. Received: conv9"):
            VARIANTS["paper"].with_layers("conv1 conv9", std=0.5)

    def test_traced_shapes_are_those_of_the_network(self):
        for name in ("testing", "four_layer"):
            model = build_alexnet(name, 10, initializer="zeros")
            shapes = list(rows.trace(VARIANTS[name], 10))
            assert [shape.name for shape in shapes] == [layer.name for layer in model.layers[2:]]
            for shape in shapes:
                layer = model.get_layer(shape.name)
                assert shape.output_shape == layer.output.shape[1:], shape.name
                assert shape.parameters == sum(int(np.prod(w.shape)) for w in layer.trainable_weights), shape.name
