"""alexnet-train up to its first step: a new run, a resumed one, with the same settings and with others."""

import dataclasses
import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from made_photos import encoded
from made_records import state, write_records
from PIL import Image

from alexnet_tf import cli, train
from alexnet_tf.distribution import local_workers
from alexnet_tf.tfrecords import dataset_builder, reader, schema
from alexnet_tf.training import callbacks, checkpoints, inputs, run_dir
from alexnet_tf.training.health_checks import TrainingHealthChecks
from alexnet_tf.training.tensorboard_logger import TensorBoardLogger


class TestNewRun:
    @pytest.fixture(scope="class")
    @classmethod
    def received(cls, start, tmp_path_factory):
        return start(tmp_path_factory.mktemp("new") / "run", checkpoint_every_steps=6)

    def test_run_begins_at_the_beginning(self, received):
        assert received.start == checkpoints.Start()
        assert (received.epochs, received.data.steps_per_epoch) == (90, 4)

    def test_callbacks_are_in_the_order_that_checkpoints_need(self, received):
        # A loss that is not finite must not be saved, and the state of the plateau schedule must be.
        kinds = [TrainingHealthChecks, callbacks.DivideRateOnPlateau, callbacks.BestEpoch]
        kinds += [TensorBoardLogger, callbacks.SaveCheckpoints]
        assert [type(callback) for callback in received.callbacks] == kinds
        saver = received.callback(callbacks.SaveCheckpoints)
        assert (saver.config.checkpoint_every_steps, saver.step, saver.writes) == (6, 0, True)
        assert saver.schedule is received.callback(callbacks.DivideRateOnPlateau)

    def test_settings_are_configuration_data_and_workers(self, received, make_config):
        settings = received.callback(callbacks.SaveCheckpoints).settings
        assert settings == json.loads(json.dumps(settings))
        assert {name for name in settings if not name.startswith("data.")} == {
            *make_config().compared(),
            *("source", "classes", "steps_per_epoch", "workers", "records_left_out"),
        }


# Another value for each setting that must not change, and what it needs.
CHANGED = {
    "batch_size": 20,
    "seed": 1,
    "learning_rate": 0.5,
    "scale_lr": "sqrt",
    "lars_trust": 0.1,
    "lars_biases": True,
    "schedule": "constant",
    "phase": ("1 weights=0.01",),
    "warmup_steps": 2,
    "warmup_rate": 0.1,
    "warmup_overlaps": True,
    "step_epochs": 2,
    "plateau_patience": 8,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "momentum": 0.8,
    "weight_decay": 0.01,
    "decay_biases": True,
    "layer_decays": {"conv1": 0.0},
    "bias_rate": 2.0,
    "initializer": "he_normal",
    "initial_biases": 0.5,
    "input_scale": 0.5,
    "init_from": "model.keras",
    "init_layers": ("conv1",),
    "new_head": True,
    "freeze": ("conv1",),
    "cache_features": True,
    "color_noise": "none",
    "color_noise_epochs": 1,
    "images_per_crop": 2,
    "last_crop_offset": True,
    "crops": "center",
    "flip": False,
    "mean_at_crop": True,
    "mean_color": (1.0, 2.0, 3.0),
    "crop_scale": (0.1, 1.0),
    "crop_ratio": (0.5, 2.0),
    "precision": "mixed_bfloat16",
}
NEEDED = {
    "phase": {"schedule": "phases"},
    "warmup_steps": {"schedule": "cosine"},
    "step_epochs": {"schedule": "step"},
    "init_layers": {"init_from": "model.keras"},
    "new_head": {"init_from": "model.keras"},
    "crop_ratio": {"crop_scale": (0.1, 1.0)},
}


def edit_settings(run_dir, **changes):
    """Writes other settings into the checkpoint of step 9, with its new checksum."""
    folder = run_dir / "checkpoints" / "00000009"
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))
    rewrite_checksums(folder)


