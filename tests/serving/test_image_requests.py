"""Image files of formats that TensorFlow does not decode."""

import io
import os
import sys

import made_photos
import numpy as np
import pytest
from PIL import Image

from alexnet_tf.serving import image_requests, remote_model
from alexnet_tf.tfrecords import images


@pytest.fixture
def photo():
    return made_photos.photo(70, 90)


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
        frames = {"save_all": True, "append_images": [photo.rotate(90)]}
        photo.save(tmp_path / "photo", "WEBP", lossless=True, exif=made_photos.exif(6), **frames)
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


class Connection:
    """A server that finds one class in every image, and fails as the next of `failures` says, if not None."""

    def __init__(self, *failures):
        self.failures, self.sizes = list(failures), []

    def predict(self, encoded_images, timeout_s):
        self.sizes.append([len(image) for image in encoded_images])
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        return [remote_model.Prediction(image != b"no image", ("a",), (1.0,)) for image in encoded_images]


class TestPredictFiles:
    @pytest.fixture
    def files(self, tmp_path):
        for number in range(5):
            (tmp_path / str(number)).write_bytes(b"an image")
        (tmp_path / "5").write_bytes(b"no image")
        return image_requests.find_files([tmp_path])

    def test_goes_on_after_a_failed_request(self, files):
        connection = Connection(None, remote_model.RequestFailed("broken", False))
        rows = list(image_requests.predict_files(connection, files, 2, 30))
        assert [row.path for row in rows] == files
        errors = [row.error and row.error.split(" (")[0] for row in rows]
        assert errors == [None, None, "broken", "broken", None, "not an image that the server can decode"]
        assert [row.prediction is None for row in rows] == [error is not None for error in errors]

    def test_stops_at_a_server_that_is_down(self, files):
        connection = Connection(None, remote_model.RequestFailed("down", True, responded=False))
        rows = list(image_requests.predict_files(connection, files, 2, 0.001))
        assert [row.error is None for row in rows] == [True, True, False, False]

    def test_large_files_are_sent_in_several_requests(self, tmp_path, monkeypatch):
        monkeypatch.setattr(image_requests, "_MAX_REQUEST_BYTES", 250)
        for number, size in enumerate((100, 100, 100, 300, 10)):
            (tmp_path / str(number)).write_bytes(bytes(size))
        connection = Connection()
        list(image_requests.predict_files(connection, sorted(tmp_path.iterdir()), 16, 30))
        assert connection.sizes == [[100, 100], [100], [300], [10]]

    def test_files_that_can_not_be_images_are_not_read(self, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        os.mkfifo(folder / "pipe")  # reading it would block forever
        with (folder / "video").open("wb") as file:
            file.truncate(1 << 40)
        (folder / "dangling").symlink_to(tmp_path / "nowhere")
        (folder / "folder").symlink_to(tmp_path)
        connection = Connection()
        rows = list(image_requests.predict_files(connection, image_requests.find_files([folder]), 16, 30))
        assert [row.path.name for row in rows] == ["dangling", "folder", "pipe", "video"]
        assert "No such file" in rows[0].error
        assert rows[1].error == rows[2].error == "can't be read: not a regular file"
        assert rows[3].error.endswith("images must have at most 160,000,000 bytes. Received: 1,099,511,627,776 bytes")
        assert connection.sizes == []


def test_hidden_files_and_folders_are_skipped(tmp_path):
    for name in ("a/1.png", "a/.hidden.png", ".cache/2.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert image_requests.find_files([tmp_path]) == [tmp_path / "a" / "1.png", tmp_path / "b.png"]
