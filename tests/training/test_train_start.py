"""How alexnet-train starts: from a checkpoint, or not at all."""

import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf import train, train_flags
from alexnet_tf.distribution import local_workers
from alexnet_tf.tfrecords import dataset_builder, reader
from alexnet_tf.training import callbacks, checkpoints

# Another value of each flag that a resumed run must have in common with its checkpoint.
CHANGED = {
    "batch_size": 23,
    "seed": 1,
    "learning_rate": 0.02,
    "scale_lr": "linear",
    "optimizer": "lars",
    "lars_trust": 0.01,
    "schedule": "constant",
    "warmup_steps": 2,
    "step_epochs": 2,
    "plateau_patience": 8,
    "label_smoothing": 0.1,
    "momentum": 0.8,
    "weight_decay": 0.01,
    "decay_biases": True,
    "bias_rate": 2,
    "initializer": "he_normal",
    "input_scale": 0.5,
    "init_from": "model.keras",
    "new_head": True,
    "freeze": "conv1",
    "color_noise": "none",
    "color_noise_epochs": 1,
    "images_per_crop": 2,
    "last_crop_offset": True,
    "crop_scale": "0.1,1",
    "crop_ratio": "0.5,2",
    "precision": "mixed_bfloat16",
}
# Those it need not have in common, and why.
NOT_COMPARED = {
    "data_dir": "data sets may be moved: their checksum is compared",
    "run_dir": "the folder itself",
    "on_bad_record": "the skipped records are compared",
    "max_bad_records": "the skipped records are compared",
    **dict.fromkeys(
        ("label_offset", "image_key", "label_key", "class_names"), "the settings of the index are compared"
    ),
    "data_service": "where the same images are decoded; their order, as documented",
    "strategy": "the same mathematics; another number of workers is warned of",
    "num_local_workers": "another number of workers is warned of, and reads what is left of an epoch",
    "fc_parallel": "the same mathematics, split otherwise",
    "max_restarts": "learns nothing",
    "allow_changed": "permits the changes",
    "column_devices": "the same mathematics elsewhere",
    "allow_fewer_devices": "the same mathematics elsewhere",
    "jit": "the same mathematics, compiled",
    "checkpoint_every_steps": "learns nothing",
    "log_every": "learns nothing",
    "profile_steps": "learns nothing",
}


def edit_settings(run_dir, **changes):
    """Writes other settings into the newest checkpoint; None removes one."""
    path = run_dir / "checkpoints" / "00000009" / "progress.json"
    progress = json.loads(path.read_text())
    settings = progress["settings"] | changes
    progress["settings"] = {name: value for name, value in settings.items() if value is not None}
    path.write_text(json.dumps(progress))


