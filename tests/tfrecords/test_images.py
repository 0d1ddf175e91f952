"""How images of all kinds are opened, cropped, resized and encoded."""

import io
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from made_photos import encoded, exif, photo
from PIL import EpsImagePlugin, Image, ImageOps, UnidentifiedImageError

from alexnet_tf.tfrecords import images


class TestPrepareImage:
    def test_area_averages_over_parts_of_pixels(self):
        pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3)).astype("uint8")
        result = images.prepare_image(pixels, 3, interpolation="area")
        each = pixels.repeat(3, axis=0).repeat(3, axis=1)  # 21 x 21, in which a pixel of the result is 7 x 7
        expected = each.reshape(3, 7, 3, 7, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(result, expected, atol=0.51)
        enlarged = images.prepare_image(pixels, 14, interpolation="area")
        np.testing.assert_array_equal(enlarged, Image.fromarray(pixels).resize((14, 14), Image.Resampling.BICUBIC))

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
    def test_all_formats_become_rgb_squares(self, content, tolerance):
        result = images.prepare_image(content, 30)
        expected = np.asarray(photo().resize((40, 30), Image.Resampling.BILINEAR))[:, 5:35]
        assert result.dtype == np.uint8
        assert result.shape == (30, 30, 3)
        assert np.abs(result.astype(int) - expected).max() <= tolerance + 1  # 1: of rounding in two steps

    def test_heic(self):
        pillow_heif = pytest.importorskip("pillow_heif")
        for orientation in (1, 6):
            buffer = io.BytesIO()
            pillow_heif.from_pillow(photo()).save(buffer, quality=95, exif=exif(orientation).tobytes())
            expected = images.prepare_image(encoded(photo(), "PNG", exif=exif(orientation)), 30)
            assert np.abs(images.prepare_image(buffer.getvalue(), 30).astype(int) - expected).max() <= 8
        assert images.unserved_format(images.open_image(buffer.getvalue())) == "HEIF"
        with pytest.raises(ValueError, match="--max_pixels"):
            images.open_image(buffer.getvalue(), max_pixels=1000)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("kind", "options"),
        [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
        ids=["jpeg", "png", "webp", "tiff"],
    )
    def test_rotated_image_becomes_upright(self, kind, options, orientation):
        for size in ((61, 80), (80, 61)):
            content = encoded(photo(*size), kind, exif=exif(orientation), **options)
            upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(content))), "PNG")
            for keep_aspect in (False, True):
                result = images.prepare_image(content, 30, keep_aspect)
                np.testing.assert_array_equal(result, images.prepare_image(upright, 30, keep_aspect))
            if kind != "TIFF":  # Pillow itself turns TIFFs
                stored = images.prepare_image(content, 30, exif_orientation=False)
                assert np.array_equal(stored, images.prepare_image(content, 30)) == (orientation == 1)

    @pytest.mark.parametrize("size", [(61, 80), (80, 61), (3, 500)])
    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    def test_warp_equals_pillows_resize(self, size, mode):
        upright = photo(*size)
        expected = upright.resize((30, 30), Image.Resampling.BILINEAR)
        turned = upright.convert(mode).transpose(Image.Transpose.ROTATE_90)
        result = images.prepare_image(encoded(turned, "PNG", exif=exif(6)), 30, resize="warp")
        np.testing.assert_array_equal(result, expected)

    def test_damaged_orientation_is_ignored(self):
        whole = exif(6).tobytes()
        assert images.read_orientation(whole) == 6
        for damaged in (b"", whole[:-13], whole.replace(b"MM", b"MX"), whole.replace(b"\0\6", b"\0\x09"), whole[:20]):
            assert images.read_orientation(damaged) == 1
            jpeg = encoded(photo(), "JPEG", exif=damaged)
            np.testing.assert_array_equal(
                images.prepare_image(jpeg, 30), images.prepare_image(encoded(photo(), "JPEG"), 30)
            )

    def test_postscript_is_never_opened(self, tmp_path, monkeypatch):
        ran = []
        monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: ran.append(arguments))
        path = tmp_path / "photo.jpg"
        path.write_bytes(encoded(photo(), "EPS"))
        with pytest.raises(UnidentifiedImageError):
            images.prepare_image(path, 30)
        assert not ran

    def test_whole_project_opens_only_these_formats(self):
        root = pathlib.Path(images.__file__).parent.parent
        for path in [*root.rglob("alexnet_tf/**/*.py"), *root.rglob("tfrecords/*.py")]:
            for call in re.findall(r"Image\.open\(.*", path.read_text()):
                assert "formats=" in call, path

    @pytest.mark.parametrize("mode", ["L", "1", "LA"])
    def test_gray_image_has_three_equal_channels(self, mode):
        result = images.prepare_image(encoded(photo(mode=mode), "PNG"), 30)
        np.testing.assert_array_equal(result, np.repeat(result[..., :1], 3, axis=-1))
        assert result.std() > 20

    @pytest.mark.parametrize(
        ("largest", "dtype", "kind"),
        [
            (4095, "uint16", "PNG"),
            (1000, "uint16", "PNG"),
            (300, "uint16", "PNG"),
            (65535, "uint16", "PNG"),
            (16383, "uint16", "TIFF"),
            (255, "int32", "TIFF"),
            (255, "float32", "TIFF"),
            (1, "float32", "TIFF"),
            (65535, "float32", "TIFF"),
        ],
    )
    def test_values_are_scaled_by_the_range_they_use(self, largest, dtype, kind):
        values = np.linspace(0, largest, 256).reshape(16, 16)
        result = images.prepare_image(encoded(Image.fromarray(values.astype(dtype)), kind), 16)[..., 0]
        ceiling = {1: 1, 300: 1024, 1000: 1024}.get(largest, largest + 1)
        np.testing.assert_allclose(result, np.minimum(255, values / ceiling * 255.5), atol=1.1)

    def test_12_bit_colors_in_16_bit_png_are_scaled(self):
        pixels = np.asarray(photo()).astype("uint16")
        result = images.prepare_image(tf.io.encode_png(pixels * 16).numpy(), 30)
        np.testing.assert_array_equal(result, images.prepare_image(encoded(photo(), "PNG"), 30))

    def test_transparency_of_16_bit_png(self):
        pixels = np.zeros((1, 2, 4), "uint16")
        pixels[0, :, 3] = 0x33FF, 0xFF33
        result = images.prepare_image(tf.io.encode_png(np.repeat(pixels, 2, axis=0)).numpy(), 2)
        assert result[0, :, 0].tolist() == [255 - 0x33, 0]

    @pytest.mark.parametrize("values", [[-1.0, 5.0], [0.0, float("nan")], [0.0, 1.5], [0.0, 7e4]], ids=str)
    def test_values_with_unknown_range(self, values):
        with pytest.raises(ValueError, match="pixels must be integers of 8 to 16 bits or floats from 0 to 1"):
            images.prepare_image(encoded(Image.fromarray(np.float32([values] * 2)), "TIFF"), 2)

    @pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGBA"), ("GIF", "RGBA")])
    def test_transparent_pixels_become_white(self, kind, mode):
        pixels = np.full((20, 20, 4), (255, 0, 255, 0), "uint8")  # invisible magenta
        pixels[:10] = (10, 20, 30, 255)
        result = images.prepare_image(encoded(Image.fromarray(pixels).convert(mode), kind, lossless=True), 20)
        assert (result[10:] == 255).all()
        assert np.abs(result[:10].astype(int) - [10, 20, 30]).max() <= (30 if mode == "P" else 0)

    def test_half_transparent_pixels_are_mixed_with_white(self):
        pixels = np.full((4, 4, 4), (100, 0, 200, 51), "uint8")
        np.testing.assert_array_equal(
            images.prepare_image(encoded(Image.fromarray(pixels), "PNG"), 4)[0, 0], [224, 204, 244]
        )

    @pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
    def test_array_with_the_right_size_is_unchanged(self, shape):
        array = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
        result = images.prepare_image(array, 28)
        np.testing.assert_array_equal(result, array if array.ndim == 3 else np.stack([array] * 3, axis=-1))

    @pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
    def test_image_is_cropped_before_it_is_resized(self, size, monkeypatch):
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
    def test_keep_aspect_up_to_a_ratio_of_four(self, size, shape):
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
    def test_unreadable_content(self, content):
        with pytest.raises(Exception, match=r"."):
            images.prepare_image(content, 16)

    @pytest.mark.parametrize("max_pixels", [1000, 4000])  # above the limit, Pillow only warns up to twice the limit
    def test_max_pixels(self, max_pixels, monkeypatch):
        content = encoded(photo(), "PNG")  # 4,800 pixels
        with pytest.raises(ValueError, match=rf"images must have at most {max_pixels:,} pixels \(--max_pixels\)"):
            images.prepare_image(content, 16, max_pixels=max_pixels)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", max_pixels)
        assert images.prepare_image(content, 16, max_pixels=4800).shape == (16, 16, 3)
        assert max_pixels == Image.MAX_IMAGE_PIXELS


class TestEncodeImage:
    def test_png_is_exact_and_jpeg_is_close(self):
        image = np.asarray(photo())
        png, jpeg = (np.asarray(Image.open(io.BytesIO(images.encode_image(image, e, 95)))) for e in ("png", "jpeg"))
        np.testing.assert_array_equal(png, image)
        assert 0 < np.abs(jpeg.astype(int) - image).mean() < 3
