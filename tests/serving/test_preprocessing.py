"""The decoding of images in a served graph."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from made_photos import encoded as as_file
from made_photos import exif, noisy_photo
from PIL import Image
from programs import ENVIRONMENT

from alexnet_tf.serving import orientation, preprocessing
from alexnet_tf.tfrecords import images


def photo(mode="RGB", size=(90, 70)):
    return noisy_photo(np.random.default_rng(5), size[1], size[0]).convert(mode)


def assert_decoded_as_in_training(content, **options):
    """Compares the square of an image with Pillow's, which rounds differently; returns it."""
    served = preprocessing.decode_square(tf.constant(content), 64, **options).numpy()
    assert np.abs(np.int32(served) - images.prepare_image(content, 64, **options)).max() <= 1
    return served


def flat_png(width, height, bits=8, color_type=2, bytes_per_pixel=3):
    """A PNG of one color: the smallest file for its number of pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    compressor = zlib.compressobj(9)
    rows = [compressor.compress(bytes(1 + bytes_per_pixel * width)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    data = b"".join([*rows, compressor.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def top_down_bmp(width, height):
    """A BMP whose rows run from top to bottom: its height is negative."""
    content = bytearray(as_file(photo(size=(width, height)), "bmp"))
    content[22:26] = struct.pack("<i", -height)
    return bytes(content)


class TestDecodeSquare:
    @pytest.mark.parametrize("size", [(300, 200), (37, 90), (28, 28), (5000, 1), (1, 1)])
    @pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
    def test_pixels_equal_those_of_training(self, size, kind):
        assert_decoded_as_in_training(as_file(photo(size=size), kind))

    @pytest.mark.parametrize(
        "mode, kind, options",
        [
            ("L", "png", {}),
            ("LA", "png", {}),
            ("P", "png", {}),
            ("1", "png", {}),
            ("RGBA", "png", {}),
            ("I;16", "png", {}),
            ("L", "jpeg", {}),
            ("CMYK", "jpeg", {}),
            ("RGB", "jpeg", {"quality": 60}),
            ("RGB", "jpeg", {"progressive": True, "subsampling": 0}),
            ("RGBA", "bmp", {}),
        ],
    )
    def test_every_color_mode_becomes_the_rgb_of_training(self, mode, kind, options):
        image = Image.fromarray(np.uint16(photo("L")) * 257) if mode == "I;16" else photo(mode)
        assert_decoded_as_in_training(as_file(image, kind, **options))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied_as_in_training(self, orientation):
        for size in ((91, 70), (70, 91)):
            for kind in ("JPEG", "PNG"):
                content = as_file(photo(size=size), kind, exif=exif(orientation))
                for honored in (True, False):
                    assert_decoded_as_in_training(content, exif_orientation=honored)

    @pytest.mark.parametrize("orientation", [1, 3, 6])
    @pytest.mark.parametrize("size", [(91, 70), (70, 91), (300, 5)])
    def test_warped_pixels_equal_those_of_training(self, size, orientation):
        content = as_file(photo(size=size), "PNG", exif=exif(orientation))
        assert_decoded_as_in_training(content, resize="warp")

    def test_damaged_exif_data_is_read_as_in_training(self):
        read = tf.function(orientation.read_jpeg, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
        random, found = np.random.default_rng(0), []
        for number in range(400):
            tags = bytearray(exif(1 + number % 8).tobytes())
            if number % 2:  # little-endian
                tags[6:] = struct.pack("<4sIHHHIHH", b"II*\0", 8, 1, 0x0112, 3, 1, 1 + number % 8, 0)
            for _ in range(random.integers(3)):
                tags[6 + random.integers(len(tags) - 6)] = random.integers(256)
            content = as_file(photo(), "JPEG", exif=bytes(tags[: random.integers(20, 60)]))
            found.append(images.read_orientation(Image.open(io.BytesIO(content)).info["exif"]))
            assert int(read(content)) == found[-1], bytes(tags)
        assert set(found) == set(range(1, 9))

    def test_exif_data_is_found_after_other_segments_only(self):
        plain, turned = as_file(photo(), "JPEG"), as_file(photo(), "JPEG", exif=exif(6))
        segment = turned[turned.index(b"\xff\xe1") :][: 2 + 2 + 32]
        other = b"\xff\xe2\x00\x06abcd"
        for content, expected in (
            (plain[:2] + other * 5 + segment + plain[2:], 6),
            (plain[:2] + b"\xff\xff" + segment + plain[2:], 6),  # padding
            (plain + segment, 1),  # after the image
            (plain[:2] + b"\xff\xe2\x00\x24" + segment[:34] + plain[2:], 1),  # in another segment
            (plain[:2], 1),
            (segment, 1),
        ):
            assert int(orientation.read_jpeg(tf.constant(content))) == expected

    def test_exif_data_after_a_pngs_pixels_is_ignored_as_in_training(self):
        content = as_file(photo(), "PNG", exif=exif(6))
        start = content.index(b"eXIf") - 4
        chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4])]
        end = content.index(b"IEND") - 4
        moved = content[:start] + content[start + len(chunk) : end] + chunk + content[end:]
        for each, value in ((content, 6), (moved, 1)):
            assert int(orientation.read_png(tf.constant(each))[0]) == value
            assert_decoded_as_in_training(each)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
    def test_transparent_images_get_a_white_background_as_in_training(self, mode):
        alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90)).astype("uint8"))
        image, options = photo(mode), {}
        if mode in ("RGBA", "LA"):
            image.putalpha(alpha)
        else:  # in a tRNS chunk: one color, or an alpha value for each color of the palette
            options["transparency"] = bytes(range(256)) if mode == "P" else image.getpixel((40, 30))
        served = assert_decoded_as_in_training(as_file(image, "png", **options))
        opaque = preprocessing.decode_square(tf.constant(as_file(photo("RGB"), "png")), 64).numpy()
        assert np.abs(np.int32(served) - opaque).max() > 1

    @pytest.mark.parametrize("largest", [255, 1000, 4095, 10_000, 65_535])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_16_bit_images_are_scaled_as_in_training(self, largest, channels, monkeypatch):
        monkeypatch.setattr(preprocessing, "_STRIP_PIXELS", 1000)  # 11 of 90 rows
        pixels = np.asarray(photo("RGBA")) / 255 * [largest, largest, largest, 65_535]
        pixels[:20, :, 3] = 9_999
        served = assert_decoded_as_in_training(tf.io.encode_png(pixels[..., :channels].astype("uint16")).numpy())
        assert served.max() > 100

    @pytest.mark.parametrize(
        "content, reason",
        [
            (b"hello", "not a JPEG, PNG or BMP"),
            (as_file(photo("P"), "gif"), "not a JPEG, PNG or BMP"),
            (as_file(photo("P"), "bmp"), "palette"),
            (flat_png(101, 100), "at most 10000 pixels"),
            (as_file(photo(size=(101, 100)), "jpeg"), "at most 10000 pixels"),
            (as_file(photo(size=(101, 100)), "bmp"), "at most 10000 pixels"),
            (top_down_bmp(101, 100), "at most 10000 pixels"),
        ],
    )
    def test_other_formats_and_larger_images_are_refused(self, content, reason):
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            preprocessing.decode_square(tf.constant(content), 64, max_pixels=10_000)


@pytest.mark.slow
class TestMemory:
    """In a process of its own: peak memory never falls."""

    SCRIPT = """
