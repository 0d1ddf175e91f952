"""alexnet-figures draws every figure, and resumes the comparison of ReLU with tanh."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from programs import call, image_files, run_well

from alexnet_tf.evaluation import panels
from alexnet_tf.figures import activations, kernels, occlusion, optimized_inputs, strongest_images
from alexnet_tf.model import load_model
from alexnet_tf.notebook import preprocess
from alexnet_tf.tfrecords import crops, reader, schema
from alexnet_tf.training import initial_kernels, relu_vs_tanh


class TestReadImages:
    def test_images_in_any_order(self, data_dir):
        description = schema.load_description(data_dir)
        numbers = [999, 0, 250, 0]  # across shards, one twice
        whole = np.concatenate([x for x, _ in reader.make_evaluation_dataset(data_dir, 250, description.image_px)])
        found = reader.read_images(data_dir, description, "validation", numbers)
        np.testing.assert_array_equal(found, whole[numbers])


class TestReluAgainstTanh:
    @pytest.mark.slow
    @pytest.mark.long
    def test_relu_is_faster_and_finished_runs_are_kept(self, tmp_path):
        data_dir, output_dir = tmp_path / "data", tmp_path / "figures"
        run_well("tfrecords.build", "--source=fashion_mnist", "--image_px=32", f"--data_dir={data_dir}")
        flags = ["--figure=relu_against_tanh", f"--data_dir={data_dir}", f"--output_dir={output_dir}"]
        flags += ["--goal_error=0.3", "--learning_rates=0.0005,0.002", "--max_epochs=8"]
        first = call("paper_figures", *flags)
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
        again = call("paper_figures", *flags, "--overwrite")
        assert "Epoch" in first and "Epoch" not in again
        assert [line for line in first.splitlines() if line.startswith("four_layer")][-2:] == again.splitlines()[1:3]
        with pytest.raises(ValueError, match="has other settings"):
            call("paper_figures", *flags, "--overwrite", "--goal_error=0.2")

    def test_flags_reach_the_comparison(self, data_dir, tmp_path, monkeypatch):
        received = []

        def compare(*arguments):
            received.append(arguments)
            return {"four_layer": (0.2, [0.5, 0.2]), "four_layer_tanh": (0.1, [0.6, 0.5, 0.4])}

        monkeypatch.setattr(relu_vs_tanh, "compare", compare)
        flags = ["--figure=relu_against_tanh", f"--data_dir={data_dir}", f"--output_dir={tmp_path}"]
        output = call("paper_figures", *flags, "--goal_error=0.3", "--learning_rates=0.1,0.2", "--max_epochs=8")
        assert received == [(str(data_dir), tmp_path, [0.1, 0.2], 0.3, 8)]
        assert "four_layer, learning rate 0.2: 1.7 epochs to 30% training error" in output
        assert "four_layer_tanh, learning rate 0.1: not in 3 epochs to 30% training error" in output


class TestProgram:
    @pytest.mark.slow
    def test_all_pictures_of_a_model(self, untrained_dir, data_dir, tmp_path, monkeypatch):
        optimize, chosen = optimized_inputs.optimize_inputs, []

        def optimize_in_few_steps(model, layer, feature_maps):
            chosen.append((layer, len(feature_maps)))
            return optimize(model, layer, feature_maps, steps=2)

        monkeypatch.setattr(optimized_inputs, "optimize_inputs", optimize_in_few_steps)
        shutil.copytree(untrained_dir, tmp_path / "run")
        model = load_model(tmp_path / "run")
        initial = [kernel + 0.1 for kernel in kernels.first_kernels(model)]
        initial_kernels.save_initial_kernels(tmp_path / "run", initial)
        flags = [f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}", f"--output_dir={tmp_path}"]
        output = call("paper_figures", *flags, "--layers=conv1,fc8", "--maps=3", "--images=4", "--split=validation")
        assert chosen == [("conv1", 3), ("fc8", 3)]
        names = ["architecture", "conv1_kernels", "strongest_conv1", "strongest_fc8", "panel", "neighbours"]
        names += ["activations", "occlusion", "optimized"]
        assert all((tmp_path / f"{name}.png").exists() and f"{name}.png" in output for name in names)
        class_names, data = model.description.class_names, (data_dir, schema.load_description(data_dir))
        images = crops.center_crop(reader.read_images(*data, "validation", [0, 500, 999]), 56)
        expected = {
            "activations": activations.draw_activations(model, images[0], class_names),
            "conv1_kernels": kernels.draw_kernels(kernels.first_kernels(model), initial),
            "panel": panels.draw_predictions(model, *data),
        }
        strongest = strongest_images.draw_strongest_images(model, ["fc8", "conv1"], *data, "validation", 3, 4)
        expected |= {f"strongest_{layer}": picture for layer, picture in strongest.items()}
        for name, pixels in expected.items():
            with Image.open(tmp_path / f"{name}.png") as picture:
                assert np.mean(np.asarray(picture) != pixels) < 0.001, name  # but for the last digit of a number
        assert "conv1" in (tmp_path / "architecture.svg").read_text(encoding="utf-8")

    def test_every_given_image_is_drawn(self, untrained_dir, tmp_path, monkeypatch):
        received = []
        monkeypatch.setattr(
            occlusion,
            "draw_occlusion",
            lambda _, images, names: received.extend(images) or np.zeros((8, 8, 3), "uint8"),
        )
        files = image_files(tmp_path, 5)
        flags = ["--figure=occlusion", f"--model={untrained_dir}", f"--output_dir={tmp_path / 'out'}"]
        call("paper_figures", *flags, *(f"--image={path}" for path in files))
        expected = preprocess([str(path) for path in files], load_model(untrained_dir))
        np.testing.assert_array_equal(received, expected)

    @pytest.mark.parametrize(
        "flags, message",
        [
            ([], "`model` is required"),
            (["--figure=occlusion", "--model=run", "--data_dir="], "`data_dir` is required for strongest,"),
            (["--figure=relu_against_tanh", "--learning_rates=a"], "`learning_rates`"),
            (["--model=run", "--layers=conv1,fc8,conv1"], "`layers` must not name anything twice"),
        ],
    )
    def test_wrong_flags(self, flags, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            call("paper_figures", "--data_dir=data", f"--output_dir={tmp_path}", *flags)
