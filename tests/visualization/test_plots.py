"""Charts, read back from their pixels."""

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from alexnet_tf.tfrecords import fonts
from alexnet_tf.visualization import image_grids, plots

NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]


class TestConfusionMatrix:
    def test_darkness_follows_the_share_of_each_row(self):
        labels = np.repeat(np.arange(5), 10)
        right = plots.confusion_matrix(labels, labels, NAMES)
        wrong = plots.confusion_matrix(labels, (labels + 1) % 5, NAMES)
        assert right.dtype == np.uint8
        assert right.shape == wrong.shape
        dark_right = np.argwhere((right[..., 2] < 150) & (right[..., 0] < 50) & (right[..., 2] > 60))
        slope = np.polyfit(dark_right[:, 1], dark_right[:, 0], 1)[0]
        assert slope > 0.8  # the diagonal, from the top left to the bottom right
        assert np.any(right != wrong)

    def test_thousand_classes_have_no_names(self):
        labels = np.arange(1000)
        assert plots.confusion_matrix(labels, labels, [str(c) for c in labels]).shape[1] > 500


class TestSavePng:
    def test_file_holds_the_same_pixels(self, tmp_path):
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
        """A function that sets the fonts that this machine has besides Matplotlib's own."""

        def set_fonts(*paths):
            monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*paths, "/nowhere.ttf"])
            fonts._files_with.cache_clear()

        yield set_fonts
        fonts._files_with.cache_clear()

    def test_mathematics_is_text(self):
        assert not np.array_equal(drawn("$x$"), drawn("x"))
        np.testing.assert_array_equal(drawn("$x^2$"), drawn("$x^2$", parse_math=False))

    def test_every_chart_takes_names_that_are_no_mathematics(self):
        names, images = [r"$\frac{1}$", "$x^2$", "a$", "\\", "{"], np.zeros((5, 8, 8, 3), "uint8")
        plots.confusion_matrix(np.arange(5), np.arange(5), names)
        plots.training_curves([[0.5, 0.1]], names[:1], 0.2, names[0])
        image_grids.prediction_panel(images, [(names, np.full(5, 0.2))] * 5, names)
        image_grids.image_rows([list(zip(images, names, strict=True))])
        image_grids.patch_rows([images] * 5, names)

    def test_other_scripts_are_drawn_in_a_font_of_this_machine(self, other_fonts, made_font, caplog):
        path = made_font("猫")
        other_fonts(path)
        (usual,) = fonts.font_files("cat\n")
        assert fonts.font_files("a猫\n") == [usual, path]
        cat = drawn("猫")
        # The made font's glyph is a black square of its size, 30 points.
        assert np.sum(np.all(cat == 0, axis=-1)) == pytest.approx((30 / 72 * 100) ** 2, rel=0.1)
        np.testing.assert_array_equal(drawn("x"), drawn("x", family="DejaVu Sans"))
        assert not caplog.records

    def test_font_that_is_missing_is_named_once(self, other_fonts, caplog, recwarn):
        other_fonts()
        for _ in range(2):
            drawn("ab犬猫")
        (record,) = caplog.records
        assert "no font for 犬猫: pictures show boxes" in record.getMessage()
        assert "fonts-noto-cjk" in record.getMessage()
        assert not recwarn.list
