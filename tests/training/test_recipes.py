"""alexnet-train with schedules other than the plain one, and with every recipe."""

import json
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import programs
import pytest
from programs import ENVIRONMENT, program, run, run_well

from alexnet_tf import train, train_flags
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.model import load_model
from alexnet_tf.training import experiment, schedules

RECIPES = pathlib.Path(__file__).parents[2] / "alexnet_tf" / "recipes"


class TestSchedules:
    # The schedule's state, the multipliers and the smoothed loss must all come back.
    PLATEAU = (
        "--epochs=4",
        "--schedule=plateau",
        "--plateau_patience=1",
        "--learning_rate=0.1",
        "--bias_rate=2",
        "--layer_rates=conv1=0.5,fc8/bias=0",
        "--label_smoothing=0.1",
        "--images_per_crop=5",
        "--color_noise_epochs=1",
        "--checkpoint_every_steps=17",
    )

    @pytest.mark.slow
    @pytest.mark.long
    def test_killed_plateau_with_layer_rates_resumes_to_exactly_the_same_weights(self, data_dir, tmp_path):
        run_well("train", *programs.train_flags(data_dir, tmp_path / "uninterrupted", *self.PLATEAU))
        flags = programs.train_flags(data_dir, tmp_path / "killed", *self.PLATEAU)
        process = subprocess.Popen(
            program("train", *flags), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        checkpoints = tmp_path / "killed" / "checkpoints"
        while max((int(path.name) for path in checkpoints.glob("0*")), default=0) < 130:  # the third epoch
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run_well("train", *flags)
        expected_model, resumed = (load_model(tmp_path / name)[0] for name in ("uninterrupted", "killed"))
        for expected, weight in zip(expected_model.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        states = []
        for name in ("uninterrupted", "killed"):
            folder = tmp_path / name / "checkpoints" / "00000240"
            states.append(json.loads((folder / "progress.json").read_text())["schedule"])
            with np.load(folder / "training_state.npz") as arrays:
                (multipliers,) = [arrays[n] for n in arrays.files if n.endswith("rate_multipliers")]
            assert sorted(set(multipliers.tolist())) == [0, 0.5, 1, 2]
        assert states[0] == states[1]
        assert np.all(expected_model.get_layer("fc8").biases[0].numpy() == 0)  # frozen at its initial value

    @pytest.mark.slow
    @pytest.mark.long
    def test_rates_may_change_when_a_run_is_resumed(self, data_dir, run_dir, tmp_path):
        shutil.copytree(run_dir, tmp_path / "run")
        before, _ = load_model(run_dir)
        flags = programs.train_flags(data_dir, tmp_path / "run", "--epochs=3", "--layer_rates=conv1=0")
        assert "epochs was 2 and is now 3" in run("train", *flags).stderr  # a cosine's rate is 0 after its two epochs
        run_well("train", *flags, "--allow_changed")
        after, _ = load_model(tmp_path / "run")
        for name, same in (("conv1", True), ("conv2", False)):
            pairs = zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs) == same, name

    @pytest.mark.slow
    def test_original_schedule_trains_and_sets_its_own_rates(self, data_dir, tmp_path):
        flags = programs.train_flags(
            data_dir, tmp_path / "run", "--epochs=1", "--schedule=original", "--learning_rate=0.01"
        )
        run_well("train", *flags)
        with np.load(tmp_path / "run" / "checkpoints" / "00000060" / "training_state.npz") as arrays:
            (multipliers,) = [arrays[n] for n in arrays.files if n.endswith("rate_multipliers")]
        assert sorted(set(multipliers.tolist())) == [1, 2]
        result = run("train", *flags, "--bias_rate=2")
        assert "can't be given with schedule=original" in result.stderr

    @pytest.mark.parametrize(
        "flag, message",
        [
            ("--layer_rates=conv9=1", "a layer that learns (conv1, "),
            ("--layer_rates=conv1", "must be a list such as conv1=0.1,fc8=2. Received: 'conv1'"),
            ("--freeze=norm1", "`freeze` must name layers that learn: conv1, "),
            ("--new_head", "`new_head` needs `init_from`"),
            ("--init_from=nowhere.keras", "No model found: nowhere.keras"),
            ("--label_smoothing=1", "label_smoothing=1.0"),
            ("--profile_steps=12,10", "the first and the last step, counted from 1, such as 10,12. Received: 12,10"),
        ],
    )
    @pytest.mark.slow
    def test_invalid_flags_are_refused(self, flag, message, data_dir, tmp_path):
        result = run("train", *programs.train_flags(data_dir, tmp_path / "run", flag))
        assert result.returncode != 0
        assert message in result.stderr


# The flags of each recipe, and its learning rates by step, by the number of images: ImageNet's or its own data's.
PAPER = {"momentum": 0.9, "weight_decay": 0.0005, "learning_rate": 0.01, "epochs": 90}
UNIT_VARIANCE = {"variant": "paper", "initializer": "he_normal", "input_scale": 0.0125, "schedule": "cosine"}
EVERY_RECIPE = {
    "paper": (
        PAPER
        | {"variant": "paper", "batch_size": 128, "schedule": "plateau", "plateau_patience": 5}
        | {"initializer": "variant", "input_scale": 1, "color_noise": "standard_deviation"},
        {0: 0.01, 900_000: 0.01},
    ),
    "original": (
        PAPER
        | {"variant": "original", "batch_size": 128, "schedule": "original"}
        | {"images_per_crop": 32, "last_crop_offset": True, "color_noise": "standard_deviation"},
        {0: 0.01, 900_000: 0.01},
    ),
    "caffe": (
        PAPER
        | {"variant": "caffe", "batch_size": 256, "schedule": "step", "step_epochs": 20, "bias_rate": 2}
        | {"last_crop_offset": True, "color_noise": "none"},
        {0: 0.01, 100_079: 0.01, 100_080: 0.001, 200_160: 1e-4, 400_320: 1e-6},
    ),
    "one_weird_trick": (
        {"variant": "one_weird_trick", "batch_size": 256, "schedule": "step", "step_epochs": 30, "epochs": 90}
        | {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0001, "decay_biases": True, "color_noise": "none"}
        | {"crop_scale": ["0.08", "1"], "crop_ratio": ["0.75", "1.3333333333333333"]},
        {0: 0.01, 150_119: 0.01, 150_120: 0.001, 300_240: 1e-4},
    ),
    "large_batch": (
        {"variant": "batch_norm", "batch_size": 32768, "optimizer": "lars", "lars_trust": 0.001, "momentum": 0.9}
        | {"weight_decay": 0.0005, "learning_rate": 32, "warmup_steps": 400, "schedule": "poly", "epochs": 100}
        | {"last_crop_offset": True, "color_noise": "none"},
        {0: 0, 200: 16, 400: 32, 2150: 8, 3900: 0},  # 39 steps in an epoch
    ),
    "modern": (
        UNIT_VARIANCE
        | {"batch_size": 1024, "learning_rate": 0.01, "scale_lr": "linear", "warmup_steps": 6255, "epochs": 90}
        | {"label_smoothing": 0.1, "precision": "mixed_bfloat16"},
        {0: 0, 6255: 0.08, 59_422: 0.04, 112_590: 0},
    ),
    "fashion_mnist": (
        UNIT_VARIANCE
        | {"color_noise": "none", "batch_size": 128, "learning_rate": 0.03, "warmup_steps": 200, "epochs": 10},
        {0: 0, 100: 0.015, 200: 0.03, 2440: 0.015, 4680: 0},
    ),
    "demo": (
        UNIT_VARIANCE | {"batch_size": 32, "learning_rate": 0.03, "warmup_steps": 40, "epochs": 8, "log_every": 10},
        {0: 0, 20: 0.015, 40: 0.03, 744: 0},
    ),
}
IMAGES = {"fashion_mnist": 60_000, "demo": 3000}


class TestRecipes:
    def test_every_recipe_is_tested(self):
        assert EVERY_RECIPE.keys() == {path.stem for path in RECIPES.glob("*.flags")}

    @pytest.mark.parametrize("recipe", EVERY_RECIPE)
    def test_recipe_has_these_flags_and_rates(self, recipe, flag, data_dir, tmp_path):
        flags, rates = EVERY_RECIPE[recipe]
        for each in train_flags.own_flags(flag):
            each.unparse()
        file = RECIPES / f"{recipe}.flags"
        flag(["alexnet-train", f"--flagfile={file}", f"--data_dir={data_dir}", f"--run_dir={tmp_path / 'run'}"])
        given = {each.name: each.value for each in train_flags.own_flags(flag) if each.present}
        assert {name: value for name, value in given.items() if name not in ("data_dir", "run_dir")} == flags
        optimizer = experiment.make_optimizer(
            learning_rate=schedules.scale_learning_rate(flag.learning_rate, flag.scale_lr, flag.batch_size),
            steps_per_epoch=IMAGES.get(recipe, 1_281_167) // flag.batch_size,
            **train_flags.given(flag, "optimizer", "schedule", "epochs", "warmup_steps", "step_epochs"),
            **train_flags.given(flag, "momentum", "weight_decay", "decay_biases", "lars_trust", "reduce_in"),
        )
        assert optimizer.decay_biases == flags.get("decay_biases", False)
        for step, rate in rates.items():
            optimizer.iterations.assign(step)
            assert float(optimizer.learning_rate) == pytest.approx(rate, rel=1e-4, abs=1e-6), step
        train_flags.check_flags(flag)
        with pytest.raises(ValueError) as error:
            train.train(flag, Worker())
        # All else is well, but 3,000 images of 64 pixels do not do.
        reason = "from 1 to the number of training images, 3000" if recipe == "large_batch" else "image side, 64"
        assert reason in str(error.value)

    @pytest.mark.slow
    @pytest.mark.long
    def test_large_batches_learn_by_lars(self, data_dir, tmp_path):
        flags = (
            "--variant=testing",
            "--batch_size=500",
            "--optimizer=lars",
            "--learning_rate=0.3",
            "--scale_lr=linear",
            "--lars_trust=0.002",
            "--schedule=poly",
            "--warmup_steps=20",
            "--epochs=25",
            "--initializer=he_normal",
            "--input_scale=0.0125",
        )
        run_well("train", *flags, f"--data_dir={data_dir}", f"--run_dir={tmp_path / 'run'}")
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.7  # chance is 0.9

    @pytest.mark.slow
    @pytest.mark.long
    def test_mixed_precision_with_loss_scaling_trains(self, data_dir, tmp_path):
        flags = programs.train_flags(data_dir, tmp_path / "run", "--epochs=2", "--precision=mixed_float16")
        run_well("train", *flags)
        model, _ = load_model(tmp_path / "run")
        assert model.get_layer("conv2").compute_dtype == "float16"
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.8
