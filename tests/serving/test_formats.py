"""ONNX, LiteRT, OpenVINO and bfloat16 exports predict the same as the trained model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import image_files, run, run_well

from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.serving import exporter, formats, parity
from alexnet_tf.tfrecords import reader

FILES = {"onnx": "model.onnx", "litert": "model.tflite", "openvino": "model.bin"}
# Agreement and difference of probabilities on 200 images. Measured: 0.995 and 0.0002 with float16; with int8 0.90 to
# 0.98 and 0.02 (OpenVINO: 0.26).
WORST = {"float32": (1.0, 1e-5), "float16": (0.98, 0.005), "int8": (0.85, 0.35)}


class TestConversions:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "model_format", ["onnx", *(pytest.param(name, marks=pytest.mark.long) for name in ("litert", "openvino"))]
    )
    def test_every_precision_predicts_like_the_trained_model(self, model_format, run_dir, data_dir, tmp_path):
        for package in formats.PACKAGES[model_format]:
            pytest.importorskip(package)
        model = load_model(run_dir)
        description = model.description
        ((images, _),) = reader.make_evaluation_dataset(data_dir, 200, 56, description=description).take(1)
        images = np.float32(images)
        sizes, probabilities = {}, {}
        for precision, (agreement, difference) in WORST.items():
            config = formats.ExportConfig(format=model_format, precision=precision, data_dir=data_dir, num_images=200)
            folder = exporter.export_model(model, description, tmp_path / precision, config)
            report = json.loads((folder / exporter.ASSETS / "parity.json").read_text())
            assert report["images"] == 200
            assert report["top1_agreement"] >= agreement
            assert report["largest_difference"] <= difference
            assert {batch for batch in report["latency_ms"]} == {"1", "32"}
            page = (folder / exporter.ASSETS / "parity.md").read_text()
            assert f"| {model_format}, {precision} | {100 * report['top1_error']['candidate']:.2f} |" in page
            sizes[precision] = (folder / FILES[model_format]).stat().st_size
            # The file accepts any number of images, and the report is correct.
            probabilities[precision] = formats.open_predictor(folder)(images)
            assert probabilities[precision].shape == (200, 10)
            np.testing.assert_allclose(probabilities[precision].sum(axis=1), 1, atol=0.02)
            agrees = probabilities[precision].argmax(axis=1) == probabilities["float32"].argmax(axis=1)
            assert agrees.mean() == pytest.approx(report["top1_agreement"], abs=0.011)
        assert not np.array_equal(probabilities["float32"], probabilities["float16"])
        assert not np.array_equal(probabilities["float32"], probabilities["int8"])
        assert sizes["float16"] < sizes["float32"]
        assert [path.name for path in (tmp_path / "int8").rglob("float32*")] == []

    @pytest.mark.slow
    @pytest.mark.long
    def test_alexnet_predict_opens_other_formats(self, run_dir, data_dir, tmp_path):
        arguments = [f"--model={run_dir}", f"--export_dir={tmp_path / 'served'}", "--num_images=50"]
        output = run_well("export", *arguments, "--format=openvino", f"--data_dir={data_dir}")
        assert "| openvino, float32 |" in output
        (path,) = image_files(tmp_path, 1)
        converted = run_well("predict", f"--model={tmp_path / 'served' / '1'}", path)
        assert converted == run_well("predict", f"--model={run_dir}", path)
        (tmp_path / "none.png").write_bytes(b"no image")
        result = run("predict", f"--model={tmp_path / 'served' / '1'}", tmp_path / "none.png")
        assert "none.png: not an image that can be read" in result.stderr


@pytest.mark.long
class TestBfloat16:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, run_dir, data_dir, tmp_path_factory):
        """SavedModels in bfloat16 (1) and float32 (2) of a trained network that computes in bfloat16."""
        model = load_model(run_dir)
        description = model.description
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            mixed = build_alexnet("testing", 10, input_scale=model.get_layer("mean_image").scale)
        finally:
            keras.config.set_dtype_policy("float32")
        mixed.set_weights(model.get_weights())
        base = tmp_path_factory.mktemp("served")
        for precision in ("bfloat16", "float32"):
            config = formats.ExportConfig(precision=precision, data_dir=data_dir, num_images=200)
            exporter.export_model(mixed, description, base, config)
        return base

    @pytest.mark.slow
    def test_saved_model_has_half_the_size_and_the_same_predictions(self, folder, run_dir):
        sizes = [(folder / version / "variables/variables.data-00000-of-00001").stat().st_size for version in "12"]
        parameters = sum(np.prod(weight.shape) for weight in load_model(run_dir).trainable_weights)
        assert sizes[1] - sizes[0] == pytest.approx(2 * parameters, rel=0.02)  # the mean image stays in float32
        report = json.loads((folder / "1" / exporter.ASSETS / "parity.json").read_text())
        assert report["images"] == 200
        assert report["top1_agreement"] >= 0.97
        assert 0 < report["largest_difference"] < 0.03
        assert "| savedmodel, bfloat16 |" in (folder / "1" / exporter.ASSETS / "parity.md").read_text()

    @pytest.mark.slow
    def test_card_says_where_it_is_fast(self, folder):
        cards = [(folder / version / exporter.ASSETS / "model_card.md").read_text() for version in "12"]
        assert "Fast on processors with AVX512_BF16 or AMX" in cards[0] and "AMX" not in cards[1]

    @pytest.mark.slow
    def test_network_trained_in_bfloat16_is_exported_in_float32(self, folder):
        def dtypes(version):
            saved = tf.saved_model.load(str(folder / version))
            graph = saved.signatures["predict"].graph.as_graph_def()
            nodes = [node for function in graph.library.function for node in function.node_def]
            return {tf.as_dtype(node.attr["T"].type).name for node in (*nodes, *graph.node) if node.op == "Conv2D"}

        assert dtypes("1") == {"bfloat16"} and dtypes("2") == {"float32"}


class TestErrors:
    @pytest.mark.parametrize("precision", ["float16", "int8"])
    def test_saved_model_in_another_precision(self, precision):
        with pytest.raises(ValueError, match=f"savedmodel must be one of float32, bfloat16. Received: {precision}"):
            formats.ExportConfig(precision=precision)

    def test_int8_without_calibration_images(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
        with pytest.raises(ValueError, match="`precision` int8 needs `data_dir`"):
            formats.ExportConfig(format="onnx", precision="int8")

    def test_missing_package(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"needs openvino, nncf: pip install --editable '\.\[openvino\]'"):
            formats.ExportConfig(format="openvino")

    def test_data_set_with_other_classes(self, untrained, tiny_data_dir, tmp_path):
        with pytest.raises(ValueError, match="`data_dir` must have the model's classes"):
            exporter.export_model(*untrained, tmp_path / "served", formats.ExportConfig(data_dir=tiny_data_dir))
        assert not (tmp_path / "served").exists()

    def test_folder_without_a_model(self, tmp_path):
        with pytest.raises(ValueError, match="must have an exported model"):
            formats.open_predictor(tmp_path)


class TestMeasure:
    def test_report_has_agreement_difference_and_errors(self):
        images = np.zeros((4, 2, 2, 3), "uint8")
        images[:, 0, 0, 0] = range(4)
        labels = np.array([0, 1, 1, 0])

        def predictor(rows):
            return lambda pixels: np.array(rows, "float32")[np.int32(pixels[:, 0, 0, 0])]

        reference = predictor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
        candidate = predictor([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.6, 0.4]])
        report = parity.measure(candidate, reference, images, labels, batch_size=3)
        assert report["images"] == 4
        assert report["top1_agreement"] == 0.75
        assert report["largest_difference"] == pytest.approx(0.25)
        assert report["top1_error"] == {"candidate": 0.25, "reference": 0.0}
        assert all(times["candidate"] > 0 and times["reference"] > 0 for times in report["latency_ms"].values())
