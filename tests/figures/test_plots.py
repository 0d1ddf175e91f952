"""Charts, checked by their pixels."""

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from alexnet_tf import fonts
from alexnet_tf.figures import image_grids, plots

NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]


def color_at(pixels, axes, x, y):
    """The color of a picture at a point of a figure's axes."""
    column, row = axes.transData.transform((x, y)).round().astype(int)
    return pixels[len(pixels) - row, column]


class TestConfusionMatrix:
    def test_cells_show_shares_of_rows(self, figures):
        labels = np.repeat(np.arange(5), 10)
        predictions = labels.copy()
        predictions[20:26] = 4  # six of ten of class 2 and all of class 3 are misclassified
        predictions[30:40] = 0
        pixels = plots.confusion_matrix(labels, predictions, NAMES)
        (axes,) = figures[0].axes
        shares = np.eye(5)
        shares[2, [2, 4]], shares[3, [3, 0]] = (0.4, 0.6), (0, 1)
        for true in range(5):
            for predicted in range(5):
                expected = matplotlib.colormaps["Blues"](shares[true, predicted], bytes=True)[:3]
                shown = color_at(pixels, axes, predicted - 0.4, true + 0.4)  # next to the number
                np.testing.assert_allclose(np.int32(shown), expected, atol=3)
        numbers = {(x, y): text.get_text() for text in axes.texts for x, y in [text.get_position()]}
        assert numbers == {(0, 0): "1", (1, 1): "1", (2, 2): ".40", (4, 2): ".60", (0, 3): "1", (4, 4): "1"}
        assert [label.get_text() for label in axes.get_yticklabels()] == NAMES


class TestReliabilityDiagram:
    def test_points_intervals_and_bars_are_the_bins(self, figures):
        rows = [
            {"images": 10, "confidence": 0.05, "accuracy": 0.95, "accuracy_interval_95": [0.7, 0.99]},
            {"images": 40, "confidence": 0.9, "accuracy": 0.5, "accuracy_interval_95": [0.4, 0.65]},
        ]
        pixels = plots.reliability_diagram({"bins": rows, "expected_calibration_error": 0.5})
        upper, lower = figures[0].axes
        blue = np.array([0x21, 0x71, 0xB5])
        for row in rows:
            for y in (row["accuracy"], row["accuracy_interval_95"][0] + 0.02, row["accuracy_interval_95"][1] - 0.02):
                np.testing.assert_allclose(np.int32(color_at(pixels, upper, row["confidence"], y)), blue, atol=60)
            beyond = color_at(pixels, upper, row["confidence"], row["accuracy_interval_95"][0] - 0.03)
            np.testing.assert_array_equal(beyond, 255)
        assert [bar.get_height() for bar in lower.patches] == [10, 40]
        (legend,) = figures[0].legends
        assert not legend.get_window_extent().overlaps(upper.get_window_extent())
        assert upper.get_title() == "Expected calibration error 50.0%"


class TestTrainingCurves:
    def test_lines_and_labels(self, figures):
        plots.training_curves([[0.5, 0.3, 0.2], [0.6, 0.5]], ["ReLU", "tanh"], 0.25, "CIFAR-10")
        (axes,) = figures[0].axes
        lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        assert lines["ReLU: 3 epochs"] == [[1, 0.5], [2, 0.3], [3, 0.2]]
        assert lines["tanh: more than 2 epochs"] == [[1, 0.6], [2, 0.5]]
        assert axes.get_title() == "CIFAR-10: epochs to 25%"


class TestSavePng:
    def test_round_trip(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype("uint8")
        plots.save_png(tmp_path / "a.png", pixels)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def drawn(text, **arguments):
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.3, text, fontsize=30, **arguments)
    return plots.pixels_of(figure)


class TestText:
    @pytest.fixture
    def other_fonts(self, monkeypatch):
        """A function that sets the fonts installed in addition to Matplotlib's own."""

        def set_fonts(*paths):
            monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*paths, "/nowhere.ttf"])
            fonts._files_with.cache_clear()

        yield set_fonts
        fonts._files_with.cache_clear()

    def test_math_is_drawn_as_text(self):
        assert not np.array_equal(drawn("$x$"), drawn("x"))
        np.testing.assert_array_equal(drawn("$x^2$"), drawn("$x^2$", parse_math=False))

    def test_every_chart_draws_invalid_math(self):
        names, images = [r"$\frac{1}$", "$x^2$", "a$", "\\", "{"], np.zeros((5, 8, 8, 3), "uint8")
        plots.confusion_matrix(np.arange(5), np.arange(5), names)
        plots.confusion_matrix(np.arange(5), np.arange(5), names * 10)  # without names
        plots.training_curves([[0.5, 0.1]], names[:1], 0.2, names[0])
        image_grids.prediction_panel(images, [(names, np.full(5, 0.2))] * 5, names)
        image_grids.image_rows([list(zip(images, names, strict=True))])
        image_grids.patch_rows([list(zip(images, names, strict=True))] * 5, names)

    def test_other_scripts_use_an_installed_font(self, other_fonts, made_font, caplog):
        path = made_font("猫")
        other_fonts(path)
        (usual,) = fonts.font_files("cat\n")
        assert fonts.font_files("a猫\n") == [usual, path]
        cat = drawn("猫")
        # The font's glyph is a black square of its size, 30 points.
        assert np.sum(np.all(cat == 0, axis=-1)) == pytest.approx((30 / 72 * 100) ** 2, rel=0.1)
        np.testing.assert_array_equal(drawn("x"), drawn("x", family="DejaVu Sans"))
        assert not caplog.records

    def test_missing_font_is_reported_once(self, other_fonts, caplog, recwarn):
        other_fonts()
        for _ in range(2):
            drawn("ab犬猫")
        (record,) = caplog.records
        assert "No installed font has 犬猫: pictures show boxes" in record.getMessage()
        assert "fonts-noto-cjk" in record.getMessage()
        assert not recwarn.list
