"""alexnet-export: the contents of a version, and that every version is complete."""

import dataclasses
import fcntl
import functools
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf
from programs import ENVIRONMENT, call, image_files, program, run_well
from tensorflow.core.protobuf import saved_model_pb2

from alexnet_tf import export
from alexnet_tf.model import build_alexnet, count_parameters, load_model, weights_checksum
from alexnet_tf.serving import classifier, exporter, formats, model_card, preprocessing
from alexnet_tf.tfrecords import crops, reader, schema


def predictions(saved, signature, contents):
    outputs = saved.signatures[signature](images=tf.constant(contents, tf.string))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def encoded_squares(sides):
    return [tf.io.encode_png(tf.fill((side, side, 3), tf.constant(77, tf.uint8))).numpy() for side in sides]


class TestSavedModel:
    def test_weights_are_stored_once_without_optimizer_or_devices(self, export_dir, untrained):
        folder = export_dir / "1"
        weights = untrained[0].get_weights()
        data = (folder / "variables" / "variables.data-00000-of-00001").stat().st_size
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
    def test_model_runs_without_this_project(self, export_dir, tmp_path):
        script = (
            "import sys, tensorflow as tf; served = tf.saved_model.load(sys.argv[1]);"
            "print(served.signatures['serving_default'](images=tf.constant([open(sys.argv[2], 'rb').read()])));"
            "assert not any(name.startswith('alexnet_tf') for name in sys.modules)"
        )
        (path,) = image_files(tmp_path, 1)
        subprocess.run([sys.executable, "-I", "-c", script, str(export_dir / "1"), str(path)], check=True)

    @pytest.mark.slow
    def test_saved_model_cli_predicts_the_same(self, export_dir, encoded, saved, tmp_path):
        np.save(tmp_path / "images.npy", np.array(encoded, "S"))  # the cli refuses pickle
        cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
        command = [cli, "run", "--dir", export_dir / "1", "--tag_set", "serve", "--signature_def", "serving_default"]
        command += ["--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        expected = predictions(saved, "serving_default", encoded)
        np.testing.assert_array_equal(np.load(tmp_path / "class_ids.npy"), expected["class_ids"])
        np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected["probabilities"], rtol=1e-5)

    def test_openvino_predicts_the_same(self, saved, untrained, encoded):
        openvino = pytest.importorskip("openvino")

        squares = tf.stack([preprocessing.decode_square(tf.constant(image), 64) for image in encoded])
        pixels = np.float32(crops.center_crop(squares, 56))
        converted = openvino.convert_model(saved.signatures["predict"])
        compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        np.testing.assert_allclose(compiled(pixels)[0], untrained[0].predict(pixels, verbose=0), atol=1e-5)

    def test_warm_up_requests_call_every_signature(self, export_dir, saved):
        prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
        records = tf.data.TFRecordDataset(str(export_dir / "1" / "assets.extra" / "tf_serving_warmup_requests"))
        called = set()
        for record in records.as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.HasField("predict_log"):
                request = log.predict_log.request
                inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
            else:
                request = log.classify_log.request
                examples = [example.SerializeToString() for example in request.input.example_list.examples]
                inputs = {"inputs": tf.constant(examples)}
            outputs = saved.signatures[request.model_spec.signature_name](**inputs)
            assert outputs.get("valid", tf.constant([True])).numpy().all()
            assert request.model_spec.name == "alexnet"
            called.add(request.model_spec.signature_name)
        assert called == set(saved.signatures)

    @pytest.mark.slow  # trains a model first
    def test_version_follows_the_flags_and_has_labels_card_and_parity(self, run_dir, data_dir, tmp_path):
        folder = tmp_path / "alexnet" / "3"
        flags = [f"--model={run_dir}", f"--export_dir={folder.parent}", f"--data_dir={data_dir}", "--version=3"]
        assert f"Exported: {folder}" in call("export", *flags, f"--max_pixels={28 * 28}")
        saved = tf.saved_model.load(str(folder))
        for signature in ("serving_default", "ten_view", "features"):
            assert predictions(saved, signature, encoded_squares([28, 29]))["valid"].tolist() == [True, False]
        with pytest.raises(ValueError, match="`version` must not exist"):
            call("export", *flags)
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
        splits = {
            split: next(iter(reader.make_evaluation_dataset(data_dir, 40, 56, split=split)))[0]
            for split in ("train", "validation")
        }
        np.testing.assert_array_equal(images, splits["train"])
        assert not np.array_equal(images, splits["validation"])
        assert not (tmp_path / "served" / "1").exists()

    @pytest.mark.parametrize(("name", "value"), [("runtime", "package.tgz"), ("serve", 0)])
    def test_page_flags_are_refused_for_other_formats(self, name, value, export_with):
        with pytest.raises(ValueError, match=f"`{name}` is for --format=web. Received: --format=savedmodel"):
            export_with(f"--{name}={value}")

    def test_used_port_and_missing_runtime_are_errors_before_the_export(self, export_with, tmp_path):
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