def rewrite_checksums(folder):
    names = ("model.keras", "training_state.npz", "progress.json", "config.json")
    (folder / "SHA256SUMS").write_text("".join(f"{checkpoints._checksum(folder / name)}  {name}\n" for name in names))


class TestResume:
    @pytest.fixture(scope="class")
    @classmethod
    def saved_run(cls, start, tmp_path_factory):
        """A run with a checkpoint of step 9, in its third epoch, after two divisions of the rate."""
        folder = tmp_path_factory.mktemp("saved") / "run"
        received = start(folder)
        saver = received.callback(callbacks.SaveCheckpoints)
        progress = {"step": 9, "plateau": saver.schedule.state | {"divisions": 2}}
        checkpoints.save(folder, received.network, received.model, progress, saver.settings)
        return folder

    @pytest.fixture
    def run_dir(self, saved_run, tmp_path):
        return shutil.copytree(saved_run, tmp_path / "run")

    def test_run_resumes_after_its_checkpoint(self, run_dir, start, capsys):
        received = start(run_dir)
        assert "Resuming after step 9, in epoch 3." in capsys.readouterr().out
        saver, logger = received.callback(callbacks.SaveCheckpoints), received.callback(TensorBoardLogger)
        assert received.start.step == saver.step == logger.step == 9
        assert received.callback(callbacks.DivideRateOnPlateau).state["divisions"] == 2
        saved = keras.models.load_model(run_dir / "model.keras")
        for weight, expected in zip(received.network.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    @pytest.mark.parametrize(
        "changes, rate",
        [({}, 1e-4), ({"learning_rate": 0.5}, 0.005), ({"learning_rate": 0.5, "schedule": "constant"}, 0.5)],
    )
    def test_rate_is_that_of_the_flags_divided_by_the_plateau(self, changes, rate, run_dir, start):
        assert start(run_dir, allow_changed=True, **changes).rate_at(9) == pytest.approx(rate)

    @pytest.mark.parametrize("name, value", CHANGED.items())
    def test_changed_setting_is_refused(self, name, value, run_dir, start, monkeypatch):
        monkeypatch.chdir(run_dir)  # which holds a model.keras
        with pytest.raises(ValueError, match=f"holds a run with other settings: .*{name} was .* and is now"):
            start(run_dir, **NEEDED.get(name, {}) | {name: value})

    def test_every_setting_that_is_refused_is_tested(self, make_config):
        config = make_config()
        names = {field.name for field in dataclasses.fields(config)}
        assert {name for name in names if config.on_resume(name) == "refuse"} == CHANGED.keys()

    def test_changed_setting_is_accepted_if_allowed(self, run_dir, start, caplog):
        assert start(run_dir, weight_decay=0.01, allow_changed=True).optimizer.weight_decay == 0.01
        assert "Resuming with other settings: weight_decay was 0.0005 and is now 0.01" in caplog.text

    def test_other_variant_is_never_accepted(self, run_dir, start):
        edit_settings(run_dir, variant="paper")  # no other variant has images as small
        with pytest.raises(ValueError, match=r"variant was 'paper' and is now 'testing'\. Use the same settings") as e:
            start(run_dir, allow_changed=True)
        assert "--allow_changed" not in str(e.value)

    def test_layer_rates_epochs_and_reduction_may_change_with_a_warning(self, run_dir, start, caplog):
        received = start(run_dir, layer_rates={"fc8/bias": 2.0}, epochs=100, reduce_in="float16")
        assert received.rate_multipliers()["fc8/bias"] == 2 and received.epochs == 100
        for change in ("epochs was 90 and is now 100", "layer_rates was {} and is now {'fc8/bias': 2.0}", "reduce_in"):
            assert change in caplog.text

    def test_other_number_of_workers_continues_the_epoch(self, run_dir, start, small_data_dir, caplog):
        edit_settings(run_dir, workers=2)
        received = start(run_dir)  # with one
        assert "Resuming with other settings: workers was 2 and is now 1." in caplog.text
        rest = received.data.training(9, reader.Share()).take(3)
        epoch = reader.make_training_dataset(small_data_dir, 10, 56, start_epoch=2).take(4)
        images, expected = ([batch["image"].numpy() for batch, _ in dataset] for dataset in (rest, epoch))
        np.testing.assert_array_equal(images, expected[1:])

    @pytest.mark.parametrize("schedule", ["cosine", "poly"])
    def test_other_epochs_are_refused_if_the_rate_depends_on_them(self, schedule, run_dir, start):
        edit_settings(run_dir, schedule=schedule)
        with pytest.raises(ValueError, match=r"epochs was 90 and is now 100\. .*--allow_changed"):
            start(run_dir, schedule=schedule, epochs=100)

    @pytest.mark.parametrize(
        "changes", [{"schedule": "cosine"}, {"precision": "mixed_float16"}, {"freeze": ("conv1", "fc6")}]
    )
    def test_allowed_change_keeps_the_optimizer_state_that_still_fits(self, changes, run_dir, start, caplog):
        folder = run_dir / "checkpoints" / "00000009"
        with np.load(folder / "training_state.npz") as arrays:
            saved = dict(arrays)
        (name,) = [name for name in saved if name.endswith("fc7_bias_1_momentum")]
        momentum = np.random.default_rng(0).normal(size=saved[name].shape).astype("float32")
        np.savez(folder / "training_state.npz", **saved | {name: momentum})
        rewrite_checksums(folder)
        received = start(run_dir, allow_changed=True, **changes)
        assert received.start.step == 9
        (restored,) = [each for each in received.optimizer.momentums if each.name == "fc7_bias_1_momentum"]
        np.testing.assert_array_equal(restored, momentum)
        assert "The other variables keep their initial values" in caplog.text

    def test_data_built_with_other_settings_are_refused(self, run_dir, start, small_data_dir, tmp_path, caplog):
        dataset_builder.build_dataset(
            f"folder:{small_data_dir.parent / 'images'}",
            tmp_path / "data",
            image_px=58,
            quality=60,
            seed=1,
            num_train_shards=3,
            num_validation_shards=2,
            num_processes=1,
        )
        other = {"data_dir": str(tmp_path / "data")}
        with pytest.raises(ValueError, match="holds a run with other settings") as caught:
            start(run_dir, **other)
        for change in ("image_px was 60 and is now 58", "quality was 95 and is now 60", "seed was 0 and is now 1"):
            assert f"data.{change}" in str(caught.value)
        start(run_dir, allow_changed=True, **other)
        assert "data.checksum was" in caplog.text

    @pytest.mark.parametrize("where", ["class_names", "sha256"])
    def test_data_with_other_content_are_refused(self, where, run_dir, start, small_data_dir, tmp_path):
        folder = shutil.copytree(small_data_dir, tmp_path / "data")
        content = json.loads((folder / "dataset.json").read_text())
        if where == "class_names":
            content["class_names"].reverse()
        else:
            content["splits"]["validation"]["shards"][0]["sha256"] = "0" * 64
        del content["checksum"]
        content["checksum"] = schema._checksum(content)
        (folder / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"other settings: data\.checksum was '\w{8}' and is now '\w{8}'\. Use"):
            start(run_dir, data_dir=str(folder))

    def test_finished_run_is_left_as_it_is(self, run_dir, train_here, capsys):
        train_here(run_dir, epochs=2)
        assert f"Trained to the end of epoch 2: {run_dir / 'model.keras'}" in capsys.readouterr().out
        assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["00000009"]


class TestRunDir:
    def test_folder_with_something_else_is_refused(self, start, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"")
        with pytest.raises(ValueError, match=r"which holds model\.keras but no run"):
            start(tmp_path)
        with pytest.raises(ValueError, match=r"`run_dir` must be a folder\. Received the file"):
            start(tmp_path / "model.keras")

    def test_second_run_in_the_same_folder_is_refused(self, make_config, tmp_path):
        data = inputs.open_data(make_config())
        with run_dir.opened(tmp_path / "run", data, writes=True):
            assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "dataset.json", "statistics.npz"}
            with (
                pytest.raises(ValueError, match="Another process is training in `run_dir`"),
                run_dir.opened(tmp_path / "run", data, writes=True),
            ):
                pass

    def test_only_one_worker_writes(self, make_config, tmp_path):
        with run_dir.opened(tmp_path / "run", inputs.open_data(make_config()), writes=False):
            assert not (tmp_path / "run").exists()


