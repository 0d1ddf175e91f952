"""The description of a variant as a table and as a picture."""

import pathlib
import re

import pytest
from programs import call

from alexnet_tf.figures import architecture
from alexnet_tf.networks import layer_table, rows
from alexnet_tf.networks.variants import VARIANTS

DOCS = pathlib.Path(__file__).parents[2] / "docs"


class TestDescribe:
    @pytest.mark.parametrize("form", ["text", "markdown"])
    def test_program_prints_the_differences(self, form):
        printed = call("describe", "--variant=caffenet", "--against=caffe", "--num_classes=7", f"--format={form}")
        assert printed == layer_table.describe("caffenet", "caffe", 7, markdown=form == "markdown")
        assert printed != layer_table.describe("caffenet", "caffe", 1000, markdown=form == "markdown")

    def test_list_has_every_variant(self):
        assert [line.split()[0] for line in layer_table.describe().splitlines()[1:]] == list(VARIANTS)

    def test_table_of_the_paper(self):
        # Counted by hand from section 3.5 and figure 2.
        text = layer_table.describe("paper")
        assert "Parameters: 60,965,224. The paper says 60 million." in text
        assert "Neurons: 659,272. The paper says 650,000. Its figure 2 counts 253,440 in conv1" in text
        assert "Multiply-adds for one image: 724,406,816." in text
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

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"variant": "vgg"}, r"`variant` must be one of .*'paper'.*'vgg'"),
            ({"variant": "paper", "against": "vgg"}, r"`against` must be one of .*'paper'.*against='vgg'"),
            ({"against": "paper"}, "needs a `variant`"),
        ],
    )
    def test_invalid_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            layer_table.describe(**arguments)

    def test_tables_in_the_docs_are_current(self):
        text = (DOCS / "variants.md").read_text(encoding="utf-8")
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
        assert texts == self.texts(DOCS / "columns.svg")  # which is current
        call("describe", f"--picture={tmp_path / 'again.svg'}")
        assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "paper.svg").read_bytes()
        call("describe", f"--picture={tmp_path / 'other.svg'}", "--variant=caffe", "--num_classes=7")
        architecture.save_architecture(tmp_path / "seven.svg", "caffe", 7)
        assert self.texts(tmp_path / "other.svg") == self.texts(tmp_path / "seven.svg") and "7" in self.texts(
            tmp_path / "seven.svg"
        )

    def test_columns_that_do_not_meet_have_fewer_arrows(self, tmp_path):
        arrows = {}
        for variant in ("paper", "independent_columns", "one_column"):
            architecture.save_architecture(tmp_path / "picture.svg", variant)
            paths = re.findall(r"<path [^>]*>", (tmp_path / "picture.svg").read_text(encoding="utf-8"))
            # Of an arrow, the line and the head; of the legend, a line.
            arrows[variant] = [sum(color in path for path in paths) for color in ("#b2182b", "#404040")]
        # Across into conv3, fc6 and fc7, and from column 2 into fc8, on column 1's device.
        assert arrows == {"paper": [15, 31], "independent_columns": [3, 31], "one_column": [0, 16]}

    def test_locally_connected_layers_are_drawn(self, tmp_path):
        architecture.save_architecture(tmp_path / "local.svg", "cifar_11pct", 10)
        texts = self.texts(tmp_path / "local.svg")
        for shape in rows.trace(VARIANTS["cifar_11pct"], 10):
            if isinstance(shape.row, rows.Local):  # below its name is the size of its box
                assert texts[texts.index(shape.name) + 1] == " x ".join(map(str, shape.output_shape))
