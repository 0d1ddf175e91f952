"""What an export consists of, what is refused, and that every version is complete."""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import ENVIRONMENT, program, run_well
from tensorflow.core.protobuf import saved_model_pb2

from alexnet_tf.model import build_alexnet
from alexnet_tf.serving import classifier, exporter, formats, preprocessing, warm_up
from alexnet_tf.tfrecords import crops, schema


class TestSavedModel:
    def test_weights_are_stored_once_without_optimizer_or_devices(self, export_dir, untrained):
        folder = export_dir / "1"
        weights = untrained[0].get_weights()
        data = (folder / "variables" / "variables.data-00000-of-00001").stat().st_size
        other = sum(path.stat().st_size for path in folder.glob("*.pb"))
        assert data + other < 1e6 * formats.size_mb(folder) < data + other + 1e6
        assert sum(w.nbytes for w in weights) <= data < 1.01 * sum(w.nbytes for w in weights) + 4096
        stored = tf.train.load_checkpoint(str(folder / "variables" / "variables")).get_variable_to_shape_map()
        stored = [shape for name, shape in stored.items() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
        assert sorted(map(tuple, stored)) == sorted(w.shape for w in weights)
        model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        (graph,) = model.meta_graphs
        # TensorFlow's own two functions, which read and write the weights, name the CPU.
        own = [f for f in graph.graph_def.library.function if "traced_" not in f.signature.name]
        assert len(graph.graph_def.library.function) == len(own) + 2
        nodes = [node for f in own for node in f.node_def]
        assert len(nodes) > 1000
        assert {node.device for node in nodes} == {""}
        methods = {name: signature.method_name for name, signature in graph.signature_def.items()}
        assert methods.pop("classify") == "tensorflow/serving/classify"
        del methods["__saved_model_init_op"]
        assert set(methods.values()) == {"tensorflow/serving/predict"}

    @pytest.mark.slow
    def test_saved_model_cli_predicts_the_same(self, export_dir, encoded, saved, tmp_path):
        np.save(tmp_path / "images.npy", np.array(encoded, "S"))  # the cli refuses pickle
        cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
        command = [cli, "run", "--dir", export_dir / "1", "--tag_set", "serve", "--signature_def", "serving_default"]
        command += ["--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        expected = saved.signatures["serving_default"](images=tf.constant(encoded))
        np.testing.assert_array_equal(np.load(tmp_path / "class_ids.npy"), expected["class_ids"])
        np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected["probabilities"], rtol=1e-5)

    @pytest.mark.slow
    @pytest.mark.long
    def test_openvino_predicts_the_same(self, saved, untrained, encoded):
        openvino = pytest.importorskip("openvino")
        squares = tf.stack([preprocessing.decode_square(tf.constant(image), 64) for image in encoded])
        pixels = np.float32(crops.center_crop(squares, 56))
        converted = openvino.convert_model(saved.signatures["predict"])
        compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        np.testing.assert_allclose(compiled(pixels)[0], untrained[0].predict(pixels, verbose=0), atol=1e-5)

    @pytest.mark.slow
    def test_warm_up_requests_call_every_signature(self, export_dir, saved):
        prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
        records = tf.data.TFRecordDataset(str(export_dir / "1" / warm_up.FILE))
        called = []
        for record in records.as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.HasField("predict_log"):
                request = log.predict_log.request
                inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
            else:
                request = log.classify_log.request
                examples = [example.SerializeToString() for example in request.input.example_list.examples]
                inputs = {"inputs": tf.constant(examples)}
            assert request.model_spec.name == "alexnet"
            outputs = saved.signatures[request.model_spec.signature_name](**inputs)
            readable = outputs["valid"] if "valid" in outputs else outputs.get("scores", tf.ones(1)) > 0
            assert readable.numpy().all()
            called.append(request.model_spec.signature_name)
        assert sorted(called) == sorted(saved.signatures)


class TestNestedNetwork:
    @pytest.mark.parametrize(
        "model_format, precision, tolerance",
        [
            ("onnx", "float32", 1e-5),
            pytest.param("savedmodel", "bfloat16", 0.02, marks=(pytest.mark.slow, pytest.mark.long)),
        ],
    )
    def test_network_in_a_sequential_model_is_exported(self, model_format, precision, tolerance, tmp_path):
        for package in formats.PACKAGES[model_format]:
            pytest.importorskip(package)
        base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=0.0125)
        model = keras.Sequential([base, keras.layers.Dense(3, activation="softmax")])
        settings = {"exif_orientation": True}
        description = schema.DatasetDescription(("a", "b", "c"), 64, False, "png", splits={}, settings=settings)
        pixels = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("float32")
        expected = model.predict(pixels, verbose=0)
        config = formats.ExportConfig(format=model_format, precision=precision)
        folder = exporter.export_model(model, description, tmp_path / "served", config)
        np.testing.assert_allclose(formats.open_predictor(folder)(pixels), expected, atol=tolerance)
        card = json.loads((folder / "assets" / "model_card.json").read_text())
        assert card["network"]["title"] == "not a variant of this project"


