"""Image files of formats that TensorFlow does not decode."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet_tf.serving import image_requests
from alexnet_tf.tfrecords import images


@pytest.fixture
def photo():
    corners = np.random.default_rng(5).integers(0, 256, (4, 4, 3), "uint8")
    return Image.fromarray(corners).resize((90, 70), Image.Resampling.BICUBIC)


class TestReadFile:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
    def test_served_formats_are_unchanged(self, kind, photo, tmp_path):
        photo.save(tmp_path / "photo", kind)
        assert image_requests.read_file(tmp_path / "photo") == (tmp_path / "photo").read_bytes()

    @pytest.mark.parametrize("kind", ["WEBP", "GIF", "TIFF", "AVIF", "BMP with a palette"])
    def test_other_formats_become_png(self, kind, photo, tmp_path):
        saved = photo.convert("P") if kind.startswith("BMP") else photo
        saved.save(tmp_path / "photo", kind.split()[0])
        content = image_requests.read_file(tmp_path / "photo")
        assert content.startswith(images.PNG_MAGIC)
        expected = images.prepare_image((tmp_path / "photo").read_bytes(), 64)
        np.testing.assert_array_equal(images.prepare_image(content, 64), expected)

    def test_first_frame_and_orientation_of_a_webp(self, photo, tmp_path):
        exif = Image.Exif()
        exif[images.ORIENTATION_TAG] = 6
        photo.save(
            tmp_path / "photo", "WEBP", lossless=True, exif=exif, save_all=True, append_images=[photo.rotate(90)]
        )
        decoded = Image.open(io.BytesIO(image_requests.read_file(tmp_path / "photo")))
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(photo.transpose(Image.Transpose.ROTATE_270)))

    def test_heic_becomes_png(self, photo, tmp_path):
        pytest.importorskip("pillow_heif").from_pillow(photo).save(tmp_path / "photo.heic", quality=95)
        decoded = Image.open(io.BytesIO(image_requests.read_file(tmp_path / "photo.heic")))
        assert np.abs(np.asarray(decoded, int) - np.asarray(photo, int)).mean() < 6

    def test_heic_without_its_package_names_it(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
        with pytest.raises(OSError, match=r"pip install --editable '\.\[heic\]'"):
            image_requests.read_file(tmp_path / "photo.heic")

    def test_broken_and_unknown_files(self, photo, tmp_path):
        photo.save(tmp_path / "photo", "WEBP")
        (tmp_path / "photo").write_bytes((tmp_path / "photo").read_bytes()[:60])
        with pytest.raises(OSError, match="the image can't be decoded"):
            image_requests.read_file(tmp_path / "photo")
        for content in (b"", b"no image"):  # for the network's decoder to refuse
            (tmp_path / "photo").write_bytes(content)
            assert image_requests.read_file(tmp_path / "photo") == content

    def test_too_many_pixels(self, tmp_path, monkeypatch):
        monkeypatch.setattr("alexnet_tf.serving.formats.MAX_PIXELS", 99)
        Image.new("RGB", (10, 10)).save(tmp_path / "photo", "GIF")
        with pytest.raises(OSError, match="at most 99 pixels"):
            image_requests.read_file(tmp_path / "photo")


class TestFindAndBatch:
    def test_hidden_files_and_folders_are_skipped(self, tmp_path):
        for name in ("a/1.png", "a/.hidden.png", ".cache/2.png", "b.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert image_requests.find_files([tmp_path]) == [tmp_path / "a" / "1.png", tmp_path / "b.png"]

    def test_large_files_are_sent_in_several_requests(self, tmp_path, monkeypatch):
        monkeypatch.setattr(image_requests, "_MAX_REQUEST_BYTES", 250)
        for number, size in enumerate((100, 100, 100, 300, 10)):
            (tmp_path / str(number)).write_bytes(bytes(size))
        batches = image_requests.batch_files(sorted(tmp_path.iterdir()), 16)
        assert [[path.name for path, _ in batch] for batch in batches] == [["0", "1"], ["2"], ["3"], ["4"]]
