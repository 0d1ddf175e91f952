"""alexnet-export: what is in a SavedModel, what its functions answer, and what no image can make them do."""

import fcntl
import io
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import ENVIRONMENT, image_files, program, run, run_well
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from alexnet_tf import checkpoint, export, features, preprocessing
from alexnet_tf.tfrecords import build, images, reader, schema

pytestmark = pytest.mark.slow  # a model is trained and exported first


@pytest.fixture(scope="module")
def saved(export_dir):
    return tf.saved_model.load(str(export_dir / "1"))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Five real images, as files."""
    return [path.read_bytes() for path in image_files(tmp_path_factory.mktemp("images"), 5)]


@pytest.fixture(scope="module")
def trained(run_dir):
    return checkpoint.load_model(run_dir)


def answers(saved, signature, contents):
    outputs = saved.signatures[signature](images=tf.constant(contents, tf.string))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def photo(mode="RGB", size=(90, 70)):
    """Smooth colors, as an image of one of Pillow's modes."""
    corners = np.random.default_rng(5).integers(0, 256, (4, 4, 3)).astype("uint8")
    return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC).convert(mode)


def as_file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat_png(width, height):
    """A PNG of one color, the smallest file of so many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    compressor = zlib.compressobj(9)
    rows = [compressor.compress(bytes(1 + 3 * width)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"".join([*rows, compressor.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class TestSignatures:
    def test_default_and_predict_give_the_models_own_answers(self, saved, trained, encoded):
        model, description = trained
        squares = tf.stack([preprocessing.decode_square(tf.constant(image), 64) for image in encoded])
        pixels = preprocessing.central_crop(squares, 56)
        expected = model.predict(pixels, verbose=0)
        for name, dtype in (("predict", tf.float32), ("predict_uint8", tf.uint8)):
            served = saved.signatures[name](pixels=tf.cast(pixels, dtype))["probabilities"]
            np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)
        served = answers(saved, "serving_default", encoded)
        order = np.argsort(-expected, axis=1)[:, :5]
        np.testing.assert_array_equal(served["class_ids"], order)
        np.testing.assert_allclose(served["probabilities"], np.take_along_axis(expected, order, 1), rtol=1e-5)
        names = [[name.decode() for name in row] for row in served["class_names"]]
        assert names == [[description.class_names[c] for c in row] for row in order]
        assert served["valid"].all()

    def test_views_and_features_are_those_of_evaluation(self, saved, trained, tmp_path):
        # Images that are PNG in the data set, 64 pixels large: what is served of them is what evaluation reads.
        model, _ = trained
        for number in range(3):
            path = tmp_path / "images" / "validation" / "a" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(size=(64, 64)).rotate(90 * number).save(path)
        for split in ("train", "validation"):
            (tmp_path / "images" / split / "b").mkdir(parents=True)
            photo(size=(64, 64)).save(tmp_path / "images" / split / "b" / "b.png")
        (tmp_path / "images" / "train" / "a").mkdir()
        photo(size=(64, 64)).save(tmp_path / "images" / "train" / "a" / "a.png")
        source, data_dir = f"folder:{tmp_path / 'images'}", tmp_path / "data"
        build.build_dataset(source, data_dir, image_px=64, encoding="png", num_train_shards=1, num_validation_shards=1)
        description = schema.load_description(data_dir)
        ((views, _),) = reader.make_evaluation_dataset(data_dir, 10, 56, views=10)
        of_views = model.predict(tf.reshape(views, (-1, 56, 56, 3)), verbose=0).reshape(4, 10, -1).mean(axis=1)
        order = np.argsort(-of_views, axis=1)[:, :5]
        records = tf.data.TFRecordDataset(str(data_dir / description.splits["validation"].shards[0].name))
        parsed = [tf.train.Example.FromString(record.numpy()) for record in records]
        contents = [example.features.feature[schema.ENCODED].bytes_list.value[0] for example in parsed]
        served = answers(saved, "ten_view", contents)
        np.testing.assert_array_equal(served["class_ids"], order)
        np.testing.assert_allclose(served["probabilities"], np.take_along_axis(of_views, order, 1), rtol=1e-5)
        expected = features.extract(model, "relu7", data_dir, description, "validation", 10).vectors
        np.testing.assert_allclose(answers(saved, "features", contents)["features"], expected, rtol=1e-5, atol=1e-6)

    def test_examples_are_classified_as_their_images(self, saved, encoded):
        examples = []
        for image in [*encoded[:2], b"no image"]:
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(image)
            examples.append(example.SerializeToString())
        wrong_type = tf.train.Example()
        wrong_type.features.feature["image/encoded"].int64_list.value.append(1)
        examples += [b"", b"\xff no example", wrong_type.SerializeToString()]
        outputs = saved.signatures["classify"](inputs=tf.constant(examples))
        assert outputs.keys() == {"classes", "scores"}
        expected = answers(saved, "serving_default", encoded[:2])
        np.testing.assert_array_equal(outputs["classes"][:2], expected["class_names"])
        np.testing.assert_allclose(outputs["scores"][:2], expected["probabilities"], rtol=1e-6)
        assert (outputs["classes"].numpy()[2:] == b"").all()
        assert (outputs["scores"].numpy()[2:] == 0).all()

    @pytest.mark.parametrize("signature", ["serving_default", "ten_view", "features"])
    def test_bad_image_marks_its_own_row_and_no_other(self, signature, saved, encoded):
        jpeg = as_file(photo(), "JPEG")
        bad = [b"", b"\xff", b"hello", jpeg[:300], jpeg[:3], encoded[0][:40], b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"]
        mixed = [part for pair in zip(bad, [*encoded, *encoded], strict=False) for part in pair]
        alone = answers(saved, signature, mixed[1::2])
        served = answers(saved, signature, mixed)
        assert served["valid"].tolist() == [False, True] * len(bad)
        for name, rows in served.items():
            same = np.testing.assert_array_equal if rows.dtype.kind in "OSb" else np.testing.assert_allclose
            same(rows[1::2], alone[name], *([1e-5, 1e-6] if same is np.testing.assert_allclose else []))
        nothing = {"class_names": b"", "class_ids": -1, "probabilities": 0, "features": 0}
        for name, value in nothing.items():
            assert name not in served or (served[name][0::2] == value).all()

    @pytest.mark.parametrize("signature", ["serving_default", "ten_view", "features", "classify", "predict"])
    def test_empty_batch_gives_empty_answers(self, signature, saved):
        (spec,) = saved.signatures[signature].structured_input_signature[1].values()
        empty = tf.zeros((0, *spec.shape[1:]), spec.dtype)
        outputs = saved.signatures[signature](**{spec.name: empty})
        assert outputs
        assert all(len(tensor) == 0 for tensor in outputs.values())

    def test_batch_of_bad_images_alone_is_answered(self, saved):
        served = answers(saved, "serving_default", [b"a", b"b"])
        assert not served["valid"].any()


class TestDecodeSquare:
    @pytest.mark.parametrize("size", [(300, 200), (37, 90), (28, 28), (5000, 1), (1, 1)])
    @pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
    def test_served_pixels_are_those_of_the_training_images(self, size, kind):
        image = as_file(photo(size=size), kind)
        served = preprocessing.decode_square(tf.constant(image), 64).numpy()
        assert np.abs(np.int32(served) - images.prepare_image(image, 64)).max() <= 1  # they round differently

    @pytest.mark.parametrize(
        "mode, kind, options",
        [
            ("L", "png", {}),
            ("LA", "png", {}),
            ("P", "png", {}),
            ("1", "png", {}),
            ("RGBA", "png", {}),
            ("I;16", "png", {}),
            ("L", "jpeg", {}),
            ("CMYK", "jpeg", {}),
            ("RGB", "jpeg", {"quality": 60}),
            ("RGB", "jpeg", {"progressive": True, "subsampling": 0}),
            ("RGBA", "bmp", {}),
        ],
    )
    def test_any_kind_of_image_becomes_the_rgb_of_training(self, mode, kind, options):
        image = Image.fromarray(np.uint16(photo("L")) * 257) if mode == "I;16" else photo(mode)
        content = as_file(image, kind, **options)
        served = preprocessing.decode_square(tf.constant(content), 64).numpy()
        assert np.abs(np.int32(served) - images.prepare_image(content, 64)).max() <= 1

    @pytest.mark.parametrize(
        "content, reason",
        [
            (b"hello", "no JPEG, PNG or BMP"),
            (as_file(photo("P"), "gif"), "no JPEG, PNG or BMP"),
            (as_file(photo("P"), "bmp"), "palette"),
            (flat_png(101, 100), "may have 10000 pixels"),
            (as_file(photo(size=(101, 100)), "jpeg"), "may have 10000 pixels"),
            (as_file(photo(size=(101, 100)), "bmp"), "may have 10000 pixels"),
        ],
    )
    def test_other_and_larger_files_are_refused(self, content, reason):
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            preprocessing.decode_square(tf.constant(content), 64, max_pixels=10_000)

    def test_crop_larger_than_the_image_is_refused(self):
        with pytest.raises(ValueError, match="crop_px=65"):
            preprocessing.central_crop(tf.zeros((1, 64, 64, 3), tf.uint8), 65)


@pytest.mark.slow
class TestMemory:
    """In a process of its own, since the most memory that one ever took is not forgotten."""

    SCRIPT = """
