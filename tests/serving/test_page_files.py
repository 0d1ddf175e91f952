"""The files of a page: its sources, onnxruntime-web, its examples and the strongest images."""

import base64
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from alexnet_tf.model import build_alexnet
from alexnet_tf.networks import structure
from alexnet_tf.serving import browser_runtime, formats, parity, web_page
from alexnet_tf.tfrecords import schema

SIDE = 56


def test_invalid_runtime_is_refused(tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"no archive")
    for path in (tmp_path, tmp_path / "other.tgz", tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"`runtime` must be the npm package onnxruntime-web .* Received: "):
            browser_runtime.read_package(path)


def test_cdn_addresses_have_the_version_and_checksums(tmp_path):
    described = browser_runtime.write(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    for each in described:
        assert f"onnxruntime-web@{browser_runtime.VERSION}/dist/" in each["url"]
        assert each["integrity"].startswith("sha384-")


def test_checksums_are_those_of_the_copied_files(tmp_path):
    (tmp_path / "package" / "dist").mkdir(parents=True)
    for name in browser_runtime.FILES:
        (tmp_path / "package" / "dist" / name).write_text(name)
    described = browser_runtime.write(tmp_path, tmp_path / "package")
    digests = [hashlib.sha384(name.encode()).digest() for name in browser_runtime.FILES]
    assert [each["integrity"] for each in described] == [f"sha384-{base64.b64encode(d).decode()}" for d in digests]
    assert (tmp_path / described[0]["url"]).read_text() in browser_runtime.FILES


def test_typical_ranges_are_those_of_colors_and_edges():
    images = np.full((3, 4, 5, 3), [10, 20, 40], "uint8")
    images[:, 1:-1, 1:-1] = 90
    expected = {"color": [30 * 14 / 20] * 2, "border": [round(70 / 3, 1)] * 2}
    assert web_page._typical_ranges(images) == expected


@pytest.mark.slow
def test_strongest_images_equal_the_layers(page_dir, untrained, data_dir):
    described = json.loads((page_dir / "page.json").read_text())
    assert described["data"]["searched"] == 100 and len(described["examples"]) == 8
    model, _ = untrained
    images, labels = parity.read_crops(data_dir, schema.load_description(data_dir), "train", model, 100)
    tables = np.frombuffer((page_dir / "strongest.bin").read_bytes(), "<u2")
    for layer in described["layers"]:
        network = structure.features(model, [layer["output"]])
        values = network.predict(images, verbose=0)[layer["output"]]
        peaks = values.max(axis=(1, 2)) if values.ndim == 4 else values
        order = np.argsort(-peaks, axis=0, kind="stable")[:5].T
        table = tables[layer["strongest"]["offset"] :][: 10 * layer["maps"]].reshape(layer["maps"], 5, 2)
        np.testing.assert_array_equal(table[..., 1], labels[order])
        cells = order if layer["side"] == 1 else np.arange(order.size).reshape(order.shape)
        np.testing.assert_array_equal(table[..., 0], cells)
    sprite = np.asarray(Image.open(page_dir / "strongest" / "images.jpg").convert("RGB"))
    thumbnail = np.asarray(Image.fromarray(images[41]).resize((40, 40), Image.Resampling.BILINEAR))
    shown = sprite[40:80, 40:80]  # the second in the second row of 40
    assert np.abs(shown.astype(int) - thumbnail).mean() < 6


@pytest.mark.parametrize("count, width, height", [(3, 3, 1), (40, 40, 1), (41, 40, 2)])
def test_cells_of_a_sprite_are_row_by_row(count, width, height, tmp_path):
    patches = [np.full((8, 8, 3), 5 * index, "uint8") for index in range(count)]
    web_page._write_sprite(tmp_path / "sprite.jpg", patches, 4)
    with Image.open(tmp_path / "sprite.jpg") as sprite:
        assert sprite.size == (4 * width, 4 * height)
        for index in range(count):
            cell = sprite.getpixel((4 * (index % 40) + 2, 4 * (index // 40) + 2))
            assert cell == pytest.approx([5 * index] * 3, abs=20)


@pytest.mark.slow
def test_checksums_match_the_package(runtime, tmp_path):
    described = browser_runtime.write(tmp_path, runtime)
    assert [each["integrity"] for each in described] == list(browser_runtime.FILES.values())
    assert (tmp_path / described[0]["url"]).stat().st_size > 10_000


def test_folder_comes_before_the_data_set(untrained, tiny_data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(
        web_page.conversion, "write_with_activations", lambda folder, *_: (folder / "model.onnx").touch()
    )
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("licenses")
    Image.new("RGB", (80, 60), "red").save(tmp_path / "photos" / "cat.jpg")
    config = formats.ExportConfig(format="web", data_dir=tiny_data_dir, examples=str(tmp_path / "photos"))
    images = np.zeros((2, SIDE, SIDE, 3), "uint8"), np.zeros(2, int)
    (tmp_path / "page").mkdir()
    web_page.write(tmp_path / "page", *untrained, config, images)
    examples = json.loads((tmp_path / "page" / "page.json").read_text())["examples"]
    assert [each["title"] for each in examples] == ["cat", "even", "odd"]
    with Image.open(tmp_path / "page" / examples[0]["url"]) as cat:
        assert cat.size == (64, 64) and cat.getpixel((32, 32))[0] > 250


def test_files_of_any_name_are_prepared_as_for_training(untrained, tmp_path):
    (tmp_path / "page" / "examples").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    for name, color in (("1?#.jpg", "red"), ("1?#.png", "blue")):
        wide = Image.new("RGB", (128, 64), "white")
        wide.paste(color, (0, 0, 32, 64))
        wide.save(tmp_path / "photos" / name)
    description = untrained[1]
    warped = dataclasses.replace(description, settings=description.settings | {"resize": "warp"})
    examples = web_page._write_example_files(tmp_path / "page", tmp_path / "photos", warped)
    assert [each["url"] for each in examples] == ["examples/file-1.png", "examples/file-2.png"]
    for each, channel in zip(examples, (0, 2), strict=True):
        with Image.open(tmp_path / "page" / each["url"]) as prepared:
            pixels = np.asarray(prepared)[32]
        assert pixels[:14, channel].min() > 240 > 15 > pixels[:14, 1].max() and pixels[18:].min() > 240


@pytest.mark.parametrize("variant, alpha", [("caffe", 1e-4 / 5), ("testing", 1e-4)])
def test_normalization_is_described_by_the_alpha_of_its_formula(variant, alpha):
    network = build_alexnet(variant, include_top=False, initializer="zeros")
    relu, norm = (network.get_layer(name) for name in ("relu1", "norm1"))
    described = web_page._describe_step(relu, norm)
    assert (described["kind"], described["n"], described["beta"]) == ("normalization", 5, 0.75)
    assert described["alpha"] == pytest.approx(alpha)
    assert described["neighborhood"] == {"caffe": 96, "testing": 4}[variant]
