"""Original images of any size are cropped and resized like Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from made_photos import encoded, exif
from PIL import Image

from alexnet_tf.tfrecords import decoding
from alexnet_tf.tfrecords.augmentation import Augmentation

SIZES = [(375, 500), (500, 333), (256, 256), (100, 141), (701, 90)]  # height, width
IMAGE_PX, CROP_PX = 256, 224
# Without subsampling a JPEG's rectangle does not depend on its surroundings.
FORMATS = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}}


def made(size, format="PNG", mode="RGB", **options):
    """A file of smooth color waves, and its pixels as Pillow decodes them."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(rows / 9 + columns / 40), np.sin(rows / 50 - columns / 13), np.cos(rows / 23) * np.sin(columns / 7)]
    image = Image.fromarray((127 + 120 * np.stack(waves, axis=-1)).astype("uint8")).convert(mode)
    content = encoded(image, format, **FORMATS[format] | options)
    return content, Image.open(io.BytesIO(content)).convert("RGB")


def reference(image, top, left, side, keep_aspect=False):
    """Pillow's crop of an image whose shorter side would be IMAGE_PX: of its central square, or of all of it."""
    scale = min(image.size) / IMAGE_PX
    box_px = round(side * scale)
    lost_rows = lost_columns = 0
    if not keep_aspect:
        lost_rows, lost_columns = ((length - min(image.size)) // 2 for length in (image.height, image.width))
    y, x = lost_rows + round(top * scale), lost_columns + round(left * scale)
    box = image.crop((x, y, x + box_px, y + box_px))
    return np.int32(box.resize((side, side), Image.Resampling.BILINEAR))


def in_graph(function, *columns):
    """Maps a function over the rows of some columns in a `tf.data.Dataset`."""
    return list(tf.data.Dataset.from_tensor_slices(columns).map(function).as_numpy_iterator())


def small_square(content):
    return decoding.decode_image(content, "original", tf.constant([8, 8]))


class TestOriginal:
    @pytest.mark.parametrize("where", ["eagerly", "in tf.data"])
    @pytest.mark.parametrize("format", FORMATS)
    def test_crop_equals_pillows(self, format, where):
        def crop(content, top, left):
            return decoding.decode_crop(content, "original", tf.constant([IMAGE_PX] * 2), top, left, CROP_PX)

        files = [made(size, format) for size in SIZES]
        rows = [(*file, top, left) for file in files for top, left in ((0, 0), (16, 16), (32, 32), (3, 29))]
        contents, images, tops, lefts = map(list, zip(*rows, strict=True))
        if where == "in tf.data":
            results = in_graph(crop, contents, tops, lefts)
        else:
            results = [crop(*each).numpy() for each in zip(contents, tops, lefts, strict=True)]
        for result, image, top, left in zip(results, images, tops, lefts, strict=True):
            assert result.dtype == np.uint8
            assert np.abs(result - reference(image, top, left, CROP_PX)).max() <= 1, (image.size, top, left)

    @pytest.mark.parametrize("format", FORMATS)
    def test_central_square_equals_pillows(self, format):
        content, image = made((375, 500), format)
        square = decoding.decode_image(content, "original", tf.constant([IMAGE_PX] * 2))
        assert np.abs(square.numpy() - reference(image, 0, 0, IMAGE_PX)).max() <= 1

    @pytest.mark.parametrize("size", SIZES)
    def test_keep_aspect_crops_reach_the_edges(self, size):
        content, image = made(size)
        scaled = decoding.scaled_size(tf.constant(content), IMAGE_PX)
        assert scaled.numpy().tolist() == [round(length * IMAGE_PX / min(size)) for length in size]
        for top, left in ((0, 0), (scaled.numpy() - CROP_PX).tolist()):
            result = decoding.decode_crop(content, "original", scaled, top, left, CROP_PX).numpy()
            box_px = round(CROP_PX * min(size) / IMAGE_PX)
            y, x = (0, 0) if top == left == 0 else (size[0] - box_px, size[1] - box_px)
            near = [
                np.abs(
                    np.int32(result)
                    - image.crop((x + dx, y + dy, x + dx + box_px, y + dy + box_px)).resize(
                        (CROP_PX, CROP_PX), Image.Resampling.BILINEAR
                    )
                ).max()
                for dx in (-1, 0)
                for dy in (-1, 0)
                if x + dx >= 0 and y + dy >= 0
            ]
            assert min(near) <= 1  # the last crop is rounded to the pixel

    @pytest.mark.parametrize("size", [(256, 256), (256, 400)])
    @pytest.mark.parametrize("format", FORMATS)
    def test_image_of_the_right_size_is_not_resampled(self, size, format):
        content, _ = made(size, format)
        stored_as = format.lower()
        left = (size[1] - 256) // 2
        expected = decoding.decode_crop(content, stored_as, tf.constant(size), 5, left + 7, CROP_PX)
        result = decoding.decode_crop(content, "original", tf.constant([256, 256]), 5, 7, CROP_PX)
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("format", FORMATS)
    def test_random_size_window_comes_from_the_complete_file(self, format):
        augmentation = Augmentation(crop_scale=(0.08, 1), flip=False)

        def decode(content, row):
            return augmentation.apply(content, "original", tf.constant([256, 256]), row, CROP_PX)

        draws = np.random.default_rng(0).random((20, 23), "float32")
        files = [made(size, format) for size in SIZES] * 4
        for (_, image), row, result in zip(
            files, draws, in_graph(decode, [each for each, _ in files], draws), strict=True
        ):
            top, left, height, width = (int(each) for each in augmentation.window(tf.constant(image.size[::-1]), row))
            box = image.crop((left, top, left + width, top + height))
            expected = np.int32(box.resize((CROP_PX, CROP_PX), Image.Resampling.BILINEAR))
            assert np.abs(result - expected).max() <= 1

    @pytest.mark.parametrize(
        "mode, format", [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG")]
    )
    def test_other_modes_become_rgb(self, mode, format):
        content, _ = made((300, 280), format, mode)
        image = Image.open(io.BytesIO(content)).convert("RGB")
        square = decoding.decode_image(content, "original", tf.constant([IMAGE_PX] * 2)).numpy()
        difference = np.abs(square - reference(image, 0, 0, IMAGE_PX))
        assert difference.max() <= (6 if mode == "CMYK" else 1)  # their CMYK conversions differ

    def test_transparent_png_has_a_white_background(self):
        pixels = np.zeros((256, 256, 4), "uint8")
        pixels[..., 3] = np.arange(256)
        content = encoded(Image.fromarray(pixels), "PNG")
        image = decoding.decode_image(content, "original", tf.constant([256, 256])).numpy()
        np.testing.assert_array_equal(image[0, :, 0], 255 - np.arange(256))

    def test_exif_orientation_is_ignored(self):
        content, image = made((300, 280), "JPEG", exif=exif(6))
        square = decoding.decode_image(content, "original", tf.constant([IMAGE_PX] * 2)).numpy()
        assert np.abs(square - reference(image, 0, 0, IMAGE_PX)).max() <= 1

    @pytest.mark.parametrize(
        "content", [b"", b"no image", made((30, 40), "PNG")[0][:20], made((30, 40), "JPEG")[0][:9]]
    )
    @pytest.mark.parametrize("where", ["eagerly", "in tf.data"])
    def test_damaged_image_is_an_invalid_argument(self, content, where):
        with pytest.raises(tf.errors.InvalidArgumentError):
            in_graph(small_square, [content]) if where == "in tf.data" else small_square(content)

    def test_huge_png_is_an_error(self):
        content = bytearray(made((30, 40))[0])
        content[16:24] = (100_000).to_bytes(4, "big") * 2
        with pytest.raises(tf.errors.InvalidArgumentError, match="must have 1 to 89478485 pixels"):
            small_square(bytes(content))
