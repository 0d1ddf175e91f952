"""The public names of `alexnet_tf`, and the tutorial."""

import ast
import functools
import importlib.util
import pathlib
import re
import types

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf
import torch
from made_photos import encoded, exif, photo
from nbclient import NotebookClient
from PIL import Image

import alexnet_tf
from alexnet_tf.tfrecords import reader, schema

ROOT = pathlib.Path(__file__).parent.parent


class TestNames:
    def test_public_names(self):
        for name in alexnet_tf.__all__:
            value = getattr(alexnet_tf, name)
            assert value is alexnet_tf.VARIANTS or value.__module__.startswith("alexnet_tf."), name
        assert set(alexnet_tf.__all__) <= set(dir(alexnet_tf))
        functions = {"build_alexnet", "with_color_offset", "load_model", "make_dataset", "preprocess"}
        layers = {"ColumnDense", "ColumnWise", "GroupedConv2D", "LocalResponseNormalization", "MeanImage"}
        layers |= {"PaperDropout", "ReplicaDropout", "WithinMapNormalization"}
        others = {"decode_predictions", "PaperMomentum", "VARIANTS"}
        assert functions | layers | others <= set(alexnet_tf.__all__)  # names that scripts use

    def test_features_is_a_model(self, untrained):
        images = np.zeros((2, 56, 56, 3), "uint8")
        extractor = alexnet_tf.features(untrained[0], ["conv1", "relu7"])
        pixels = keras.Input((56, 56, 3))
        found = keras.Model(pixels, extractor(pixels)).predict(images, verbose=0)
        for name, (expected, *others) in alexnet_tf.activations(untrained[0], images, ["relu7", "conv1"]).items():
            np.testing.assert_allclose(found[name], np.concatenate([expected, *others], -1), rtol=1e-5, atol=1e-6)

    def test_list_of_models(self):
        trained = alexnet_tf.list_models(pretrained=True)
        assert trained[:3] == [("one_weird_trick", "torchvision"), ("caffe", "caffe"), ("caffenet", "caffenet")]
        every = alexnet_tf.list_models()
        assert set(trained) < set(every) and {variant for variant, _ in every} == set(alexnet_tf.VARIANTS)
        assert ("paper", None) in every

    def test_missing_name(self):
        with pytest.raises(AttributeError, match="has no attribute 'build_vgg'"):
            _ = alexnet_tf.build_vgg


