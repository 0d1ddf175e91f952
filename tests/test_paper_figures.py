"""alexnet-figures: every figure is drawn, and the comparison of ReLU with tanh resumes."""

import json

import numpy as np
import pytest
from PIL import Image
from programs import run, run_well

from alexnet_tf.evaluation import panels
from alexnet_tf.figures import activations, kernels, occlusion, top_activations
from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import crops, reader, schema
from alexnet_tf.training import initial_kernels, relu_vs_tanh


class TestReadImages:
    def test_images_are_those_of_the_evaluation_data_set_in_any_order(self, data_dir):
        description = schema.load_description(data_dir)
        numbers = [999, 0, 250, 0]  # across shards, one twice
        whole = np.concatenate([x for x, _ in reader.make_evaluation_dataset(data_dir, 250, description.image_px)])
        found = reader.read_images(data_dir, description, "validation", numbers)
        np.testing.assert_array_equal(found, whole[numbers])


class TestReluAgainstTanh:
    @pytest.mark.slow
    @pytest.mark.long
    def test_relu_is_faster_and_the_same_call_trains_nothing_again(self, tmp_path):
        data_dir, output_dir = tmp_path / "data", tmp_path / "figures"
        run_well("tfrecords.build", "--source=fashion_mnist", "--image_px=32", f"--data_dir={data_dir}")
        flags = ["--figure=relu_against_tanh", f"--data_dir={data_dir}", f"--output_dir={output_dir}"]
        flags += ["--goal_error=0.3", "--learning_rates=0.0005,0.002", "--max_epochs=8"]
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
        assert "has other settings" in refused.stderr


class TestProgram:
    @pytest.mark.slow
    def test_all_pictures_of_a_model_are_drawn(self, run_dir, data_dir, tmp_path):
        flags = [f"--model={run_dir}", f"--data_dir={data_dir}", f"--output_dir={tmp_path}"]
        output = run_well("paper_figures", *flags, "--layers=conv1,fc8", "--maps=3", "--images=4", "--split=validation")
        names = ["architecture", "conv1_kernels", "strongest_conv1", "strongest_fc8", "panel", "neighbours"]
        names += ["activations", "occlusion", "optimized_conv1", "optimized_fc8"]
        assert all((tmp_path / f"{name}.png").exists() and f"{name}.png" in output for name in names)
        model, description = load_model(run_dir)
        class_names = description.class_names
        images = crops.center_crop(
            reader.read_images(data_dir, schema.load_description(data_dir), "validation", [0, 500, 999]), 56
        )
        expected = {
            "activations": activations.draw_activations(model, images[0], class_names),
            "occlusion": occlusion.draw_occlusion(model, images, class_names),
            "conv1_kernels": kernels.draw_kernels(
                model.get_layer("conv1").kernels, initial_kernels.load_initial_kernels(run_dir)
            ),
            "panel": panels.draw_predictions(model, data_dir, description),
            "neighbours": panels.draw_nearest_training_images(model, data_dir, description),
            "strongest_fc8": top_activations.draw_top_activations(
                model, "fc8", data_dir, description, "validation", 3, 4
            ),
        }
        for name, pixels in expected.items():
            with Image.open(tmp_path / f"{name}.png") as picture:
                assert np.mean(np.asarray(picture) != pixels) < 0.001, name  # but for the last digit of a number
        assert "conv1" in (tmp_path / "architecture.svg").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        "flags, message",
        [
            ([], "`model` must be given"),
            (["--figure=occlusion", "--model=run", "--data_dir="], "`data_dir` must be given for strongest,"),
            (["--figure=relu_against_tanh", "--learning_rates=a"], "`learning_rates`"),
            (["--figure=relu_against_tanh", "--most_epochs=0"], "--max_epochs=0: 0 is not a positive integer"),
        ],
    )
    def test_wrong_flags_are_refused(self, flags, message, tmp_path):
        result = run("paper_figures", "--data_dir=data", f"--output_dir={tmp_path}", *flags)
        assert result.returncode == 2
        assert message in result.stderr