class TestNestedNetwork:
    @pytest.mark.parametrize(
        "precision, tolerance", [("float32", 1e-6), pytest.param("bfloat16", 0.02, marks=pytest.mark.long)]
    )
    @pytest.mark.slow
    def test_network_in_a_sequential_model_is_exported(self, precision, tolerance, tmp_path):
        base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=0.0125)
        model = keras.Sequential([base, keras.layers.Dense(3, activation="softmax")])
        settings = {"exif_orientation": True}
        description = schema.DatasetDescription(("a", "b", "c"), 64, False, "png", splits={}, settings=settings)
        pixels = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3)).astype("float32")
        expected = model.predict(pixels, verbose=0)
        config = formats.ExportConfig(precision=precision)
        folder = exporter.export_model(model, description, tmp_path / "served", config)
        np.testing.assert_allclose(formats.open_predictor(folder)(pixels), expected, atol=tolerance)
        card = json.loads((folder / "assets" / "model_card.json").read_text())
        assert card["network"]["title"] == "not a variant of this project"


class TestNetworkWithoutTop:
    """Published convolutions have no classes: their outputs are features."""

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("without_top") / "model.keras"
        build_alexnet("testing", include_top=False, initializer="he_normal", input_scale=0.01).save(path)
        return path

    def test_savedmodel_has_signatures_for_features_only(self, model, encoded, tmp_path):
        call("export", f"--model={model}", f"--export_dir={tmp_path}")
        saved = tf.saved_model.load(str(tmp_path / "1"))
        assert sorted(saved.signatures) == ["features", "predict", "predict_uint8", "serving_default"]
        pixels = np.stack([crops.center_crop(preprocessing.decode_square(e, 256)[None], 56)[0] for e in encoded])
        expected = load_model(model).predict(pixels, verbose=0).reshape(len(encoded), -1)
        for name in ("features", "serving_default"):
            found = predictions(saved, name, encoded)
            assert found["valid"].all()
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

    def test_weights_that_are_not_finite(self, model, tmp_path):
        opened = load_model(model)
        bias = opened.get_layer("conv5").biases[0]
        bias.assign(np.full(bias.shape, np.nan))
        with pytest.raises(ValueError, match="not finite"):
            exporter.export_model(opened, opened.description, tmp_path)


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

    @pytest.mark.parametrize("layer, value", [("fc8", np.nan), ("fc8", np.inf), ("conv1", np.nan)])
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