class TestRefusals:
    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"layer_rates": {"conv9": 1.0}}, r"a trainable layer \(conv1, "),
            ({"freeze": ("norm1",)}, "`freeze` must name trainable layers: conv1, "),
            ({"cache_features": True}, "`cache_features` needs `freeze` to include conv1, the first layer"),
            ({"init_from": "nowhere.keras", "data_dir": "nowhere"}, "No model found: nowhere.keras"),
            ({"init_from": "torchvision_features"}, "needs `variant=one_weird_trick`.* Received: testing"),
            ({"init_from": "torchvision_features", "variant": "one_weird_trick"}, "needs `new_head`"),
            ({"strategy": "multi_worker"}, "needs several workers"),
            ({"fc_parallel": True}, "`fc_parallel` needs several workers: .*Received: 1"),
            ({"column_devices": ("GPU:0", "GPU:1")}, "With --allow_fewer_devices"),
            ({"data_service": "nowhere"}, "`data_service` must be HOST:PORT"),
            ({"data_dir": "nowhere"}, "alexnet-tfrecords --source="),
            ({"data_dir": "folder:photos", "num_local_workers": 2}, "For several workers .*data_dir=folder:photos"),
            ({"data_dir": "list:a.csv", "num_local_workers": 2}, "For several workers .*data_dir=list:a.csv"),
            ({"data_dir": "tfrecords:a", "num_local_workers": 2}, "For several workers .*data_dir=tfrecords:a"),
            ({"batch_size": 100}, "`batch_size` must be from 1 to .* 46. Received: 100"),
            ({"variant": "paper"}, "`data_dir` must have images of at least 224 pixels"),
        ],
    )
    def test_options_that_the_machine_or_the_data_do_not_allow(self, changes, message, train_here, tmp_path):
        with pytest.raises(ValueError, match=message):
            train_here(tmp_path / "run", **changes)

    def test_missing_column_devices_are_a_warning_if_allowed(self, start, tmp_path, caplog):
        received = start(tmp_path / "run", column_devices=("GPU:0", "GPU:1"), allow_fewer_devices=True)
        assert "columns share a device" in caplog.text
        assert not received.model.jit_compile  # "auto" on a CPU

    def test_damaged_records_are_skipped_up_to_the_maximum(self, start, damaged_data_dir, tmp_path, capsys):
        skip = {"data_dir": str(damaged_data_dir), "on_bad_record": "skip"}
        received = start(tmp_path / "run", **skip)
        assert "Skipped: " in capsys.readouterr().out
        assert len(received.callback(callbacks.SaveCheckpoints).settings["records_left_out"]) == 1
        with pytest.raises(ValueError, match="At most 0 records may be damaged"):
            start(tmp_path / "other", max_bad_records=0, **skip)


