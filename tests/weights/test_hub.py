"""Folders that one can upload as they are, and models by hf:// addresses, with a made huggingface_hub."""

import json
import pathlib
import sys
import types

import keras
import numpy as np
import pytest
import yaml
from programs import call

import alexnet_tf
from alexnet_tf.model import build_alexnet, load_model, weights_checksum
from alexnet_tf.serving import model_card
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import hub


@pytest.fixture
def run_folder(tmp_path):
    """A run's folder with a small network, its settings and its errors."""
    folder = tmp_path / "run"
    model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.0125)
    folder.mkdir()
    settings = {"learning_rate": 0.1, "init_from": "hf://someone/alexnet"}
    (folder / "config.json").write_text(json.dumps(settings))
    model.save(folder / "model.keras")
    errors = {"top1_error": 0.25, "top5_error": 0.125}
    view = errors | {"calibration": {"expected_calibration_error": 0.03}}
    evaluation = {"split": "validation", "images": 8, "chance": errors, "center_crop": view, "ten_views": view}
    evaluation["models"] = [{"name": "run", "weights": weights_checksum(model)}]
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    settings = {"source": 'folder:"my": photos', "exif_orientation": True, "resize": "warp"}
    schema.DatasetDescription(("a", "b", "c"), 64, False, "png", {}, settings).save(folder)
    return folder


@pytest.fixture
def converted(run_folder):
    """A function that runs alexnet-convert on that run, and returns the new folder."""

    def run(*flags):
        output_dir = run_folder.with_name("alexnet_photos")
        call("convert", f"--input={run_folder}", "--license=MIT", f"--output_dir={output_dir}", *flags)
        return output_dir

    return run


class TestFolder:
    def test_unzipped_run_opens_as_before_here_and_in_keras(self, converted, run_folder):
        folder = converted("--nozipped")
        assert not (folder / "model.keras").exists()
        model, original = load_model(folder), load_model(run_folder)
        assert model.description == original.description and model.description.resize == "warp"
        pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3)).astype("uint8")
        # The input's scale is folded into conv1.
        np.testing.assert_allclose(model.predict(pixels, verbose=0), original.predict(pixels, verbose=0), atol=1e-6)
        same = keras.saving.load_model(folder)  # as from hf://
        np.testing.assert_array_equal(same.predict(pixels, verbose=0), model.predict(pixels, verbose=0))

    def test_card_begins_with_what_the_hub_reads(self, converted):
        page = (converted() / "README.md").read_text()
        _, header, body = page.split("---\n", 2)
        card = yaml.safe_load(header)
        assert card["library_name"] == "keras" and card["pipeline_tag"] == "image-classification"
        assert card["license"] == "mit" and card["base_model"] == "someone/alexnet" and "alexnet" in card["tags"]
        (result,) = card["model-index"][0]["results"]
        assert card["model-index"][0]["name"] == "alexnet_photos"
        assert result["dataset"]["name"] == 'folder:"my": photos'
        assert [metric["value"] for metric in result["metrics"]] == [0.75, 0.875] * 2
        assert body.startswith("# AlexNet for 3 classes of ")
        assert 'alexnet_tf.load_model("hf://USER/alexnet_photos")' in body

    def test_license_that_the_hub_does_not_know_is_named(self, untrained):
        card = model_card.collect(*untrained, None, "served", 1) | {"format": "keras", "precision": "float32"}
        header = yaml.safe_load(model_card.as_hub_page(card, "unrestricted").split("---\n")[1])
        assert header["license"] == "other" and header["license_name"] == "unrestricted"
        assert "model-index" not in header and "base_model" not in header
        assert "license" not in yaml.safe_load(model_card.as_hub_page(card).split("---\n")[1])


class TestAddresses:
    def test_folder_of_the_hub_is_downloaded_and_opened(self, run_folder, monkeypatch):
        asked = []
        made = types.ModuleType("huggingface_hub")
        made.snapshot_download = lambda name, **_: asked.append(name) or str(run_folder)
        monkeypatch.setitem(sys.modules, "huggingface_hub", made)
        model = alexnet_tf.load_model("hf://someone/alexnet")
        assert asked == ["someone/alexnet"] and model.description.class_names == ("a", "b", "c")
        assert model.name == "alexnet_testing"
        assert hub.local_folder(pathlib.Path("hf://someone/alexnet")) == run_folder
        assert hub.local_folder("runs/hf") is None

    def test_missing_package_and_a_failed_download_are_said(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(
            ValueError, match=r"huggingface_hub is needed for hf://a/b: pip install --editable '\.\[hub\]'"
        ):
            alexnet_tf.load_model("hf://a/b")
        made = types.ModuleType("huggingface_hub")

        def fail(*_, **__):
            raise ConnectionError("no route to host.\nMore lines.")

        made.snapshot_download = fail
        monkeypatch.setitem(sys.modules, "huggingface_hub", made)
        with pytest.raises(
            ValueError, match=r"^hf://a/b can't be downloaded: no route to host\. If you have its files"
        ):
            alexnet_tf.load_model("hf://a/b")
