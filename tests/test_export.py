"""alexnet-export."""

import functools
import http.server
import json
import pathlib
import socket
import threading
import types
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from programs import call

from alexnet_tf import export
from alexnet_tf.model import build_alexnet, count_parameters, load_model
from alexnet_tf.serving import classifier, exporter, preprocessing
from alexnet_tf.tfrecords import crops, reader


@pytest.mark.slow  # trains a model first
def test_version_follows_the_flags_and_has_labels_card_and_parity(run_dir, data_dir, tmp_path):
    folder = tmp_path / "alexnet" / "3"
    flags = [f"--export_dir={folder.parent}", f"--data_dir={data_dir}", "--version=3", f"--max_pixels={28 * 28}"]
    assert f"Exported: {folder}" in call("export", f"--model={run_dir}", *flags)
    saved = tf.saved_model.load(str(folder))
    images = [tf.io.encode_png(tf.zeros((side, side, 3), tf.uint8)) for side in (28, 29)]
    assert saved.signatures["serving_default"](images=tf.stack(images))["valid"].numpy().tolist() == [True, False]
    model = load_model(run_dir)
    description = model.description
    assets = folder / "assets"
    assert (assets / "labels.txt").read_text().splitlines() == list(description.class_names)
    card = json.loads((assets / "model_card.json").read_text())
    assert (card["name"], card["version"]) == ("alexnet", 3)
    assert (card["format"], card["precision"]) == ("savedmodel", "float32")
    assert card["network"]["variant"] == "testing"
    assert card["network"]["parameters"] == count_parameters(model)
    conv1 = [line for line in card["network"]["differs_from_paper"] if line["layer"] == "conv1"]
    assert [(line["of"], line["kernel"]) for line in conv1] == [("paper", "11 x 11"), ("testing", "7 x 7")]
    assert card["data"]["images"] == {"train": 3000, "validation": 1000}
    assert card["recipe"]["settings"]["learning_rate"] == 0.1
    assert card["recipe"]["paper"]["learning_rate"] == "0.01"
    assert "momentum" not in card["recipe"]["paper"]  # equal to the paper's
    training = json.loads((run_dir / "training.json").read_text())
    assert card["metrics"]["training"]["val_top1_error"] == training["val_top1_error"]
    page = (assets / "model_card.md").read_text()
    assert f"{100 * training['val_top1_error']:.2f} %" in page
    assert "| learning_rate | 0.1 | 0.01 |" in page
    report = json.loads((assets / "parity.json").read_text())
    assert report["images"] == 1000
    assert report["top1_agreement"] == 1
    assert report["largest_difference"] < 1e-5
    assert report["top1_error"]["candidate"] == pytest.approx(training["val_top1_error"], abs=1e-6)