class TestSources:
    @pytest.mark.slow
    def test_folder_of_images_becomes_a_data_set_in_the_run_once(self, start, small_data_dir, tmp_path, capsys):
        source = {"data_dir": f"folder:{small_data_dir.parent / 'images'}", "schedule": "cosine"}
        received = start(tmp_path / "run", **source)
        built = schema.load_description(tmp_path / "run" / "data")
        assert built.image_px == 64  # for crops of 56
        assert {name: split.count for name, split in built.splits.items()} == {"train": 46, "validation": 10}
        inputs, _ = next(iter(reader.make_training_dataset(tmp_path / "run" / "data", 10, 56)))
        np.testing.assert_array_equal(received.first_batch()[0], inputs["image"])
        assert "Making" in capsys.readouterr().out
        start(tmp_path / "run", **source)
        assert "nothing to build" in capsys.readouterr().out

    @pytest.mark.slow
    def test_third_party_records_are_indexed_in_the_run_and_stay(self, start, tmp_path, capsys):
        for split, count in (("train", 46), ("validation", 10)):
            content = encoded(Image.new("RGB", (90, 70), "red"), "JPEG")
            images = [(content, number % 2 + 1) for number in range(count)]
            write_records(tmp_path / "others" / f"{split}-00000-of-00001", images, "jpeg", "y")
        (tmp_path / "names").write_text("odd\neven\n")
        before = state(tmp_path / "others")
        source = {
            "data_dir": f"tfrecords:{tmp_path / 'others'}",
            "label_offset": 1,
            "image_key": "jpeg",
            "label_key": "y",
            "class_names": str(tmp_path / "names"),
            "crop_scale": (0.08, 1.0),
        }
        received = start(tmp_path / "run", **source)
        made = schema.load_description(tmp_path / "run" / "data")
        assert (made.image_px, made.class_names, made.in_place) == (64, ("odd", "even"), True)  # 64 for crops of 56
        assert np.abs(received.first_batch()[0] - np.array([254, 0, 0])).max() <= 1  # JPEG's red
        assert state(tmp_path / "others") == before
        start(tmp_path / "run", **source)
        assert "nothing to index" in capsys.readouterr().out


