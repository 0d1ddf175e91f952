"""The center crop and the ten views, of arrays and of tensors."""

import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.tfrecords import crops


@pytest.fixture(params=["array", "tensor"])
def make(request):
    return np.asarray if request.param == "array" else tf.constant


def _numbered(*shape):
    return np.arange(np.prod(shape), dtype="int32").reshape(shape)


class TestCenterCrop:
    def test_odd_margin_rounds_up_and_left(self, make):
        images = _numbered(2, 7, 10, 3)
        np.testing.assert_array_equal(crops.center_crop(make(images), 4), images[:, 1:5, 3:7])

    def test_any_leading_dimensions(self, make):
        images = _numbered(2, 5, 8, 8, 3)
        np.testing.assert_array_equal(crops.center_crop(make(images), 4), images[:, :, 2:6, 2:6])
        np.testing.assert_array_equal(crops.center_crop(make(images[0, 0]), 8), images[0, 0])

    @pytest.mark.parametrize("crop_px", [0, 9])
    def test_crop_that_does_not_fit_is_an_error(self, make, crop_px):
        with pytest.raises(ValueError, match=rf"from 1 to the image side, 8\. Received: crop_px={crop_px}"):
            crops.center_crop(make(_numbered(8, 12, 3)), crop_px)


class TestTenViews:
    def test_corners_center_and_their_mirror_images(self, make):
        images = _numbered(2, 9, 9, 3)
        views = np.asarray(crops.ten_views(make(images), 4))
        assert views.shape == (2, 10, 4, 4, 3) and views.dtype == "int32"
        for number, (top, left) in enumerate([(0, 0), (0, 5), (5, 0), (5, 5), (2, 2)]):
            expected = images[:, top : top + 4, left : left + 4]
            np.testing.assert_array_equal(views[:, number], expected)
            np.testing.assert_array_equal(views[:, 5 + number], expected[:, :, ::-1])

    def test_any_leading_dimensions(self, make):
        images = _numbered(2, 3, 6, 8, 3)
        views = np.asarray(crops.ten_views(make(images), 4))
        assert views.shape == (2, 3, 10, 4, 4, 3)
        np.testing.assert_array_equal(crops.ten_views(make(images[1, 2]), 4), views[1, 2])

    def test_view_that_does_not_fit_is_an_error(self, make):
        with pytest.raises(ValueError, match=r"from 1 to the image side, 6\. Received: crop_px=7"):
            crops.ten_views(make(_numbered(6, 8, 3)), 7)