class TestPreprocess:
    PIXELS = np.random.default_rng(0).integers(0, 256, (90, 60, 3)).astype("uint8")

    def crop(self, images, **arguments):
        return alexnet_tf.preprocess(images, **{"crop_px": 28, "image_px": 32} | arguments)

    def test_paths_bytes_and_arrays_give_the_same_crop(self, tmp_path):
        path = tmp_path / "image.png"
        Image.fromarray(self.PIXELS).save(path)
        crops = self.crop([path, str(path), path.read_bytes(), self.PIXELS])
        assert crops.shape == (4, 28, 28, 3) and crops.dtype == np.uint8
        assert all(np.array_equal(crop, crops[0]) for crop in crops)
        square = Image.fromarray(self.PIXELS[15:75]).resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(crops[0], np.asarray(square)[2:30, 2:30])

    def test_exif_orientation(self):
        upright = photo(64, 64)
        turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
        np.testing.assert_array_equal(self.crop(turned), self.crop(np.asarray(upright)))
        np.testing.assert_array_equal(self.crop(turned, exif_orientation=False), self.crop(np.rot90(upright)))

    def test_pillow_images_floats_and_tensors_give_the_same_crop(self):
        image, pixels = Image.fromarray(self.PIXELS), self.PIXELS
        expected = self.crop(pixels)[0]
        single = [image, np.float32(pixels), np.int64(pixels), tf.constant(pixels), torch.tensor(pixels)]
        opaque = np.dstack([pixels, np.full((90, 60, 1), 255)])
        for given in (*single, single, tf.constant(np.float32(pixels[None])), opaque):
            assert all(np.array_equal(crop, expected) for crop in self.crop(given)), type(given)
        turned = image.transpose(Image.Transpose.ROTATE_90)
        turned.getexif()[0x0112] = 6  # a viewer turns it back, to the right
        np.testing.assert_array_equal(self.crop(turned)[0], expected)
        palette = image.quantize(8)
        np.testing.assert_array_equal(self.crop(palette), self.crop(np.asarray(palette.convert("RGB"))))

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_pillow_image_equals_its_file(self, mode):
        alpha = np.linspace(0, 255, 90 * 60).reshape(90, 60).astype("uint8")
        image = Image.fromarray(np.dstack([self.PIXELS, alpha]), "RGBA").convert(mode)
        np.testing.assert_array_equal(self.crop(image), self.crop(encoded(image, "PNG")))
        assert (self.crop(image) != self.crop(image.convert("RGB"))).any()

    def test_default_sizes(self, untrained):
        pixels = np.zeros((90, 60, 3), "uint8")
        assert alexnet_tf.preprocess(pixels).shape == (1, 224, 224, 3)
        assert alexnet_tf.preprocess(pixels[None]).shape == (1, 224, 224, 3)
        assert alexnet_tf.preprocess(pixels, model=untrained[0]).shape == (1, 56, 56, 3)
        large = types.SimpleNamespace(input_shape=(None, 300, 300, 3))
        assert alexnet_tf.preprocess(pixels, model=large).shape == (1, 300, 300, 3)

    def test_arrays_of_the_networks_size_are_returned_unchanged(self, untrained):
        batch = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("uint8")
        np.testing.assert_array_equal(alexnet_tf.preprocess(batch), batch)
        np.testing.assert_array_equal(alexnet_tf.preprocess(tf.constant(np.float32(batch[0])))[0], batch[0])
        once = alexnet_tf.preprocess(self.PIXELS, untrained[0])
        np.testing.assert_array_equal(alexnet_tf.preprocess(once, untrained[0]), once)
        assert (alexnet_tf.preprocess(batch, image_px=256) != batch).any()
        assert (alexnet_tf.preprocess(Image.fromarray(batch[0])) != batch[0]).any()

    def test_network_knows_size_orientation_and_resizing(self):
        pixels = np.asarray(photo(90, 60))
        settings = {"exif_orientation": False, "resize": "warp"}
        data = schema.DatasetDescription(("a", "b"), 64, False, "png", {}, settings)
        model = types.SimpleNamespace(input_shape=(None, 56, 56, 3), description=data)
        expected = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))[4:60, 4:60]
        turned = encoded(Image.fromarray(pixels), "PNG", exif=exif(6))
        np.testing.assert_array_equal(alexnet_tf.preprocess(turned, model)[0], expected)
        np.testing.assert_array_equal(self.crop(pixels, model=model, resize="crop"), self.crop(pixels))

    @pytest.mark.slow
    @pytest.mark.parametrize("resize", ["crop", "warp"])
    def test_in_a_pipeline_and_in_a_model_pixels_differ_by_at_most_1(self, resize):
        pixels = np.asarray(photo(91, 60))
        expected = self.crop(pixels, resize=resize).astype(int)
        for given in (pixels, encoded(Image.fromarray(pixels), "PNG"), np.float32(pixels)):
            dataset = tf.data.Dataset.from_tensors(given).map(functools.partial(self.crop, resize=resize))
            (found,) = dataset.batch(1)
            assert found.dtype == "uint8" and found.shape == expected.shape
            assert np.abs(np.int32(found) - expected).max() <= 1
        layer = alexnet_tf.Preprocess(28, 32, resize=resize)
        any_size = keras.Input((None, None, 3))
        for outputs in (layer(any_size), self.crop(any_size, resize=resize)):
            model = keras.models.clone_model(keras.Model(any_size, outputs))
            assert model.output_shape == (None, 28, 28, 3)
            assert np.abs(model.predict(pixels[None], verbose=0) - expected).max() <= 1

    def test_map_preprocess_prepares_images_for_predict(self, untrained):
        model, images = untrained[0], np.stack([np.asarray(photo(80, 70))] * 2)
        prepared = tf.data.Dataset.from_tensor_slices(images).map(lambda x: alexnet_tf.preprocess(x, model)).batch(2)
        expected = model.predict(alexnet_tf.preprocess(images, model), verbose=0)
        np.testing.assert_allclose(model.predict(prepared, verbose=0), expected, atol=1e-3)

    def test_network_for_rectangles(self):
        model = alexnet_tf.build_alexnet("testing", include_top=False, input_shape=(56, 80, 3))
        with pytest.raises(ValueError, match=r"`model` must take squares\. Received: 56 x 80"):
            alexnet_tf.preprocess(self.PIXELS, model)

    @pytest.mark.parametrize("pixels", [np.eye(80, dtype="uint8"), np.eye(80, dtype="int64"), np.zeros((80, 80))])
    def test_dark_images(self, pixels):
        assert self.crop(pixels).max() <= 1

    @pytest.mark.parametrize(
        "pixels, message",
        [
            (np.full((9, 9, 3), 0.5), "must be from 0 to 255, not from 0.5 to 0.5"),
            (np.eye(9), "must be from 0 to 255, not from 0.0 to 1.0"),
            (np.eye(9, dtype=bool), "must be from 0 to 255, not from False to True"),
            (np.full((9, 9, 3), -3), "must be from 0 to 255"),
            (np.full((9, 9, 3), 300.0), "must be from 0 to 255"),
            (np.full((9, 9, 3), np.nan), "must be from 0 to 255"),
            (np.zeros((3, 9, 9), "uint8"), r"must be \(height, width\) or \(height, width, 3\), not \(3, 9, 9\)"),
        ],
    )
    def test_pixels_of_another_range_or_order(self, pixels, message):
        with pytest.raises(ValueError, match=message):
            self.crop(pixels)

    @pytest.mark.parametrize(
        "images, sizes, message",
        [
            ([b"none"], {}, "Received at 0: bytes"),
            (b"", {"crop_px": 257, "image_px": 256}, "`crop_px` must be from 1"),
        ],
    )
    def test_unreadable_image_and_impossible_crop(self, images, sizes, message):
        with pytest.raises(ValueError, match=message):
            alexnet_tf.preprocess(images, **sizes)


