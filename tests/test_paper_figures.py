"""alexnet-figures: each picture shows what the network holds and does."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import run, run_well

from alexnet_tf import paper_figures
from alexnet_tf.model import build_alexnet, load_model
from alexnet_tf.tfrecords import reader, schema
from alexnet_tf.visualization import relu_vs_tanh, top_activations


class TestReceptiveField:
    # Known from the literature, for the paper's kernels, strides and pools.
    @pytest.mark.parametrize(
        "layer, size, step",
        [
            ("conv1", 11, 4),
            ("norm1", 11, 4),
            ("pool1", 19, 8),
            ("conv2", 51, 8),
            ("conv3", 99, 16),
            ("conv4", 131, 16),
            ("relu5", 163, 16),
            ("pool5", 195, 32),
            ("fc6", 224, 1),
        ],
    )
    def test_papers_layers_see_so_many_pixels(self, layer, size, step):
        model = build_alexnet("paper", 10, initializer="zeros")
        assert top_activations.receptive_field(model, layer)[:2] == (size, step)

    @pytest.mark.parametrize("variant", ["testing", "four_layer"])
    @pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "pool2", "conv3"])
    def test_unit_in_the_middle_depends_on_these_pixels_and_no_others(self, variant, layer):
        # No LRN and no max, so that each weight counts: a sum in place of each pooling.
        model = build_alexnet(variant, 10, initializer="ones", input_scale=1e-3)
        pixels = tf.ones((1, *model.input_shape[1:]))
        row = 2
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            x = pixels
            for each in model.layers[1:]:
                if isinstance(each, keras.layers.MaxPooling2D):
                    x = keras.ops.average_pool(x, each.pool_size, each.strides, each.padding)
                elif hasattr(each, "kernels"):
                    x = each(x)
                if each.name == layer:
                    break
            unit = x[0, row, row, 0]
        size, step, start = top_activations.receptive_field(model, layer)
        first = start + row * step
        seen = np.flatnonzero(np.abs(tape.gradient(unit, pixels)[0].numpy()).sum(axis=(1, 2)))
        assert seen[0] == max(first, 0)
        assert seen[-1] == min(first + size, pixels.shape[1]) - 1

    def test_unknown_layer_is_refused_with_the_names_there_are(self):
        model = build_alexnet("testing", 10, initializer="zeros")
        with pytest.raises(ValueError, match=r"`layer` must be one of .*conv1.* Received: layer='conv9'"):
            top_activations.receptive_field(model, "conv9")


class TestStrongest:
    @pytest.mark.parametrize("layer", ["conv3", "relu7"])
    def test_equals_a_search_through_all_outputs(self, layer, run_dir, data_dir):
        model, description = load_model(run_dir)
        maps = [0, 5, 23]
        found = top_activations.strongest(model, layer, maps, data_dir, description, "validation", 4)
        images = np.concatenate([x for x, _ in reader.make_evaluation_dataset(data_dir, 250, model.input_shape[1])])
        outputs = keras.Model(model.input, model.get_layer(layer).output).predict(images, verbose=0)
        outputs = outputs[..., maps]
        for index in range(len(maps)):
            peaks = outputs[..., index].reshape(len(images), -1).max(axis=1)
            np.testing.assert_allclose(found[1][index], np.sort(peaks)[::-1][:4], rtol=1e-5)
            for number, value, row, column in zip(*(array[index] for array in found), strict=True):
                place = (number, row, column) if outputs.ndim == 4 else (number,)
                np.testing.assert_allclose(outputs[(*place, index)], value, rtol=1e-5)

    def test_seen_pixels_are_cut_out_and_grey_past_the_edge(self):
        image = np.random.default_rng(0).integers(0, 100, (20, 20, 3)).astype("uint8")
        np.testing.assert_array_equal(top_activations.seen_pixels(image, (5, 2, 0), 3, 4), image[6:11, 8:13])
        corner = top_activations.seen_pixels(image, (5, 2, -2), 0, 9)
        np.testing.assert_array_equal(corner[:2], 128)
        np.testing.assert_array_equal(corner[2:, :4], image[:3, 16:])
        np.testing.assert_array_equal(corner[:, 4], 128)

    @pytest.mark.parametrize("maps, count, message", [([24], 4, "`maps`"), ([0], 0, "`count`"), ([0], 1001, "`count`")])
    def test_what_can_not_be_is_refused(self, maps, count, message, run_dir, data_dir):
        model, description = load_model(run_dir)
        with pytest.raises(ValueError, match=message):
            top_activations.strongest(model, "conv3", maps, data_dir, description, "validation", count)


class TestReadImages:
    def test_images_are_those_of_the_evaluation_data_set_in_any_order(self, data_dir):
        description = schema.load_description(data_dir)
        numbers = [999, 0, 250, 0]  # across shards, one twice
        whole = np.concatenate([x for x, _ in reader.make_evaluation_dataset(data_dir, 250, description.image_px)])
        found = reader.read_images(data_dir, description, "validation", numbers)
        np.testing.assert_array_equal(found, whole[numbers])


class TestReluAgainstTanh:
    def test_epochs_are_counted_on_the_line_between_two(self):
        assert relu_vs_tanh.epochs_to([0.6, 0.4, 0.2], 0.25) == pytest.approx(2.75)
        assert relu_vs_tanh.epochs_to([0.2], 0.6) == pytest.approx(0.5)
        assert relu_vs_tanh.epochs_to([0.6, 0.4], 0.25) is None

    @pytest.mark.slow
    @pytest.mark.long
    def test_relu_is_faster_and_the_same_call_trains_nothing_again(self, tmp_path):
        data_dir, output_dir = tmp_path / "data", tmp_path / "figures"
        run_well("tfrecords.build", "--source=fashion_mnist", "--image_px=32", f"--data_dir={data_dir}")
        flags = ["--figure=relu_against_tanh", f"--data_dir={data_dir}", f"--output_dir={output_dir}"]
        flags += ["--goal_error=0.3", "--learning_rates=0.0005,0.002", "--most_epochs=8"]
        first = run_well("paper_figures", *flags)
        trainings = json.loads((output_dir / "relu_against_tanh.json").read_text())["trainings"]
        assert [(each["variant"], each["learning_rate"]) for each in trainings] == [
            (variant, rate) for variant in relu_vs_tanh.VARIANTS for rate in (0.0005, 0.002)
        ]
        fewest = [
            min(len(each["training_errors"]) for each in trainings if each["variant"] == variant)
            for variant in relu_vs_tanh.VARIANTS
        ]
        assert fewest[0] < fewest[1]
        assert all(len(each["training_errors"]) <= 8 for each in trainings)
        again = run_well("paper_figures", *flags, "--overwrite")
        assert "Epoch" in first and "Epoch" not in again
        assert [line for line in first.splitlines() if line.startswith("four_layer")][-2:] == again.splitlines()[:2]
        refused = run("paper_figures", *flags, "--overwrite", "--goal_error=0.2")
        assert refused.returncode != 0
        assert "is of other settings" in refused.stderr


class TestProgram:
    @pytest.mark.slow
    def test_all_pictures_of_a_run_are_drawn(self, run_dir, data_dir, tmp_path):
        flags = [f"--model={run_dir}", f"--data_dir={data_dir}", f"--output_dir={tmp_path}"]
        output = run_well("paper_figures", *flags, "--layers=conv1,fc8", "--maps=3", "--images=4", "--split=validation")
        names = ["architecture", "conv1_kernels", "strongest_conv1", "strongest_fc8", "panel", "neighbours"]
        for name in names:
            with Image.open(tmp_path / f"{name}.png") as picture:
                assert np.asarray(picture).std() > 10
            assert f"{name}.png" in output
        assert "conv1" in (tmp_path / "architecture.svg").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        "flags, message",
        [([], "`model` must be given"), (["--figure=relu_against_tanh", "--learning_rates=a"], "`learning_rates`")],
    )
    def test_flags_that_can_not_be_are_refused(self, flags, message, data_dir, tmp_path):
        result = run("paper_figures", f"--data_dir={data_dir}", f"--output_dir={tmp_path}", *flags)
        assert result.returncode != 0
        assert message in result.stderr

    def test_panel_shows_the_true_class_of_each_image(self, run_dir, data_dir, monkeypatch):
        model, description = load_model(run_dir)
        drawn = {}
        monkeypatch.setattr(paper_figures.plots, "prediction_panel", lambda *args: drawn.update(args=args))
        paper_figures.draw_panel(model, data_dir, description, count=3)
        images, answers, titles = drawn["args"]
        labels = reader.read_labels(data_dir, description, "validation")[[0, 500, 999]]  # 499.5 rounds to even
        assert titles == [description.class_names[label] for label in labels]
        assert images.shape[0] == len(answers) == 3
        assert all(np.all(np.diff(probabilities) <= 0) for _, probabilities in answers)
