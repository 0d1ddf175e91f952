"""Classification by saved and exported networks."""

import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from made_photos import encoded as as_file
from made_photos import exif
from PIL import Image
from programs import ENVIRONMENT, image_files

from alexnet_tf import model
from alexnet_tf.networks import structure
from alexnet_tf.serving import classifier, formats, preprocessing


class TestOpenClassifier:
    def test_saved_and_exported_network_predict_the_same(self, untrained_dir, export_dir, encoded):
        classify_saved = classifier.open_classifier(untrained_dir)
        classify_exported = classifier.open_classifier(export_dir / "1")
        for image in encoded:
            names, probabilities = classify_saved(image)
            exported_names, exported_probabilities = classify_exported(image)
            assert names == exported_names and len(names) == 5
            np.testing.assert_allclose(probabilities, exported_probabilities, rtol=1e-5)
        for classify in (classify_saved, classify_exported):
            with pytest.raises(tf.errors.InvalidArgumentError):
                classify(b"no image")

    def test_damaged_saved_model_is_refused(self, export_dir, tmp_path):
        shutil.copytree(export_dir / "1", tmp_path / "1")
        path = tmp_path / "1" / "saved_model.pb"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match="not a complete SavedModel"):
            classifier.open_classifier(tmp_path / "1")

    @pytest.mark.parametrize("content", ["[]", "[" * 100_000, '{"data": {}}'], ids=["list", "deep", "incomplete"])
    def test_damaged_model_card_is_refused(self, content, tmp_path):
        (tmp_path / "assets").mkdir()
        (tmp_path / "assets" / "labels.txt").write_text("a\n")
        (tmp_path / "assets" / "model_card.json").write_text(content)
        with pytest.raises(ValueError, match="is not a model card from alexnet-export"):
            classifier.open_classifier(tmp_path)

    @pytest.mark.parametrize("resize, upright", [("crop", True), ("warp", False)])
    def test_pixels_are_prepared_as_the_card_or_the_description_says(self, resize, upright, tmp_path, monkeypatch):
        card = {"data": {"image_px": 64, "exif_orientation": upright, "resize": resize}, "network": {"image_px": 56}}
        (tmp_path / "assets").mkdir()
        (tmp_path / "assets" / "labels.txt").write_text("a\nb\n")
        (tmp_path / "assets" / "model_card.json").write_text(json.dumps(card))
        received = []

        def predict(pixels):
            received.append(pixels[0])
            return np.float32([[0.25, 0.75]])

        monkeypatch.setattr(formats, "open_predictor", lambda folder: predict)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype("uint8")
        encoded = as_file(Image.fromarray(pixels), "PNG", exif=exif(6))
        assert classifier.open_classifier(tmp_path)(encoded)[0] == ["b", "a"]
        expected = preprocessing.decode_square(tf.constant(encoded), 64, upright, resize)[4:60, 4:60]
        np.testing.assert_array_equal(received[0], expected)
        settings = {"image_px": 64, "exif_orientation": upright, "resize": resize, "class_names": ("a", "b")}
        network = types.SimpleNamespace(
            description=types.SimpleNamespace(**settings), input_shape=(None, 56, 56, 3), predict_on_batch=predict
        )
        monkeypatch.setattr(model, "load_model", lambda path: network)
        monkeypatch.setattr(structure, "check_classifier", lambda network: None)
        (tmp_path / "model.keras").touch()
        assert classifier.open_classifier(tmp_path / "model.keras")(encoded)[0] == ["b", "a"]
        np.testing.assert_array_equal(received[1], expected)

    @pytest.mark.slow
    def test_exported_network_is_opened_without_keras(self, export_dir, tmp_path):
        script = (
            "import sys; from alexnet_tf.serving import classifier; classify = classifier.open_classifier(sys.argv[1]);"
            "print(*classify(open(sys.argv[2], 'rb').read())[0]); assert not {'keras', 'matplotlib'} & {*sys.modules};"
            "import tensorflow as tf; assert tf.keras.Model"  # can still be imported
        )
        (path,) = image_files(tmp_path, 1)
        subprocess.run([sys.executable, "-c", script, export_dir / "1", path], env=ENVIRONMENT, check=True)


def test_network_without_its_top_is_refused(tmp_path):
    model.build_alexnet("testing", include_top=False).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"must have a classifier\. Received: alexnet_testing"):
        classifier.open_classifier(tmp_path)
