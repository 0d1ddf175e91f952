"""Charts, read back from their pixels."""

import numpy as np
from PIL import Image

from alexnet_tf.visualization import plots

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
