"""Grids of images, checked by their pixels."""

import numpy as np
import pytest

from alexnet_tf.figures import image_grids

NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]


def test_last_row_of_tiles_is_filled():
    pictures = np.arange(1, 6, dtype="uint8").repeat(12).reshape(5, 2, 2, 3)
    for fill in (0, 9):
        tiled = image_grids.tile(list(pictures), 3, fill)
        assert tiled.dtype == np.uint8 and tiled.shape == (4, 6, 3)
        assert tiled[::2, ::2, 0].tolist() == tiled[1::2, 1::2, 2].tolist() == [[1, 2, 3], [4, 5, fill]]


class TestKernelSheet:
    def test_position_and_scale_of_each_kernel(self):
        kernels = np.zeros((2, 2, 2, 3, 18), "float32")
        for group in range(2):
            kernels[group, 0, 1, group] = np.arange(1, 19)  # one color of one pixel, red or green
        sheet = image_grids.kernel_sheet(list(kernels), magnification=4)
        cell = 2 * 4 + 2
        assert sheet.dtype == np.uint8
        assert sheet.shape == (4 * cell + 8, 16 * cell, 3)  # two rows for each group's 18 kernels, and a gap
        for group in range(2):
            for number in (0, 15, 17):
                row, column = divmod(number, 16)
                top = group * (2 * cell + 8) + row * cell + 1
                left = column * cell + 1
                bright = sheet[top, left + 4]
                assert bright[group] == 255
                assert bright[1 - group] == 128
                np.testing.assert_array_equal(sheet[top + 4, left], 128)  # a zero is gray
        np.testing.assert_array_equal(sheet[cell + 1, 3 * cell + 1], 255)  # no nineteenth kernel

    def test_kernel_of_zeros_is_gray(self):
        sheet = image_grids.kernel_sheet([np.zeros((3, 3, 3, 2))], magnification=1)
        np.testing.assert_array_equal(sheet[1:4, 1:4], 128)


class TestPredictionPanel:
    def test_length_and_text_of_bars(self, figures):
        images = [np.full((32, 32, 3), value, "uint8") for value in (200, 100)]
        predictions = [(["Dress", "Coat"], np.array([0.8, 0.2])), (["Bag", "Coat"], np.array([0.6, 0.004]))]
        panel = image_grids.prediction_panel(images, predictions, ["Dress", "Coat"])
        # Below the names: the last rows of pixels of each bar.
        half = panel.shape[1] // 2
        orange, blue = np.array([0xF4, 0xA5, 0x82]), np.array([0x9E, 0xCA, 0xE1])
        lengths = {}
        for name, color in (("orange", orange), ("blue", blue)):
            found = np.all(panel == color, axis=-1)
            lengths[name] = [int(found[:, part].sum(axis=1).max()) for part in (slice(None, half), slice(half, None))]
        assert lengths["orange"][0] / lengths["blue"][0] == pytest.approx(4, rel=0.05)
        assert lengths["blue"][1] / lengths["orange"][0] == pytest.approx(0.6 / 0.8, rel=0.05)
        pictures, bars = figures[0].axes[:2], figures[0].axes[2:]
        assert [[text.get_text() for text in each.texts] for each in bars] == [
            ["Dress", "80%", "Coat", "20%"],
            ["Bag", "60%", "Coat", "0%"],
        ]
        assert all(each.yaxis_inverted() for each in bars)  # the most probable is at the top
        assert [each.get_title() for each in pictures] == ["Dress", "Coat"]
        for each, image in zip(pictures, images, strict=True):
            np.testing.assert_array_equal(each.images[0].get_array(), image)

    @pytest.mark.parametrize("count", [1, 5])
    def test_bars_without_titles_are_blue(self, count):
        images = [np.zeros((16, 16, 3), "uint8")] * count
        panel = image_grids.prediction_panel(images, [(["n01440764 tench", *NAMES], np.full(6, 0.2))] * count)
        assert panel.shape[1] >= 400 * min(4, count)  # twice the size of a screen
        assert not np.all(panel == [0xF4, 0xA5, 0x82], axis=-1).any()


def test_shorten():
    assert image_grids.shorten("n01440764 tench, Tinca tinca") == "tench, Tinca tinca"
    assert image_grids.shorten("a" * 24) == "a" * 21 + "…"


class TestRows:
    COLORS = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200]], [[200, 200, 0], [0, 200, 200], [200, 0, 200]]], "uint8")

    def centers(self, picture):
        """The mean row and column of each color."""
        found = [np.argwhere(np.all(picture == color, axis=-1)) for color in self.COLORS.reshape(-1, 3)]
        return np.array([pixels.mean(axis=0) for pixels in found]).reshape(2, 3, 2)

    @pytest.mark.parametrize("kind", ["images", "patches"])
    def test_position_and_name_of_each_image(self, kind, figures):
        rows = [[(np.tile(color, (8, 8, 1)), "name") for color in row] for row in self.COLORS]
        if kind == "images":
            picture = image_grids.image_rows(rows)
        else:
            picture = image_grids.patch_rows(rows, ["first", "second"])
        centers = self.centers(picture)
        assert np.ptp(centers[..., 0], axis=1).max() < 2 and np.ptp(centers[..., 1], axis=0).max() < 2
        assert centers[1, 0, 0] - centers[0, 0, 0] > 50 and np.diff(centers[0, :, 1]).min() > 50
        axes = figures[0].axes
        assert [each.get_title() for each in axes if each.get_title()] == ["name"] * 6
        if kind == "patches":
            assert [text.get_text() for each in axes for text in each.texts] == ["first", "second"]
