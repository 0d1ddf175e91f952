"""alexnet-compare, with the published weights where they can be downloaded."""

import pathlib
import types

import matplotlib
import numpy as np
import pytest
from absl import flags as absl_flags
from PIL import Image

from alexnet_tf import LPIPS, compare

# Measured with the PyTorch package lpips 0.1.4, whose convolutions were given the weights of torchvision_features.
PUBLISHED_DISTANCES = {"blurred.png": 0.4078436, "noisy.png": 0.0568150, "gray.png": 0.1890677}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders: Grace Hopper's face, 64 x 64 pixels, three times; and blurred, noisy and gray."""
    photograph = Image.open(pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    face = photograph.crop((160, 60, 352, 252)).resize((64, 64), Image.Resampling.BOX)
    noise = np.random.default_rng(0).normal(0, 20, (64, 64, 3))
    images = {
        "blurred.png": face.resize((16, 16), Image.Resampling.BOX).resize((64, 64), Image.Resampling.NEAREST),
        "noisy.png": Image.fromarray(np.clip(np.asarray(face) + noise, 0, 255).astype("uint8")),
        "gray.png": face.convert("L").convert("RGB"),
    }
    originals, changed = tmp_path_factory.mktemp("originals"), tmp_path_factory.mktemp("changed")
    for name, image in images.items():
        face.save(originals / name)
        image.save(changed / name)
    return originals, changed


def run(monkeypatch, *arguments, weights=None, output=None, overwrite=False):
    values = {"weights": weights, "output": output and str(output), "overwrite": overwrite}
    monkeypatch.setattr(absl_flags, "FLAGS", types.SimpleNamespace(**values))
    compare.main([str(each) for each in arguments])


def test_distances_with_the_published_features_are_those_of_the_original(
    folders, published_features, tmp_path, monkeypatch, capsys
):
    run(monkeypatch, *folders, weights=published_features, output=tmp_path / "distances.txt")
    lines = [f"{name}: {distance:.3f}" for name, distance in sorted(PUBLISHED_DISTANCES.items())]
    assert capsys.readouterr().out.splitlines() == [*lines, f"Written: {tmp_path / 'distances.txt'}"]
    assert (tmp_path / "distances.txt").read_text().splitlines() == lines

    run(monkeypatch, *(folder / "noisy.png" for folder in folders), weights=published_features)
    assert capsys.readouterr().out == f"Distance: {PUBLISHED_DISTANCES['noisy.png']:.3f}\n"


def test_weights_are_found_by_their_name(published_features):
    assert len(LPIPS().get_weights()) == len(LPIPS(published_features).get_weights()) == 15


def test_hidden_files_and_files_without_a_counterpart_are_skipped(tmp_path, capsys):
    for name in ("a/x.png", "a/.hidden", "a/only.png", "b/x.png", "b/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    a, b = tmp_path / "a", tmp_path / "b"
    assert compare.find_pairs([str(a), str(b)]) == {"x.png": (a / "x.png", b / "x.png")}
    assert capsys.readouterr().out == f"Skipped: {a / 'only.png'} has no counterpart in {b}\n"


class TestBadInput:
    @pytest.fixture(autouse=True)
    def no_weights(self, monkeypatch):
        monkeypatch.setattr("alexnet_tf.lpips.LPIPS", lambda _: None)

    def test_a_file_and_a_folder_are_refused(self, folders, monkeypatch):
        with pytest.raises(ValueError, match=r"compares two image files or two folders. Received: "):
            run(monkeypatch, folders[0], folders[1] / "noisy.png")

    def test_images_of_different_sizes_are_named_with_their_sizes(self, folders, tmp_path, monkeypatch):
        Image.new("RGB", (65, 64)).save(tmp_path / "wide.png")
        with pytest.raises(ValueError, match=r"must be of one size.*64 x 64 pixels.*65 x 64"):
            run(monkeypatch, folders[0] / "noisy.png", tmp_path / "wide.png")

    def test_file_that_is_no_image_is_named(self, folders, tmp_path, monkeypatch):
        (tmp_path / "noisy.png").write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"noisy.png is not an image that can be read"):
            run(monkeypatch, folders[0] / "noisy.png", tmp_path / "noisy.png")

    def test_folders_without_common_names_are_refused(self, folders, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="must hold files of the same names"):
            run(monkeypatch, folders[0], tmp_path)
