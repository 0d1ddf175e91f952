"""The programs after training, as a user runs them: export and prediction."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import ENVIRONMENT, run, run_well

from alexnet_tf import checkpoint, preprocessing
from alexnet_tf.tfrecords import images, sources


@pytest.fixture(scope="module")
def export_dir(run_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "served"
    run_well("export", f"--model={run_dir}", f"--export_dir={folder}")
    return folder


def image_files(folder, count):
    """The first validation images, written as PNG files."""
    paths = []
    for index, (_, image, _) in enumerate(sources.open_source("fashion_mnist").read("validation", 0, count)):
        paths.append(folder / f"image-{index}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


class TestExport:
    def test_signatures_give_the_models_own_answers(self, run_dir, export_dir, tmp_path):
        model, description = checkpoint.load_model(run_dir)
        encoded = [path.read_bytes() for path in image_files(tmp_path, 5)]
        pixels = preprocessing.decode_images(tf.constant(encoded), 64, 56)
        expected = model.predict(pixels, verbose=0)
        saved = tf.saved_model.load(str(export_dir / "1"))
        raw = saved.signatures["predict"](pixels=tf.cast(pixels, tf.float32))["probabilities"]
        np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-6)
        served = saved.signatures["serving_default"](images=tf.constant(encoded))
        order = np.argsort(-expected, axis=1)[:, :5]
        np.testing.assert_array_equal(served["class_ids"], order)
        np.testing.assert_allclose(served["probabilities"], np.take_along_axis(expected, order, 1), rtol=1e-5)
        names = [[name.decode() for name in row] for row in served["class_names"].numpy()]
        assert names == [[description.class_names[c] for c in row] for row in order]

    def test_weights_are_stored_once_and_versions_count_up(self, run_dir, tmp_path):
        model, _ = checkpoint.load_model(run_dir)
        for _ in range(2):
            run_well("export", f"--model={run_dir}", f"--export_dir={tmp_path / 'served'}")
        assert sorted(path.name for path in (tmp_path / "served").iterdir()) == ["1", "2"]
        data = (tmp_path / "served" / "2" / "variables" / "variables.data-00000-of-00001").stat().st_size
        weights = sum(weight.nbytes for weight in model.get_weights())
        assert weights <= data < 1.1 * weights
        result = run("export", f"--model={run_dir}", f"--export_dir={tmp_path / 'served'}", "--version=2")
        assert result.returncode != 0
        assert "must not exist yet" in result.stderr

    def test_served_model_needs_none_of_this_projects_code(self, export_dir, tmp_path):
        script = (
            "import sys, tensorflow as tf; served = tf.saved_model.load(sys.argv[1]);"
            "print(served.signatures['serving_default'](images=tf.constant([open(sys.argv[2], 'rb').read()])));"
            "assert not any(name.startswith('alexnet_tf') for name in sys.modules)"
        )
        (path,) = image_files(tmp_path, 1)
        subprocess.run([sys.executable, "-I", "-c", script, str(export_dir / "1"), str(path)], check=True)


class TestPredict:
    def test_trained_and_served_model_say_the_same(self, run_dir, export_dir, tmp_path):
        paths = image_files(tmp_path, 3)
        trained = run_well("predict", f"--model={run_dir}", f"--panel={tmp_path / 'panel.png'}", *paths)
        served = run_well("predict", f"--model={export_dir / '1'}", *paths)
        assert trained.splitlines()[:18] == served.splitlines()[:18]
        assert trained.splitlines()[0] == str(paths[0])
        assert np.asarray(Image.open(tmp_path / "panel.png")).shape[2] == 3

    def test_file_that_is_no_image_is_named_and_the_others_answered(self, run_dir, tmp_path):
        (good,) = image_files(tmp_path, 1)
        cut = tmp_path / "cut.jpg"
        Image.effect_noise((100, 100), 50).save(cut)
        cut.write_bytes(cut.read_bytes()[:500])
        empty = tmp_path / "empty.png"
        empty.touch()
        result = run("predict", f"--model={run_dir}", cut, tmp_path / "missing.png", empty, good)
        assert result.returncode == 1
        assert [line for line in result.stdout.splitlines() if line.endswith(".png")] == [str(good)]
        for path in (cut, tmp_path / "missing.png", empty):
            assert f"{path}: not an image that can be read" in result.stderr


class TestDecodeImages:
    @pytest.mark.parametrize("size", [(300, 200), (37, 90), (28, 28), (5000, 1)])
    def test_served_pixels_are_those_of_the_training_images(self, size):
        random = np.random.default_rng(0)
        blocks = random.integers(0, 256, (-(-size[1] // 20), -(-size[0] // 20), 3)).astype("uint8")
        image = blocks.repeat(20, axis=0).repeat(20, axis=1)[: size[1], : size[0]]
        encoded = images.encode_image(image, "png", None)
        (served,) = preprocessing.decode_images(tf.constant([encoded]), 64, 64).numpy()
        built = images.prepare_image(encoded, 64)
        assert np.abs(np.int32(served) - built).max() <= 1  # TensorFlow and Pillow round differently

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "P"])
    def test_any_kind_of_image_becomes_rgb(self, mode, tmp_path):
        path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
        gray = np.tile(np.linspace(0, 255, 80), (80, 1)).astype("uint8")
        if mode == "I;16":
            Image.fromarray(np.uint16(gray) * 257).save(path)
        else:
            Image.fromarray(gray).convert("RGB" if mode == "CMYK" else "L").convert(mode).save(path)
        (image,) = preprocessing.decode_images(tf.constant([path.read_bytes()]), 80, 80).numpy()
        assert np.abs(np.int32(image) - gray[..., None]).max() <= 6  # the error of JPEG

    def test_crop_larger_than_the_image_is_refused(self):
        with pytest.raises(ValueError, match="crop_px=65"):
            preprocessing.decode_images(tf.constant([b""]), 64, 65)


@pytest.mark.parametrize(
    "name, flag",
    [
        ("tfrecords", "--max_bad_fraction"),
        ("train", "--learning_rate"),
        ("describe", "--against"),
        ("convert", "--class_names"),
        ("evaluate", "--ten_views"),
        ("export", "--version"),
        ("predict", "--panel"),
    ],
)
def test_console_script_helps_with_every_flag(name, flag):
    script = pathlib.Path(sys.executable).with_name(f"alexnet-{name}")
    result = subprocess.run([script, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert flag.lstrip("-") in result.stdout
    module = "tfrecords.build" if name == "tfrecords" else name
    assert flag.lstrip("-") in run(module, "--help").stdout