class TestProgram:
    """alexnet-export of an untrained network, in this process."""

    @pytest.fixture
    def export_with(self, untrained_dir, data_dir, tmp_path):
        """A function that runs the program with additional flags; returns its stdout."""
        arguments = [f"--model={untrained_dir}", f"--export_dir={tmp_path / 'served'}", f"--data_dir={data_dir}"]
        return functools.partial(call, "export", *arguments, "--num_images=40")

    def test_int8_is_calibrated_on_training_images(self, export_with, data_dir, tmp_path, monkeypatch):
        pytest.importorskip("tf2onnx")
        calls = []

        def write(folder, model, model_format, precision, images):
            calls.append((model_format, precision, images))
            raise InterruptedError

        monkeypatch.setattr(exporter.conversion, "write", write)
        with pytest.raises(InterruptedError):
            export_with("--format=onnx", "--precision=int8")
        ((model_format, precision, images),) = calls
        assert (model_format, precision) == ("onnx", "int8")
        (expected, _), *_ = reader.make_evaluation_dataset(data_dir, 40, 56, split="train").take(1)
        np.testing.assert_array_equal(images, expected)
        assert not (tmp_path / "served" / "1").exists()

    def test_wrong_flags_are_errors_before_the_export(self, export_with, tmp_path):
        with pytest.raises(ValueError, match=r"`serve` is for --format=web\. Received: --format=savedmodel"):
            export_with("--serve=0")
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
            export_with("--format=web", f"--serve={taken.getsockname()[1]}")
        with pytest.raises(ValueError, match="`runtime` must be the npm package"):
            export_with("--format=web", f"--runtime={tmp_path / 'none.tgz'}")
        assert not (tmp_path / "served").exists()

    def test_page_is_served_on_localhost_only(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "index.html").write_text("the page")
        answers = []

        def serve_once(server):
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as response:
                answers.append((server.server_address, response.read()))
            thread.join()

        monkeypatch.setattr(http.server.ThreadingHTTPServer, "serve_forever", serve_once)
        export._serve(tmp_path, 0)
        (((host, port), content),) = answers
        assert (host, content) == ("127.0.0.1", b"the page")
        assert f"Open http://127.0.0.1:{port}/" in capsys.readouterr().out

    @pytest.mark.parametrize("name, run", [("caffe", None), ("run", "run"), ("run/model.keras", "run")])
    def test_published_weights_have_no_run_folder(self, name, run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        pathlib.Path("run").mkdir()
        pathlib.Path("run/model.keras").touch()
        received = []
        monkeypatch.setattr(
            "alexnet_tf.model.load_model", lambda path: types.SimpleNamespace(name="alexnet", description=None)
        )
        monkeypatch.setattr(exporter, "export_model", lambda *_, run: received.append(run) or tmp_path)
        monkeypatch.setattr(export, "_serve", lambda folder, port: received.append((folder, port)))
        call("export", f"--model={name}", f"--export_dir={tmp_path}")
        assert received == [run and pathlib.Path(run)]
        call("export", f"--model={name}", f"--export_dir={tmp_path}", "--format=web", "--serve=0")
        assert received[2:] == [(tmp_path, 0)]  # 0 is any free port


class TestNetworkWithoutTop:
    """Published convolutions have no classes: their outputs are features."""

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("without_top") / "model.keras"
        build_alexnet("testing", include_top=False, initializer="he_normal", input_scale=0.01).save(path)
        return path

    @pytest.mark.slow
    def test_savedmodel_has_signatures_for_features_only(self, model, encoded, tmp_path):
        call("export", f"--model={model}", f"--export_dir={tmp_path}")
        saved = tf.saved_model.load(str(tmp_path / "1"))
        assert sorted(saved.signatures) == ["features", "predict", "predict_uint8", "serving_default"]
        pixels = np.stack([crops.center_crop(preprocessing.decode_square(e, 256)[None], 56)[0] for e in encoded])
        expected = load_model(model).predict(pixels, verbose=0).reshape(len(encoded), -1)
        for name in ("features", "serving_default"):
            found = saved.signatures[name](images=tf.constant(encoded))
            assert found["valid"].numpy().all()
            np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-4)
        found = saved.signatures["predict"](pixels=tf.constant(pixels, tf.float32))["features"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assets = tmp_path / "1" / "assets"
        assert sorted(path.name for path in assets.iterdir()) == ["model_card.json", "model_card.md"]
        assert "classes" not in (assets / "model_card.md").read_text(encoding="utf-8")
        with pytest.raises(ValueError, match=r"must have a classifier\. Received: .*, an export of features"):
            classifier.open_classifier(tmp_path / "1")

    def test_onnx(self, model, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        call("export", f"--model={model}", f"--export_dir={tmp_path}", "--format=onnx")
        pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3)).astype("float32")
        found = onnxruntime.InferenceSession(tmp_path / "1" / "model.onnx").run(["features"], {"pixels": pixels})[0]
        np.testing.assert_allclose(found, load_model(model).predict(pixels, verbose=0), rtol=1e-3, atol=1e-3)

    def test_page_is_refused(self, model, tmp_path):
        with pytest.raises(ValueError, match="A web page needs a classifier"):
            call("export", f"--model={model}", f"--export_dir={tmp_path}", "--format=web")
