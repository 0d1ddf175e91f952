"""ONNX, LiteRT, OpenVINO and bfloat16 exports predict the same as the trained model."""

import functools
import itertools
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from programs import image_files, run, run_well

from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.serving import exporter, formats, parity, signatures
from alexnet_tf.tfrecords import reader

CARD = "assets/model_card.md"
FILES = {"onnx": "model.onnx", "litert": "model.tflite", "openvino": "model.bin"}
# Agreement and difference of probabilities on 200 images. Measured: 0.995 and 0.0002 with float16; with int8 0.90 to
# 0.98 and 0.02 (OpenVINO: 0.44).
WORST = {"float32": (1.0, 1e-5), "float16": (0.98, 0.005), "int8": (0.85, 0.5)}


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_signatures_compute_in_the_precision_asked_for(precision, untrained, tmp_path, monkeypatch):
    received = []

    def make_signatures(model, *_):
        received.append(model)
        raise InterruptedError

    monkeypatch.setattr(signatures, "make_signatures", make_signatures)
    with pytest.raises(InterruptedError):
        exporter.export_model(*untrained, tmp_path, formats.ExportConfig(precision=precision))
    assert {received[0].get_layer(name).compute_dtype for name in ("conv2", "fc7")} == {precision}


@pytest.mark.slow
@pytest.mark.long
def test_bfloat16_and_float32_of_a_network_that_computes_in_bfloat16(run_dir, data_dir, tmp_path):
    model = load_model(run_dir)
    mixed = build_alexnet("testing", 10, input_scale=model.get_layer("mean_image").scale, dtype="mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    sizes, is_fast_noted = [], []
    for version, precision in (("1", "bfloat16"), ("2", "float32")):
        config = formats.ExportConfig(precision=precision, data_dir=data_dir, num_images=200)
        folder = exporter.export_model(mixed, model.description, tmp_path, config)
        assert folder == tmp_path / version
        sizes.append((folder / "variables/variables.data-00000-of-00001").stat().st_size)
        is_fast_noted.append("Fast on processors with AVX512_BF16 or AMX" in (folder / CARD).read_text())
        graph = tf.saved_model.load(str(folder)).signatures["predict"].graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        assert {tf.as_dtype(node.attr["T"].type).name for node in nodes if node.op == "Conv2D"} == {precision}
    assert is_fast_noted == [True, False]
    parameters = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert sizes[1] - sizes[0] == pytest.approx(2 * parameters, rel=0.02)  # the mean image stays in float32
    report = json.loads((tmp_path / "1" / exporter.ASSETS / "parity.json").read_text())
    assert report["top1_agreement"] >= 0.97
    assert 0 < report["largest_difference"] < 0.03


class TestErrors:
    @pytest.mark.parametrize(
        "options, message",
        [
            ({"precision": "float16"}, "savedmodel must be one of float32, bfloat16. Received: float16"),
            ({"format": "onnx", "precision": "int8"}, "`precision` int8 needs `data_dir`"),
            ({"runtime": "package.tgz"}, "`runtime` is for --format=web. Received: --format=savedmodel"),
            ({"examples": "."}, "`examples` is for --format=web"),
            ({"format": "web", "examples": "missing"}, "`examples` must be a folder of images. Received: missing"),
        ],
    )
    def test_options_that_do_not_fit(self, options, message, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
        with pytest.raises(ValueError, match=message):
            formats.ExportConfig(**options)

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
    def test_report_has_agreement_difference_errors_and_latency(self, monkeypatch):
        images = np.zeros((4, 2, 2, 3), "uint8")
        images[:, 0, 0, 0] = range(4)
        labels = np.array([0, 1, 1, 0])

        def predictor(rows):
            return lambda pixels: np.array(rows, "float32")[np.int32(pixels[:, 0, 0, 0])]

        reference = predictor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
        candidate = predictor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.45], [0.6, 0.4]])  # one rises by 0.2, one falls by 0.25
        clock = types.SimpleNamespace(perf_counter=functools.partial(next, itertools.count(step=0.5)))
        monkeypatch.setattr(parity, "time", clock)
        report = parity.measure(candidate, reference, images, labels, batch_size=3)
        assert report["images"] == 4
        assert report["top1_agreement"] == 0.75
        assert report["largest_difference"] == pytest.approx(0.25)
        assert report["top1_error"] == {"candidate": 0.25, "reference": 0.0}
        assert report["latency_ms"] == {size: {"candidate": 500, "reference": 500} for size in ("1", "32")}

    @pytest.mark.parametrize(
        "model_format, given, parity", [("savedmodel", None, True), ("savedmodel", False, False), ("web", None, False)]
    )
    def test_parity_is_measured_unless_for_a_page_or_on_request(self, model_format, given, parity, monkeypatch):
        monkeypatch.setattr(formats, "PACKAGES", {model_format: ()})
        assert formats.ExportConfig(format=model_format, parity=given).parity is parity

    def test_table_has_errors_sizes_and_latencies_of_both(self):
        report = {
            "images": 4,
            "top1_agreement": 0.75,
            "largest_difference": 0.25,
            "format": "onnx",
            "precision": "int8",
        }
        report |= {"top1_error": {"candidate": 0.25, "reference": 0.125}, "megabytes": 61.5, "reference_megabytes": 244}
        report["latency_ms"] = {"1": {"candidate": 2, "reference": 3}, "32": {"candidate": 40, "reference": 50}}
        page = parity.as_markdown(report)
        assert "same class for 75.00% of the images" in page and "differ by at most 0.25" in page
        assert "| onnx, int8 | 25.00 | 61.5 | 2.0 | 40.0 |" in page
        assert "| the trained model in Keras | 12.50 | 244.0 | 3.0 | 50.0 |" in page