class TestModelCard:
    def test_page_has_data_recipe_errors_and_limits(self, untrained, tmp_path):
        model, description = untrained
        run = tmp_path / "run"
        run.mkdir()
        settings = {"learning_rate": 0.1, "init_from": None, "weight_decay": None, "note": "a|b"}
        (run / "config.json").write_text(json.dumps(settings))
        (run / "model.keras").touch()
        errors = {"top1_error": 0.25, "top5_error": 0.125}
        view = errors | {"calibration": {"expected_calibration_error": 0.034}}
        evaluation = {"split": "validation", "images": 1000, "chance": errors, "center_crop": view}
        evaluation["models"] = [{"name": "run", "weights": weights_checksum(model)}]
        (run / "evaluation.json").write_text(json.dumps(evaluation))
        described = dataclasses.replace(description, settings={"source": "folder:<photos>"})
        card = model_card.collect(model, described, run, "export", 1) | {"format": "onnx", "precision": "int8"}
        page = model_card.as_markdown(card)
        assert page.startswith(
            "# AlexNet for 10 classes of folder:&lt;photos>\n\n`export`, version 1: variant `testing`"
        )
        assert "None" not in page
        assert "| learning_rate | 0.1 | 0.01 |\n" in page
        assert "| weight_decay | not set | 0.0005 |\n" in page
        assert "init_from" not in page
        assert "| note | a\\|b |  |\n" in page
        assert "| center crop | 25.00 | 12.50 |\n" in page
        assert "Folder:&lt;photos>: 10 classes, squares of 64 pixels." in page
        assert "## Limits of use" in page and "3.4 % on average" in page

    @pytest.mark.parametrize("measured", [["another"], ["this", "another"]])
    def test_evaluation_of_other_weights_is_ignored(self, measured, untrained, tmp_path):
        model, description = untrained
        errors = {"top1_error": 0.25, "top5_error": 0.125}
        evaluation = {"split": "validation", "images": 1000, "chance": errors, "center_crop": errors}
        weights = [weights_checksum(model) if each == "this" else each for each in measured]
        evaluation["models"] = [{"name": "run", "weights": each} for each in weights]
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
        (tmp_path / "training.json").write_text(
            json.dumps({"epochs": 3, "val_top1_error": 0.5, "val_top5_error": 0.25})
        )
        card = model_card.collect(model, description, tmp_path, "served", 1)
        assert card["metrics"].keys() == {"training"}
        page = model_card.as_markdown(card | {"format": "savedmodel", "precision": "float32"})
        assert "Validation after epoch 3 of training: top-1 50.00 %" in page

    @pytest.mark.parametrize("name", ["config.json", "evaluation.json", "training.json"])
    @pytest.mark.parametrize(
        "content", ["", "[1]", '{"models": 1}', "[" * 100_000], ids=["empty", "list", "other", "deep"]
    )
    def test_damaged_file_of_the_run_is_refused(self, name, content, untrained, tmp_path):
        (tmp_path / "model.keras").touch()
        (tmp_path / name).write_text(content)
        if (name, content) == ("config.json", '{"models": 1}'):
            return  # settings of any name are listed
        with pytest.raises(ValueError, match=r"config.json, evaluation.json or training.json in .* is damaged"):
            model_card.collect(*untrained, tmp_path, "served", 1)

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
        call("export", f"--model={name}", f"--export_dir={tmp_path}")
        assert received == [run and pathlib.Path(run)]

    def test_page_says_what_is_unknown(self, untrained):
        card = model_card.collect(*untrained, None, "served", 3) | {"format": "savedmodel", "precision": "float32"}
        page = model_card.as_markdown(card)
        assert "None" not in page
        assert page.startswith("# AlexNet for 10 classes of unrecorded data\n")
        assert "Unknown: there is no config.json next to the model." in page
        assert "an amount that is not measured" in page


class TestVersions:
    def test_version_follows_the_largest_and_is_never_overwritten(self, tmp_path):
        for given, expected in ((None, "1"), (7, "7"), (None, "8"), (2, "2")):
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

    def test_other_files_are_kept(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "3").mkdir()
        with exporter.new_version(tmp_path) as (_, target):
            pass
        assert target.name == "4"
        assert (tmp_path / "notes.txt").read_text() == "mine"