import resource, sys, tensorflow as tf
saved = tf.saved_model.load(sys.argv[1])
contents = [open(path, "rb").read() for path in sys.argv[2:]]
answer = lambda images: saved.signatures["serving_default"](images=tf.constant(images))["valid"].numpy().tolist()
answer([contents[0]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*answer(contents[1:]), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""

    def peak(self, export_dir, tmp_path, contents):
        paths = []
        for number, content in enumerate([flat_png(9, 9), *contents]):
            paths.append(tmp_path / str(number))
            paths[-1].write_bytes(content)
        command = [sys.executable, "-c", self.SCRIPT, export_dir / "1", *paths]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        *valid, megabytes = result.stdout.split()
        return valid, float(megabytes)

    def test_small_files_with_many_pixels_take_less_than_a_gigabyte(self, export_dir, tmp_path):
        progressive = as_file(Image.new("RGB", (7000, 7000)), "JPEG", progressive=True, subsampling=0)
        lines = [flat_png(3000, 1), flat_png(1, 3000), flat_png(49_000, 1000)]
        transparent = [flat_png(7000, 7000, 8, 6, 4), flat_png(7000, 7000, 16, 6, 8)]
        contents = [flat_png(7000, 7000), progressive, *lines, *transparent, progressive]
        valid, megabytes = self.peak(export_dir, tmp_path, contents)
        assert valid == ["True"] * len(contents)
        assert megabytes < 1000

    @pytest.mark.long
    def test_images_above_the_limit_take_no_memory(self, export_dir, tmp_path):
        contents = [flat_png(12_000, 12_000), as_file(Image.new("RGB", (12_000, 12_000)), "JPEG")]
        valid, megabytes = self.peak(export_dir, tmp_path, contents)
        assert valid == ["False", "False"]
        assert megabytes < 50
