"""alexnet-train with schedules other than the plain one, and with every recipe."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from programs import ENVIRONMENT, program, run, run_well, train_flags

from alexnet_tf.model import load_model

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
        run_well("train", *train_flags(data_dir, tmp_path / "uninterrupted", *self.PLATEAU))
        flags = train_flags(data_dir, tmp_path / "killed", *self.PLATEAU)
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
    def test_rates_may_change_when_a_run_is_resumed(self, data_dir, run_dir, tmp_path):
        shutil.copytree(run_dir, tmp_path / "run")
        before, _ = load_model(run_dir)
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=3", "--layer_rates=conv1=0")
        assert "epochs was 2 and is now 3" in run("train", *flags).stderr  # a cosine's rate is 0 after its two epochs
        run_well("train", *flags, "--allow_changed")
        after, _ = load_model(tmp_path / "run")
        for name, same in (("conv1", True), ("conv2", False)):
            pairs = zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs) == same, name

    @pytest.mark.slow
    def test_original_schedule_trains_and_sets_its_own_rates(self, data_dir, tmp_path):
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=1", "--schedule=original", "--learning_rate=0.01")
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
            ("--init_from=nowhere.keras", "There is no model at nowhere.keras"),
            ("--label_smoothing=1", "label_smoothing=1.0"),
            ("--profile_steps=12,10", "the first and the last step, counted from 1, such as 10,12. Received: 12,10"),
        ],
    )
    @pytest.mark.slow
    def test_invalid_flags_are_refused(self, flag, message, data_dir, tmp_path):
        result = run("train", *train_flags(data_dir, tmp_path / "run", flag))
        assert result.returncode != 0
        assert message in result.stderr


class TestRecipes:
    def test_every_recipe_is_a_flag_file_that_train_takes(self, data_dir, tmp_path):
        # In one process, since each takes seconds to start: the flags of each file, as alexnet-train reads them, and
        # what stops a run of 224 pixels on images of 64.
        script = textwrap.dedent("""
            import pathlib, sys
            from absl import flags
            from alexnet_tf import train, train_flags
            train_flags.define_flags()
            for file in sorted(pathlib.Path(sys.argv[1]).glob("*.flags")):
                flags.FLAGS.unparse_flags()
                for name in flags.FLAGS.get_flags_for_module(train_flags.__name__):
                    flags.FLAGS[name.name].unparse()
                flags.FLAGS(["train", f"--flagfile={file}", f"--data_dir={sys.argv[2]}", f"--run_dir={sys.argv[3]}"])
                try:
                    train.main([])
                except ValueError as error:
                    print(file.stem, flags.FLAGS.variant, flags.FLAGS.batch_size, str(error)[:10])
        """)
        command = [sys.executable, "-c", script, RECIPES, data_dir, tmp_path / "run"]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        stops = [line for line in result.stdout.splitlines() if not line.startswith("Training ")]
        assert stops == [
            "caffe caffe 256 `crop_px` ",
            "demo paper 32 `crop_px` ",
            "fashion_mnist paper 128 `crop_px` ",
            "large_batch batch_norm 32768 `batch_siz",
            "modern paper 1024 `crop_px` ",
            "original original 128 `crop_px` ",
            "paper paper 128 `crop_px` ",
        ]

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
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=2", "--precision=mixed_float16")
        run_well("train", *flags)
        model, _ = load_model(tmp_path / "run")
        assert model.get_layer("conv2").compute_dtype == "float16"
        assert json.loads((tmp_path / "run" / "training.json").read_text())["val_top1_error"] < 0.8