class TestResume:
    @pytest.fixture(scope="class")
    @classmethod
    def saved_run(cls, start, tmp_path_factory):
        """A run of which a checkpoint of step 9 is saved, in its third epoch."""
        folder = tmp_path_factory.mktemp("saved") / "run"
        received = start(folder)
        saver = received.callback(callbacks.SaveCheckpoints)
        progress = {"step": 9, "settings": saver.settings, "validation_due": False, "schedule": saver.schedule.state}
        progress["schedule"]["divisions"] = 2
        checkpoints.save(folder, received.network, received.model, progress)
        return folder

    @pytest.fixture
    def run_dir(self, saved_run, tmp_path):
        return shutil.copytree(saved_run, tmp_path / "run")

    def test_run_resumes_after_its_checkpoint(self, run_dir, start, capsys):
        received = start(run_dir)
        assert "Resuming after step 9, in epoch 3." in capsys.readouterr().out
        assert received.first_step == 9
        assert received.callback(callbacks.SaveCheckpoints).step == received.callbacks[2].step == 9
        assert received.callback(callbacks.DivideRateOnPlateau).state["divisions"] == 2
        saved = keras.models.load_model(run_dir / "model.keras")
        for weight, expected in zip(received.network.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_changed_flags_are_refused_unless_allowed(self, run_dir, start, caplog):
        with pytest.raises(ValueError, match=r"weight_decay was 0.0005 and is now 0.01"):
            start(run_dir, "--weight_decay=0.01")
        assert start(run_dir, "--weight_decay=0.01", "--allow_changed").optimizer.weight_decay == 0.01
        assert "Resuming with other settings: weight_decay was 0.0005" in caplog.text

    @pytest.mark.parametrize("change", ["--schedule=cosine", "--precision=mixed_float16", "--freeze=conv1,fc6"])
    def test_what_a_change_leaves_of_the_optimizers_state_is_restored_if_allowed(self, change, run_dir, start, caplog):
        momentum = np.random.default_rng(0).normal(size=32).astype("float32")
        path = run_dir / "checkpoints" / "00000009" / "training_state.npz"
        with np.load(path) as arrays:
            saved = dict(arrays)
        (name,) = [name for name in saved if name.endswith("fc7_bias_1_momentum")]
        np.savez(path, **saved | {name: np.resize(momentum, saved[name].shape)})
        received = start(run_dir, change, "--allow_changed")
        assert received.first_step == 9
        (restored,) = [each for each in received.optimizer.momentums if each.name == "fc7_bias_1_momentum"]
        np.testing.assert_array_equal(restored, np.resize(momentum, restored.shape))
        assert "The rest is initialized again" in caplog.text

    @pytest.mark.parametrize(
        "change, rate",
        [([], 1e-4), (["--learning_rate=0.5"], 0.005), (["--learning_rate=0.5", "--schedule=constant"], 0.5)],
    )
    def test_learning_rate_is_that_of_the_flags_after_the_plateaus_divisions(self, change, rate, run_dir, start):
        received = start(run_dir, *change, "--allow_changed")  # 0.01 before, and two divisions
        assert received.rate_at(9) == pytest.approx(rate)

    def test_checkpoint_of_other_variables_is_refused_with_the_reason(self, run_dir, start):
        path = run_dir / "checkpoints" / "00000009" / "training_state.npz"
        with np.load(path) as arrays:
            saved = dict(arrays)
        del saved["001 paper_momentum.learning_rate"]
        np.savez(path, **saved)
        with pytest.raises(ValueError, match=r"None of the .* Of the newest: its variables are not .*learning_rate"):
            start(run_dir)

    @pytest.mark.parametrize("name, value", CHANGED.items())
    def test_each_flag_that_changes_what_is_learned_is_compared(self, name, value, run_dir, start):
        needed = {"crop_ratio": "--crop_scale=0.1,1"}.get(name, "--init_from=model.keras")
        with pytest.raises(ValueError, match=f"holds a run with other settings: .*{name} was .* and is now"):
            start(run_dir, needed, f"--{name}={value}")

    def test_other_variant_is_never_allowed(self, run_dir, start):
        edit_settings(run_dir, variant="paper")  # another of images as small does not exist
        with pytest.raises(ValueError, match=r"variant was 'paper' and is now 'testing'\. Give the same settings") as e:
            start(run_dir, "--allow_changed")
        assert "--allow_changed" not in str(e.value)

    def test_every_flag_is_compared_or_has_a_reason_not_to_be(self, flag):
        compared = [*CHANGED, "variant"]
        assert sorted(compared) == sorted(train_flags.FIXED_FLAGS)
        names = [each.name for each in train_flags.own_flags(flag)]
        assert sorted(names) == sorted([*compared, *train_flags.NOTED_FLAGS, *NOT_COMPARED])

    def test_rates_of_layers_and_more_epochs_are_warned_of(self, run_dir, start, caplog):
        received = start(run_dir, "--layer_rates=fc8/bias=2", "--epochs=100", "--reduce_in=float16")
        assert received.rate_multipliers()["fc8/bias"] == 2 and received.epochs == 100
        for change in ("epochs was 90 and is now 100", "layer_rates was [] and is now ['fc8/bias=2']", "reduce_in was"):
            assert change in caplog.text

    def test_resume_with_fewer_workers_continues_the_epoch(self, run_dir, start, small_data_dir, caplog):
        edit_settings(run_dir, workers=2)
        received = start(run_dir)  # with one
        assert "Resuming with other settings: workers was 2 and is now 1." in caplog.text
        rest = received.training_data(9, reader.Share()).take(3)
        epoch = reader.make_training_dataset(small_data_dir, 10, 56, start_epoch=2).take(4)
        images, expected = ([batch["image"].numpy() for batch, _ in dataset] for dataset in (rest, epoch))
        np.testing.assert_array_equal(images, expected[1:])

    @pytest.mark.parametrize("schedule", ["cosine", "poly"])
    def test_other_number_of_epochs_is_refused_where_it_changes_the_rates(self, schedule, run_dir, start):
        edit_settings(run_dir, schedule=schedule)
        with pytest.raises(ValueError, match=r"epochs was 90 and is now 100\. .*--allow_changed"):
            start(run_dir, f"--schedule={schedule}", "--epochs=100")

    def test_data_built_with_other_settings_are_refused(self, run_dir, start, small_data_dir, tmp_path, caplog):
        source = f"folder:{small_data_dir.parent / 'images'}"
        dataset_builder.build_dataset(
            source, tmp_path / "data", image_px=58, quality=60, seed=1, num_train_shards=3, num_validation_shards=2,
            num_processes=1
        )  # fmt: skip
        other = f"--data_dir={tmp_path / 'data'}"
        with pytest.raises(ValueError, match="holds a run with other settings") as caught:
            start(run_dir, other)
        for change in ("image_px was 60 and is now 58", "quality was 95 and is now 60", "seed was 0 and is now 1"):
            assert f"data.{change}" in str(caught.value)
        start(run_dir, other, "--allow_changed")
        assert "data.checksum was" in caplog.text

    @pytest.mark.parametrize("where", ["class_names", "sha256"])
    def test_data_of_the_same_settings_but_other_content_are_refused(
        self, where, run_dir, start, small_data_dir, tmp_path
    ):
        folder = shutil.copytree(small_data_dir, tmp_path / "data")
        content = json.loads((folder / "dataset.json").read_text())
        if where == "class_names":
            content["class_names"].reverse()
        else:
            content["splits"]["validation"]["shards"][0]["sha256"] = "0" * 64
        del content["checksum"]
        (folder / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"other settings: data\.checksum was '\w{8}' and is now '\w{8}'\. Give"):
            start(run_dir, f"--data_dir={folder}")

    def test_settings_that_an_earlier_version_did_not_save_are_not_compared(self, run_dir, start):
        edit_settings(run_dir, **dict.fromkeys(("bias_rate", "epochs", "data.checksum")))
        assert start(run_dir, "--bias_rate=2", "--epochs=100").rate_multipliers()["fc8/bias"] == 2

    def test_settings_are_those_of_the_newest_checkpoint_that_can_be_read(self, run_dir, start):
        damaged = run_dir / "checkpoints" / "00000012"
        damaged.mkdir()
        (damaged / "progress.json").write_text('{"step": 12')
        with pytest.raises(ValueError, match=r"weight_decay was 0\.0005 and is now"):
            start(run_dir, "--weight_decay=0.01")

    def test_finished_run_is_left_as_it_is(self, run_dir, start, flag, capsys):
        progress = run_dir / "checkpoints" / "00000009" / "progress.json"
        progress.write_text(json.dumps(json.loads(progress.read_text()) | {"step": 360}))
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            start(run_dir)
        assert f"Trained to the end of epoch 90: {run_dir / 'model.keras'}" in capsys.readouterr().out


class TestLostWorker:
    @pytest.mark.parametrize("kind", ["UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_error_of_the_network_has_its_status_with_several_workers_alone(
        self, kind, workers, flag, small_data_dir, tmp_path, monkeypatch, capsys
    ):
        def fail(*_):
            raise getattr(tf.errors, kind)(None, None, "RPC: /tensorflow.CoordinationService/Heartbeat" + 60 * "\nmore")

        flag(["alexnet-train", f"--data_dir={small_data_dir}", f"--run_dir={tmp_path}", "--variant=testing"])
        addresses = ["10.0.0.1:2222", "10.0.0.2:2222"]
        task = {"cluster": {"worker": addresses[:workers]}, "task": {"type": "worker", "index": workers - 1}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(train, "train", fail)
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises((SystemExit, tf.errors.OpError)) as ending:
            train.main([])
        if workers == 1:
            assert isinstance(ending.value, tf.errors.OpError)
        else:
            assert ending.value.code == local_workers.EXIT_WORKER_LOST == 69
            line = "Worker 1 stops: worker 0 (10.0.0.1:2222) is gone or can't be reached."
            (printed,) = capsys.readouterr().err.splitlines()
            assert line in printed and "TensorFlow's error: RPC: /tensorflow.Coord" in printed


class TestRefusals:
    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--layer_rates=conv9=1"], r"a layer that learns \(conv1, "),
            (["--layer_rates=conv1=1,conv1=2"], "name each layer once. Received: conv1=1,conv1=2"),
            (["--layer_rates=conv1"], "must be a list such as conv1=0.1,fc8=2. Received: 'conv1'"),
            (["--freeze=norm1"], "`freeze` must name layers that learn: conv1, "),
            (["--new_head"], "`new_head` needs `init_from`"),
            (["--init_from=nowhere.keras"], "No model found: nowhere.keras"),
            (["--label_smoothing=1"], "label_smoothing=1.0"),
            (["--learning_rate=-0.01"], "`learning_rate` must be above 0. Received: learning_rate=-0.01"),
            (["--input_scale=0"], "`input_scale` must be above 0. Received: input_scale=0.0"),
            (["--profile_steps=12,10"], "the first and the last step, counted from 1, such as 10,12. Received: 12,10"),
            (["--schedule=original", "--bias_rate=2"], "can't be given with schedule=original"),
            (["--schedule=original", "--layer_rates=conv1=2"], "can't be given with schedule=original"),
            (["--schedule=cosine", "--step_epochs=2"], "`steps_per_division`"),
            (["--warmup_steps=2"], "`warmup_steps` needs"),
            (["--strategy=multi_worker"], "needs several workers"),
            (["--column_devices=GPU:0,GPU:1"], "With --allow_fewer_devices"),
            (["--data_service=nowhere"], "`data_service` must be HOST:PORT"),
            (["--batch_size=100"], "`batch_size` must be from 1 to .* 46. Received: 100"),
            (["--variant=paper"], "crop_px=224"),
        ],
    )
    def test_invalid_flags_are_refused(self, arguments, message, start, tmp_path):
        with pytest.raises(ValueError, match=message):
            start(tmp_path / "run", *arguments)

    def test_missing_column_devices_may_be_done_without(self, start, tmp_path, caplog):
        start(tmp_path / "run", "--column_devices=GPU:0,GPU:1", "--allow_fewer_devices")
        assert "THE COLUMNS ARE NOT ON DEVICES OF THEIR OWN" in caplog.text

    def test_damaged_records_are_skipped_up_to_the_number_given(self, start, damaged_data_dir, tmp_path, capsys):
        skip = (f"--data_dir={damaged_data_dir}", "--on_bad_record=skip")
        received = start(tmp_path / "run", *skip)
        assert "Skipped: " in capsys.readouterr().out
        assert received.callbacks[2].records_skipped == 1
        assert len(received.callback(callbacks.SaveCheckpoints).settings["records_left_out"]) == 1
        with pytest.raises(ValueError, match="At most 0 records may be damaged"):
            start(tmp_path / "other", *skip, "--max_bad_records=0")

    def test_folder_of_something_else_is_refused(self, start, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"")
        with pytest.raises(ValueError, match=r"which holds model\.keras and no run"):
            start(tmp_path)
