"""Grids of images, read back from their pixels."""

import numpy as np
import pytest

from alexnet_tf.layers import GroupedConv2D
from alexnet_tf.visualization import image_grids

NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]


class TestKernelSheet:
    def test_each_kernel_is_at_its_position_scaled_by_itself(self):
        layer = GroupedConv2D(36, 2)
        layer.build((None, 8, 8, 6))  # 3 channels for each of two groups
        for group, kernel in enumerate(layer.kernels):
            values = np.zeros(kernel.shape, "float32")
            values[0, 1, group, :] = np.arange(1, 19)  # one color of one pixel, red or green
            kernel.assign(values)
        sheet = image_grids.kernel_sheet(layer, magnification=4)
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

    def test_kernel_of_zeros_is_gray_and_not_a_division_by_zero(self):
        layer = GroupedConv2D(2, 3, groups=1, kernel_initializer="zeros")
        layer.build((None, 8, 8, 3))
        sheet = image_grids.kernel_sheet(layer, magnification=1)
        np.testing.assert_array_equal(sheet[1:4, 1:4], 128)


class TestPredictionPanel:
    def test_bar_of_the_true_class_has_another_color(self):
        images = [np.full((32, 32, 3), 200, "uint8")] * 3
        predictions = [(["Dress", "Coat"], np.array([0.9, 0.1]))] * 3
        orange = np.array([0xF4, 0xA5, 0x82])
        with_title = image_grids.prediction_panel(images, predictions, ["Dress"] * 3)
        without = image_grids.prediction_panel(images, predictions)
        assert np.any(np.all(with_title == orange, axis=-1))
        assert not np.any(np.all(without == orange, axis=-1))

    @pytest.mark.parametrize("count", [1, 4, 5, 9])
    def test_any_number_of_images_fits(self, count):
        images = [np.zeros((16, 16, 3), "uint8")] * count
        panel = image_grids.prediction_panel(images, [(NAMES, np.full(5, 0.2))] * count)
        assert panel.ndim == 3
        assert panel.shape[1] >= 200 * min(4, count)