class TestMain:
    @pytest.fixture
    def main(self, monkeypatch, make_config):
        """A function that runs the program's main function with a configuration."""

        def main(**changes):
            monkeypatch.setattr(cli, "read_flags", lambda kind: make_config(**changes))
            train.main([])

        return main

    def test_workers_are_started_with_the_same_flags(self, main, monkeypatch):
        monkeypatch.setattr(local_workers, "run_workers", lambda *arguments: arguments)
        monkeypatch.setattr(sys, "argv", ["alexnet-train", "--data_dir=d", "--run_dir=r", "--momentum=0.8"])
        for changes, numbers in (({"num_local_workers": 3}, (3, 0)), ({"max_restarts": 2}, (1, 2))):
            with pytest.raises(SystemExit) as ending:
                main(**changes)
            command, *found = ending.value.code
            assert tuple(found) == numbers and command[1:3] == ["-m", "alexnet_tf.train"]
            # Each process is alexnet-train with the same flags, except that it trains.
            assert command[3:] == [*sys.argv[1:], "--num_local_workers=1", "--max_restarts=0"]

    @pytest.mark.parametrize("kind", ["UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_network_error_has_its_own_status_with_several_workers(self, kind, workers, main, monkeypatch, capsys):
        def fail(*_):
            raise getattr(tf.errors, kind)(None, None, "RPC: /tensorflow.CoordinationService/Heartbeat" + 60 * "\nmore")

        addresses = ["10.0.0.1:2222", "10.0.0.2:2222"]
        task = {"cluster": {"worker": addresses[:workers]}, "task": {"type": "worker", "index": workers - 1}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(train, "train", fail)
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises((SystemExit, tf.errors.OpError)) as ending:
            main()
        if workers == 1:
            assert isinstance(ending.value, tf.errors.OpError)
        else:
            assert ending.value.code == local_workers.EXIT_WORKER_LOST == 69
            (printed,) = capsys.readouterr().err.splitlines()
            assert "Worker 1 stops: worker 0 (10.0.0.1:2222) is gone or can't be reached." in printed
            assert "TensorFlow's error: RPC: /tensorflow.Coord" in printed
