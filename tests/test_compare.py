"""alexnet-compare, with the published weights where they can be downloaded."""

import pathlib

import matplotlib
import numpy as np
import pytest
from made_photos import encoded, exif, photo
from PIL import Image
from programs import call

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


def test_distances_with_the_published_features_are_those_of_the_original(folders, published_features, tmp_path):
    weights, output = f"--weights={published_features}", tmp_path / "distances.txt"
    lines = [f"{name}: {distance:.3f}" for name, distance in sorted(PUBLISHED_DISTANCES.items())]
    printed = call("compare", weights, f"--output={output}", *folders)
    assert printed.splitlines() == [*lines, f"Written: {output}"]
    assert output.read_text().splitlines() == lines
    printed = call("compare", weights, *(folder / "noisy.png" for folder in folders))
    assert printed == f"Distance: {PUBLISHED_DISTANCES['noisy.png']:.3f}\n"


@pytest.mark.parametrize("index", [0, 1])
def test_images_are_not_overwritten(index, folders):
    paths = [folder / "gray.png" for folder in folders]
    with pytest.raises(ValueError, match="`output` must not overwrite a file that is read"):
        call("compare", f"--output={paths[index]}", "--overwrite", *paths)


def test_weights_are_found_by_their_name(published_features):
    assert len(LPIPS().get_weights()) == len(LPIPS(published_features).get_weights()) == 15


def test_hidden_files_and_files_without_a_counterpart_are_skipped(tmp_path, capsys):
    for name in ("a/x.png", "a/.hidden", "a/only.png", "b/x.png", "b/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    a, b = tmp_path / "a", tmp_path / "b"
    assert compare.find_pairs([str(a), str(b)]) == {"x.png": (a / "x.png", b / "x.png")}
    assert capsys.readouterr().out == f"Skipped: {a / 'only.png'} has no counterpart in {b}\n"


def test_photographs_are_turned_upright(tmp_path):
    image = photo(40, 60)
    (tmp_path / "turned.png").write_bytes(encoded(image, "PNG", exif=exif(6)))
    np.testing.assert_array_equal(compare._read(tmp_path / "turned.png"), np.rot90(image, -1))


@pytest.mark.parametrize(
    "second, message",
    [
        ("noisy.png", r"compares two image files or two folders\. Received: "),
        (".", "must hold files of the same names"),
        ("wide.png", r"must be of one size.*64 x 64 pixels.*65 x 64"),
        ("text.png", r"text\.png is not an image that can be read"),
    ],
)
def test_what_can_not_be_compared_is_named(second, message, folders, tmp_path, monkeypatch):
    monkeypatch.setattr("alexnet_tf.lpips.LPIPS", lambda _: None)
    for name in ("wide.png", "another.png"):
        Image.new("RGB", (65, 64)).save(tmp_path / name)
    (tmp_path / "text.png").write_bytes(b"no image")
    first = folders[0] / "noisy.png" if second in ("wide.png", "text.png") else folders[0]
    with pytest.raises(ValueError, match=message):
        call("compare", first, folders[1] / second if second == "noisy.png" else tmp_path / second)
