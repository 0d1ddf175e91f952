"""What `import alexnet_tf` offers, and the tutorial."""

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys
import types

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
    def test_every_name_is_there(self):
        for name in alexnet_tf.__all__:
            value = getattr(alexnet_tf, name)
            assert value is alexnet_tf.VARIANTS or value.__module__.startswith("alexnet_tf."), name
        assert set(alexnet_tf.__all__) <= set(dir(alexnet_tf))
        functions = {"build_alexnet", "with_color_offset", "load_model", "make_dataset", "preprocess"}
        layers = {"ColumnDense", "ColumnWise", "GroupedConv2D", "LocalResponseNormalization", "MeanImage"}
        layers |= {"PaperDropout", "ReplicaDropout", "WithinMapNormalization"}
        others = {"decode_predictions", "PaperMomentum", "VARIANTS"}
        assert functions | layers | others <= set(alexnet_tf.__all__)  # no name that scripts use goes away

    def test_lists_name_what_can_be_built_and_loaded(self):
        assert (
            alexnet_tf.list_variants()[:2] == ["paper", "original"] and "one_weird_trick" in alexnet_tf.list_variants()
        )
        assert alexnet_tf.list_weights()[:3] == ["torchvision", "caffe", "caffenet"]

    def test_name_that_is_not_there_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="has no attribute 'build_vgg'"):
            _ = alexnet_tf.build_vgg

    def test_import_alone_brings_no_tensorflow(self):
        code = "import sys, alexnet_tf; alexnet_tf.VARIANTS; sys.exit('tensorflow' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestPreprocess:
    def test_paths_bytes_and_arrays_of_any_size_give_the_same_crop(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3)).astype("uint8")
        path = tmp_path / "image.png"
        Image.fromarray(pixels).save(path)
        crops = alexnet_tf.preprocess([path, str(path), path.read_bytes(), pixels], crop_px=28, image_px=32)
        assert crops.shape == (4, 28, 28, 3) and crops.dtype == np.uint8
        assert all(np.array_equal(crop, crops[0]) for crop in crops)
        square = Image.fromarray(pixels[15:75]).resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(crops[0], np.asarray(square)[2:30, 2:30])

    def test_turned_photograph_becomes_upright_unless_asked_not_to(self):
        upright = photo(64, 64)
        turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
        np.testing.assert_array_equal(
            alexnet_tf.preprocess(turned, crop_px=28, image_px=32),
            alexnet_tf.preprocess(np.asarray(upright), crop_px=28, image_px=32),
        )
        stored = alexnet_tf.preprocess(turned, crop_px=28, image_px=32, exif_orientation=False)
        np.testing.assert_array_equal(stored, alexnet_tf.preprocess(np.rot90(upright), crop_px=28, image_px=32))

    def test_single_image_and_batch_are_taken(self):
        pixels = np.zeros((2, 50, 50, 3), "uint8")
        assert alexnet_tf.preprocess(pixels).shape == (2, 224, 224, 3)
        assert alexnet_tf.preprocess(pixels[0]).shape == (1, 224, 224, 3)

    def test_images_of_pillow_floats_and_tensors_give_the_same_crop(self):
        pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3)).astype("uint8")
        image = Image.fromarray(pixels)
        expected = alexnet_tf.preprocess(pixels, crop_px=28, image_px=32)[0]
        single = [image, np.float32(pixels), np.int64(pixels), tf.constant(pixels), torch.tensor(pixels)]
        opaque = np.dstack([pixels, np.full((90, 60, 1), 255)])
        for given in (*single, single, tf.constant(np.float32(pixels[None])), opaque):
            crops = alexnet_tf.preprocess(given, crop_px=28, image_px=32)
            assert all(np.array_equal(crop, expected) for crop in crops), type(given)
        turned = image.transpose(Image.Transpose.ROTATE_90)
        turned.getexif()[0x0112] = 6  # a viewer turns it back, to the right
        np.testing.assert_array_equal(alexnet_tf.preprocess(turned, crop_px=28, image_px=32)[0], expected)
        palette = image.quantize(8)
        np.testing.assert_array_equal(
            alexnet_tf.preprocess(palette, crop_px=28, image_px=32),
            alexnet_tf.preprocess(np.asarray(palette.convert("RGB")), crop_px=28, image_px=32),
        )

    def test_crop_is_the_models_input(self, untrained):
        pixels = np.zeros((90, 60, 3), "uint8")
        assert alexnet_tf.preprocess(pixels, model=untrained[0], image_px=64).shape == (1, 56, 56, 3)
        caffe = types.SimpleNamespace(input_shape=(None, 227, 227, 3))
        assert alexnet_tf.preprocess(pixels, model=caffe).shape == (1, 227, 227, 3)

    def test_network_that_knows_its_data_gives_size_orientation_and_resizing(self):
        pixels = np.asarray(photo(90, 60))
        settings = {"exif_orientation": False, "resize": "warp"}
        data = schema.DatasetDescription(("a", "b"), 64, False, "png", {}, settings)
        model = types.SimpleNamespace(input_shape=(None, 56, 56, 3), description=data)
        expected = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))[4:60, 4:60]
        turned = encoded(Image.fromarray(pixels), "PNG", exif=exif(6))
        np.testing.assert_array_equal(alexnet_tf.preprocess(turned, model)[0], expected)
        cropped = alexnet_tf.preprocess(pixels, model, crop_px=28, image_px=32, resize="crop")
        np.testing.assert_array_equal(cropped, alexnet_tf.preprocess(pixels, crop_px=28, image_px=32))

    @pytest.mark.parametrize(
        "pixels, message",
        [
            (np.full((9, 9, 3), 0.5), "must be from 0 to 255, not from 0.5 to 0.5"),
            (np.eye(9, dtype="uint8"), "must be from 0 to 255, not from 0 to 1"),
            (np.full((9, 9, 3), -3), "must be from 0 to 255"),
            (np.full((9, 9, 3), 300.0), "must be from 0 to 255"),
            (np.full((9, 9, 3), np.nan), "must be from 0 to 255"),
            (np.zeros((3, 9, 9), "uint8"), r"must be \(rows, columns\) or \(rows, columns, 3\), not \(3, 9, 9\)"),
        ],
    )
    def test_pixels_of_another_range_or_order_are_refused(self, pixels, message):
        with pytest.raises(ValueError, match=message):
            alexnet_tf.preprocess(pixels, crop_px=28, image_px=32)

    @pytest.mark.parametrize(
        "images, crop_px, message", [([b"none"], 224, "Received at 0: bytes"), (b"", 257, "`crop_px` must be from 1")]
    )
    def test_what_is_no_image_or_no_crop_is_refused(self, images, crop_px, message):
        with pytest.raises(ValueError, match=message):
            alexnet_tf.preprocess(images, crop_px=crop_px)


