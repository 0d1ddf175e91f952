"""How an image of any kind becomes the square that a record holds."""

import io

import numpy as np
import pytest
from made_photos import encoded, photo
from PIL import Image

from alexnet_tf.tfrecords import images


class TestPrepareImage:
    @pytest.mark.parametrize(
        ("content", "tolerance"),
        [
            (encoded(photo(), "PNG"), 0),
            (encoded(photo(), "JPEG", quality=95), 6),
            (encoded(photo(), "GIF"), 30),
            (encoded(photo(), "WEBP", lossless=True), 0),
            (encoded(photo(mode="RGBA"), "PNG"), 0),
            (encoded(photo(mode="P"), "PNG"), 60),
            (encoded(photo(mode="CMYK"), "JPEG", quality=95), 6),
        ],
        ids=["png", "jpeg", "gif", "webp", "transparent", "palette", "cmyk"],
    )
    def test_content_of_any_kind_becomes_the_rgb_square(self, content, tolerance):
        result = images.prepare_image(content, 30)
        expected = np.asarray(photo().resize((40, 30), Image.Resampling.BILINEAR))[:, 5:35]
        assert result.dtype == np.uint8
        assert result.shape == (30, 30, 3)
        assert np.abs(result.astype(int) - expected).max() <= tolerance + 1  # 1: of rounding in two steps

    @pytest.mark.parametrize("mode", ["L", "1", "LA"])
    def test_gray_image_has_three_equal_channels(self, mode):
        result = images.prepare_image(encoded(photo(mode=mode), "PNG"), 30)
        np.testing.assert_array_equal(result, np.repeat(result[..., :1], 3, axis=-1))
        assert result.std() > 20

    def test_16_bit_image_is_scaled_and_not_clipped(self):
        levels = np.arange(0, 65536, 256, dtype="uint16").reshape(16, 16)
        result = images.prepare_image(encoded(Image.fromarray(levels), "PNG"), 16)
        np.testing.assert_array_equal(result[..., 0], levels >> 8)

    @pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
    def test_array_of_the_right_size_stays_as_it_is(self, shape):
        array = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
        result = images.prepare_image(array, 28)
        np.testing.assert_array_equal(result, array if array.ndim == 3 else np.stack([array] * 3, axis=-1))

    @pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
    def test_long_thin_image_is_cut_before_it_is_scaled(self, size, monkeypatch):
        largest = []
        resize = Image.Image.resize

        def watch(self, *arguments, **options):
            result = resize(self, *arguments, **options)
            largest.append(result.width * result.height)
            return result

        monkeypatch.setattr(Image.Image, "resize", watch)
        assert images.prepare_image(encoded(Image.new("RGB", size, "red"), "PNG"), 256).shape == (256, 256, 3)
        assert max(largest) == 256 * 256

    @pytest.mark.parametrize(
        "size, shape", [((300, 200), (20, 30)), ((200, 300), (30, 20)), ((1, 5000), (80, 20)), ((5000, 1), (20, 80))]
    )
    def test_longer_side_is_kept_up_to_four_times_the_shorter(self, size, shape):
        columns, rows = np.meshgrid(*(np.linspace(0, 250, length) for length in size))
        photo = np.stack([rows, columns, 0 * rows], axis=-1).astype("uint8")
        result = images.prepare_image(photo, 20, keep_aspect=True)
        assert result.shape == (*shape, 3)
        if max(size) == 300:
            assert np.abs(result[0, 0].astype(int) - [4, 4, 0]).max() <= 4
            assert np.abs(result[-1, -1].astype(int) - [246, 246, 0]).max() <= 4

    def test_reduction_is_antialiased(self):
        checkers = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype("uint8")
        assert np.abs(images.prepare_image(checkers, 32).astype(int) - 127).max() < 12

    @pytest.mark.parametrize(
        "content",
        [b"", b"text, not an image", encoded(photo(), "JPEG")[:700], encoded(photo(), "PNG")[:200]],
        ids=["empty", "text", "cut jpeg", "cut png"],
    )
    def test_unreadable_content_raises(self, content):
        with pytest.raises(Exception, match=r"."):
            images.prepare_image(content, 16)

    def test_decompression_bomb_raises(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 4,800 pixels are more than twice that
        with pytest.raises(Image.DecompressionBombError):
            images.prepare_image(encoded(photo(), "PNG"), 16)

    def test_image_of_more_pixels_than_pillows_limit_raises(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # more, but not twice as many: Pillow only warns
        with pytest.raises((Image.DecompressionBombError, Image.DecompressionBombWarning)):
            images.prepare_image(encoded(photo(), "PNG"), 16)


class TestEncodeImage:
    def test_png_is_exact_and_jpeg_near(self):
        image = np.asarray(photo())
        png, jpeg = (np.asarray(Image.open(io.BytesIO(images.encode_image(image, e, 95)))) for e in ("png", "jpeg"))
        np.testing.assert_array_equal(png, image)
        assert 0 < np.abs(jpeg.astype(int) - image).mean() < 3