class TestDecodePredictions:
    def test_names_of_the_most_probable_classes(self):
        probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])
        assert alexnet_tf.decode_predictions(probabilities, ("a", "b", "c"), top=2) == [
            [("b", 0.6), ("c", 0.3)],
            [("a", 0.5), ("b", 0.25)],
        ]

    def test_imagenets_classes_are_the_default(self):
        probabilities = np.eye(1000, dtype="float32")[[0, 134]]
        decoded = alexnet_tf.decode_predictions(probabilities, top=1)
        assert decoded == [[("n01440764", "tench, Tinca tinca", 1)], [("n02012849", "crane", 1)]]
        (class_id, name, probability), *others = alexnet_tf.decode_predictions(probabilities, 3)[0]
        assert (class_id, name, probability, len(others)) == ("n01440764", "tench, Tinca tinca", 1, 2)

    def test_network_and_its_clone_know_their_classes(self, untrained):
        model, description = untrained
        probabilities = np.eye(10, dtype="float32")[[3]]
        for network in (model, keras.models.clone_model(model)):
            assert alexnet_tf.decode_predictions(probabilities, network, top=1) == [[(description.class_names[3], 1)]]
        with pytest.raises(ValueError, match="to know its classes"):
            alexnet_tf.decode_predictions(probabilities, alexnet_tf.build_alexnet("testing", 10))

    @pytest.mark.parametrize("wrong, message", [(np.zeros((1, 3)), r"must be \(n, 2\)"), ([[0.5, np.nan]], "finite")])
    def test_wrong_predictions(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            alexnet_tf.decode_predictions(wrong, ("a", "b"))


class TestMakeDataset:
    def test_training_images_have_the_readers_noise(self, data_dir):
        images, labels = next(iter(alexnet_tf.make_dataset(data_dir, batch_size=8, crop_px=56, seed=4)))
        inputs, expected_labels = next(iter(reader.make_training_dataset(data_dir, 8, 56, seed=4)))
        offsets = np.asarray(inputs["color_offset"])
        assert np.abs(offsets).max() > 0
        np.testing.assert_array_equal(images, np.float32(inputs["image"]) + offsets[:, None, None])
        np.testing.assert_array_equal(labels, expected_labels)

    def test_validation_images_and_ten_views(self, data_dir):
        assert sum(len(labels) for _, labels in alexnet_tf.make_dataset(data_dir, "validation", 300, 56)) == 1000
        for split in ("train", "validation"):
            views, _ = next(iter(alexnet_tf.make_dataset(data_dir, split, 5, 56, views=10)))
            assert views.shape == (5, 10, 56, 56, 3)


def _run_notebook(name, folder):
    """Runs a notebook in a folder; returns what it printed."""
    notebook = nbformat.read(ROOT / "docs" / name, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "\n".join(output.get("text", "") for cell in cells for output in cell.outputs)


def _percentages(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return [float(number) for number in re.findall(r"([\d.]+)%", line)]


class TestLesson:
    @pytest.mark.parametrize("name", ["tutorial.ipynb", "tutorial_solutions.ipynb"])
    def test_names_used_from_the_package_exist(self, name):
        cells = nbformat.read(ROOT / "docs" / name, as_version=4).cells
        lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
        tree = ast.parse("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))
        taken = []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("alexnet_tf"):
                taken += [(node.module, each.name) for each in node.names]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "alexnet_tf":
                taken.append(("alexnet_tf", node.attr))
        assert len(set(taken)) > 3
        for module, each in taken:
            there = hasattr(importlib.import_module(module), each) or importlib.util.find_spec(f"{module}.{each}")
            assert there, f"{module}.{each}"

    @pytest.mark.slow
    @pytest.mark.long
    def test_tutorial_runs(self, published_features, tmp_path):
        printed = _run_notebook("tutorial.ipynb", tmp_path)
        center, ten = _percentages(printed, "top-1 error")
        assert center < 45 and ten < 45  # chance is 90
        both = _percentages(printed, "error with both columns")[0]
        halves = [_percentages(printed, f"error with column {number} alone")[0] for number in (1, 2)]
        assert both < min(halves)
        assert "inputs of this notebook: output / input from 0.59" in printed
        assert _percentages(printed, "nearest neighbor of the same class")[0] > 50
        assert (tmp_path / "data" / "dataset.json").exists()
        assert "Warning" not in printed

    @pytest.mark.slow
    @pytest.mark.long
    def test_solutions_run(self, tmp_path):
        printed = _run_notebook("tutorial_solutions.ipynb", tmp_path)
        assert "2178 2048" in printed
        assert "parameters: 3.8% of 60,965,224 in the convolutions" in printed
        assert float(re.search(r"largest difference (\S+),", printed)[1]) < 1e-3
        assert _percentages(printed, "the most probable class is the same")[0] > 75
        assert "one_column" in printed