class TestRefused:
    @pytest.mark.parametrize("name", ["s[2024]", "a*b", "what?"])
    def test_paths_that_tensorflow_reads_as_patterns(self, name, untrained, export_dir, tmp_path):
        with pytest.raises(ValueError, match="must not contain"):
            exporter.export_model(*untrained, tmp_path / name)
        assert not (tmp_path / name).exists()
        shutil.copytree(export_dir, tmp_path / name)
        for opener in (classifier.open_classifier, formats.open_predictor):
            with pytest.raises(ValueError, match="must not contain"):
                opener(tmp_path / name / "1")

    @pytest.mark.parametrize("layer, value", [("fc8", np.inf), ("conv1", np.nan)])
    def test_weights_that_are_not_finite(self, layer, value, untrained, tmp_path):
        model = keras.models.clone_model(untrained[0])
        bias = model.get_layer(layer).biases[0]
        bias.assign(np.full(bias.shape, value))
        with pytest.raises(ValueError, match="outputs are not finite"):
            exporter.export_model(model, untrained[1], tmp_path / "served")
        assert not (tmp_path / "served").exists()

    def test_logits(self, untrained, tmp_path):
        model = keras.Model(untrained[0].input, untrained[0].get_layer("fc8").output)
        with pytest.raises(ValueError, match="outputs must be probabilities"):
            exporter.export_model(model, untrained[1], tmp_path / "served")
        assert not (tmp_path / "served").exists()


class TestVersions:
    def test_version_follows_the_largest_and_is_never_overwritten(self, tmp_path):
        (tmp_path / "3").mkdir()
        (tmp_path / "notes.txt").touch()  # is ignored
        for given, expected in ((None, "4"), (7, "7"), (None, "8"), (2, "2")):
            with exporter.new_version(tmp_path, given) as (folder, target):
                (folder / "written").write_text(expected)
            assert target == tmp_path / expected
        with pytest.raises(ValueError, match="must not exist"), exporter.new_version(tmp_path, 7):
            pass
        assert (tmp_path / "7" / "written").read_text() == "7"

    def test_failed_export_leaves_no_version(self, tmp_path):
        with pytest.raises(RuntimeError), exporter.new_version(tmp_path) as (folder, _):
            (folder / "half").touch()
            raise RuntimeError
        assert not list(tmp_path.iterdir())
        (tmp_path / ".tmp-1").mkdir()  # from an export that was killed
        (tmp_path / ".tmp-1" / "half").touch()
        with exporter.new_version(tmp_path) as (folder, target):
            assert not list(folder.iterdir())
            (folder / "whole").touch()
            assert not target.exists()
        assert [path.name for path in tmp_path.rglob("*")] == ["1", "whole"]

    @pytest.mark.slow
    @pytest.mark.long
    def test_killed_export_leaves_no_version(self, untrained_dir, tmp_path):
        command = program("export", f"--model={untrained_dir}", f"--export_dir={tmp_path}")
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            end = time.monotonic() + 120
            while not (tmp_path / ".tmp-1").exists():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert [path.name for path in tmp_path.iterdir()] == [".tmp-1"]
        run_well("export", f"--model={untrained_dir}", f"--export_dir={tmp_path}")
        assert [path.name for path in tmp_path.iterdir()] == ["1"]

    def test_concurrent_export_is_refused(self, tmp_path):
        descriptor = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process exports"), exporter.new_version(tmp_path):
            pass
        os.close(descriptor)