class TestDecodePredictions:
    def test_most_probable_come_first_with_their_names(self):
        probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])
        assert alexnet_tf.decode_predictions(probabilities, ("a", "b", "c"), top=2) == [
            [("b", 0.6), ("c", 0.3)],
            [("a", 0.5), ("b", 0.25)],
        ]

    def test_thousand_probabilities_are_of_imagenets_classes(self):
        probabilities = np.eye(1000, dtype="float32")[[0, 134]]
        best = [of_image[0] for of_image in alexnet_tf.decode_predictions(probabilities, top=1)]
        assert best == [("n01440764 tench, Tinca tinca", 1), ("n02012849 crane", 1)]

    def test_network_knows_its_classes(self, untrained):
        model, description = untrained
        probabilities = np.eye(10, dtype="float32")[[3]]
        assert alexnet_tf.decode_predictions(probabilities, model, top=1) == [[(description.class_names[3], 1)]]
        with pytest.raises(ValueError, match="to know its classes; or give their names"):
            alexnet_tf.decode_predictions(probabilities, alexnet_tf.build_alexnet("testing", 10))

    def test_other_number_of_names_is_refused(self):
        with pytest.raises(ValueError, match=r"must be \(n, 2\)"):
            alexnet_tf.decode_predictions(np.zeros((1, 3)), ("a", "b"))


class TestMakeDataset:
    def test_training_images_are_the_readers_with_their_noise(self, data_dir):
        images, labels = next(iter(alexnet_tf.make_dataset(data_dir, batch_size=8, crop_px=56, seed=4)))
        inputs, expected_labels = next(iter(reader.make_training_dataset(data_dir, 8, 56, seed=4)))
        offsets = np.asarray(inputs["color_offset"])
        assert np.abs(offsets).max() > 0
        np.testing.assert_array_equal(images, np.float32(inputs["image"]) + offsets[:, None, None])
        np.testing.assert_array_equal(labels, expected_labels)

    def test_validation_images_come_once_and_ten_views_beside_one_another(self, data_dir):
        assert sum(len(labels) for _, labels in alexnet_tf.make_dataset(data_dir, "validation", 300, 56)) == 1000
        views, _ = next(iter(alexnet_tf.make_dataset(data_dir, "validation", 5, 56, views=10)))
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


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="a Bazel sandbox holds no docs")
class TestLesson:
    @pytest.mark.parametrize("name", ["tutorial.ipynb", "tutorial_solutions.ipynb"])
    def test_all_names_that_it_takes_from_the_package_are_there(self, name):
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
    def test_runs_from_top_to_bottom_and_says_what_it_found(self, tmp_path):
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
    def test_solutions_run_too(self, tmp_path):
        printed = _run_notebook("tutorial_solutions.ipynb", tmp_path)
        assert "2178 2048" in printed
        assert "parameters: 3.8% of 60,965,224 in the convolutions" in printed
        assert float(re.search(r"largest difference (\S+),", printed)[1]) < 1e-3
        assert _percentages(printed, "the most probable class is the same")[0] > 75
        assert "one_column" in printed