import resource, sys, tensorflow as tf
saved = tf.saved_model.load(sys.argv[1])
contents = [open(path, "rb").read() for path in sys.argv[2:]]
answer = lambda images: saved.signatures["serving_default"](images=tf.constant(images))["valid"].numpy().tolist()
answer([contents[0]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*answer(contents[1:]), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""

    def peak(self, export_dir, tmp_path, contents):
        paths = []
        for number, content in enumerate([flat_png(9, 9), *contents]):
            paths.append(tmp_path / str(number))
            paths[-1].write_bytes(content)
        command = [sys.executable, "-c", self.SCRIPT, export_dir / "1", *paths]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        *valid, megabytes = result.stdout.split()
        return valid, float(megabytes)

    def test_small_files_of_many_pixels_take_less_than_a_gigabyte(self, export_dir, tmp_path):
        progressive = as_file(Image.new("RGB", (7000, 7000)), "JPEG", progressive=True, subsampling=0)
        lines = [flat_png(3000, 1), flat_png(1, 3000), flat_png(49_000, 1000)]
        contents = [flat_png(7000, 7000), progressive, *lines, progressive]
        valid, megabytes = self.peak(export_dir, tmp_path, contents)
        assert valid == ["True"] * len(contents)
        assert megabytes < 1000

    def test_images_past_the_limit_take_nothing(self, export_dir, tmp_path):
        contents = [flat_png(12_000, 12_000), as_file(Image.new("RGB", (12_000, 12_000)), "JPEG")]
        valid, megabytes = self.peak(export_dir, tmp_path, contents)
        assert valid == ["False", "False"]
        assert megabytes < 50


class TestSavedModel:
    def test_weights_are_stored_once_without_optimizer_or_devices(self, export_dir, trained):
        folder = export_dir / "1"
        weights = trained[0].get_weights()
        data = (folder / "variables" / "variables.data-00000-of-00001").stat().st_size
        assert sum(w.nbytes for w in weights) <= data < 1.01 * sum(w.nbytes for w in weights) + 4096
        stored = tf.train.load_checkpoint(str(folder / "variables" / "variables")).get_variable_to_shape_map()
        stored = [shape for name, shape in stored.items() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
        assert sorted(map(tuple, stored)) == sorted(w.shape for w in weights)
        model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        (graph,) = model.meta_graphs
        # TensorFlow's own two functions, which read and write the weights, name the CPU in every SavedModel.
        own = [f for f in graph.graph_def.library.function if "traced_" not in f.signature.name]
        assert len(graph.graph_def.library.function) == len(own) + 2
        nodes = [node for f in own for node in f.node_def]
        assert len(nodes) > 1000
        assert {node.device for node in nodes} == {""}
        methods = {name: signature.method_name for name, signature in graph.signature_def.items()}
        assert methods.pop("classify") == "tensorflow/serving/classify"
        del methods["__saved_model_init_op"]
        assert set(methods.values()) == {"tensorflow/serving/predict"}

    def test_model_needs_none_of_this_projects_code(self, export_dir, tmp_path):
        script = (
            "import sys, tensorflow as tf; served = tf.saved_model.load(sys.argv[1]);"
            "print(served.signatures['serving_default'](images=tf.constant([open(sys.argv[2], 'rb').read()])));"
            "assert not any(name.startswith('alexnet_tf') for name in sys.modules)"
        )
        (path,) = image_files(tmp_path, 1)
        subprocess.run([sys.executable, "-I", "-c", script, str(export_dir / "1"), str(path)], check=True)

    def test_saved_model_cli_runs_it(self, export_dir, encoded, saved, tmp_path):
        np.save(tmp_path / "images.npy", np.array(encoded, "S"))  # no pickle: that the cli refuses
        cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
        command = [cli, "run", "--dir", export_dir / "1", "--tag_set", "serve", "--signature_def", "serving_default"]
        command += ["--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        expected = answers(saved, "serving_default", encoded)
        np.testing.assert_array_equal(np.load(tmp_path / "class_ids.npy"), expected["class_ids"])
        np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected["probabilities"], rtol=1e-5)

    def test_openvino_says_the_same(self, saved, trained, encoded):
        import openvino

        squares = tf.stack([preprocessing.decode_square(tf.constant(image), 64) for image in encoded])
        pixels = np.float32(preprocessing.central_crop(squares, 56))
        converted = openvino.convert_model(saved.signatures["predict"])
        compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        np.testing.assert_allclose(compiled(pixels)[0], trained[0].predict(pixels, verbose=0), atol=1e-5)

    def test_warm_up_requests_are_of_every_signature_and_answered(self, export_dir, saved):
        records = tf.data.TFRecordDataset(str(export_dir / "1" / "assets.extra" / "tf_serving_warmup_requests"))
        asked = set()
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
            asked.add(request.model_spec.signature_name)
        assert asked == set(saved.signatures)

    def test_labels_card_and_parity_lie_beside_it(self, export_dir, run_dir, trained):
        model, description = trained
        assets = export_dir / "1" / "assets"
        assert (assets / "labels.txt").read_text().splitlines() == list(description.class_names)
        card = json.loads((assets / "model_card.json").read_text())
        assert (card["name"], card["version"]) == ("alexnet", 1)
        assert card["network"]["variant"] == "testing"
        assert card["network"]["parameters"] == model.count_params()
        conv1 = [line for line in card["network"]["differs_from_paper"] if line["layer"] == "conv1"]
        assert [(line["of"], line["kernel"]) for line in conv1] == [("paper", "11 x 11"), ("testing", "7 x 7")]
        assert card["data"]["images"] == {"train": 3000, "validation": 1000}
        assert card["recipe"]["settings"]["learning_rate"] == 0.1
        assert card["recipe"]["paper"]["learning_rate"] == "0.01"
        assert "momentum" not in card["recipe"]["paper"]  # which is the paper's
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


class TestVersions:
    def test_versions_count_up_and_none_is_overwritten(self, run_dir, tmp_path):
        for _ in range(2):
            run_well("export", f"--model={run_dir}", f"--export_dir={tmp_path / 'served'}")
        assert sorted(path.name for path in (tmp_path / "served").iterdir()) == ["1", "2"]
        result = run("export", f"--model={run_dir}", f"--export_dir={tmp_path / 'served'}", "--version=2")
        assert result.returncode != 0
        assert "must not exist yet" in result.stderr

    def test_what_fails_or_is_killed_leaves_no_version(self, tmp_path):
        with pytest.raises(RuntimeError), export.new_version(tmp_path) as (folder, _):
            (folder / "half").touch()
            raise RuntimeError
        assert not list(tmp_path.iterdir())
        (tmp_path / ".tmp-1").mkdir()  # of one that was killed
        (tmp_path / ".tmp-1" / "half").touch()
        with export.new_version(tmp_path) as (folder, target):
            assert not list(folder.iterdir())
            (folder / "whole").touch()
            assert not target.exists()
        assert [path.name for path in tmp_path.rglob("*")] == ["1", "whole"]

    @pytest.mark.slow
    def test_killed_export_leaves_nothing_a_server_would_take(self, run_dir, tmp_path):
        command = program("export", f"--model={run_dir}", f"--export_dir={tmp_path}")
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not (tmp_path / ".tmp-1").exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert [path.name for path in tmp_path.iterdir()] == [".tmp-1"]
        run_well("export", f"--model={run_dir}", f"--export_dir={tmp_path}")
        assert [path.name for path in tmp_path.iterdir()] == ["1"]

    def test_second_export_at_the_same_time_is_refused(self, tmp_path):
        descriptor = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process exports"), export.new_version(tmp_path):
            pass
        os.close(descriptor)

    def test_files_that_are_no_versions_are_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "3").mkdir()
        with export.new_version(tmp_path) as (_, target):
            pass
        assert target.name == "4"
        assert (tmp_path / "notes.txt").read_text() == "mine"
