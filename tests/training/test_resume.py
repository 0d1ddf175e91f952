"""alexnet-train up to its first step: a new run, and a resumed one."""

import json
import shutil

import keras
import numpy as np
import pytest

from alexnet_tf.distribution import strategies
from alexnet_tf.tfrecords import reader
from alexnet_tf.training import callbacks, checkpoints
from alexnet_tf.training.health_checks import TrainingHealthChecks
from alexnet_tf.training.schedules import DivideRateOnPlateau
from alexnet_tf.training.tensorboard_logger import TensorBoardLogger


def rewrite_checksums(folder):
    names = ("model.keras", "training_state.npz", "progress.json", "config.json")
    (folder / "SHA256SUMS").write_text("".join(f"{checkpoints._checksum(folder / name)}  {name}\n" for name in names))


class TestNewRun:
    @pytest.fixture(scope="class")
    @classmethod
    def received(cls, start, tmp_path_factory):
        return start(tmp_path_factory.mktemp("new") / "run", checkpoint_every_steps=6)

    def test_run_begins_at_the_beginning(self, received):
        assert received.start == checkpoints.Progress()
        assert (received.epochs, received.data.steps_per_epoch) == (90, 4)

    def test_callbacks_are_in_the_order_that_checkpoints_need(self, received):
        # A loss that is not finite must not be saved, and the state of the plateau schedule must be.
        kinds = [TrainingHealthChecks, DivideRateOnPlateau, callbacks.BestEpoch]
        kinds += [TensorBoardLogger, callbacks.SaveCheckpoints]
        assert [type(callback) for callback in received.callbacks] == kinds
        saver = received.callback(callbacks.SaveCheckpoints)
        assert (saver.config.checkpoint_every_steps, saver.step, saver.writes) == (6, 0, True)
        assert saver.schedule is received.callback(DivideRateOnPlateau)


class TestResume:
    @pytest.fixture(scope="class")
    @classmethod
    def saved_run(cls, start, tmp_path_factory):
        """A run with a checkpoint of step 9, in its third epoch, after two divisions of the rate."""
        folder = tmp_path_factory.mktemp("saved") / "run"
        received = start(folder)
        saver = received.callback(callbacks.SaveCheckpoints)
        state = saver.schedule.state | {"divisions": 2}
        progress = checkpoints.Progress(9, plateau=state, best={"epoch": 1, "top1": 0.75})
        checkpoints.save(folder, received.network, received.training_model, progress, saver.settings)
        return folder

    @pytest.fixture
    def run_dir(self, saved_run, tmp_path):
        return shutil.copytree(saved_run, tmp_path / "run")

    def test_run_resumes_after_its_checkpoint(self, run_dir, start, monkeypatch, capsys):
        agreed = []
        monkeypatch.setattr(strategies, "check_workers_agree", lambda strategy, worker, values: agreed.append(values))
        received = start(run_dir)
        assert "Resuming after step 9, in epoch 3." in capsys.readouterr().out
        saver, logger = received.callback(callbacks.SaveCheckpoints), received.callback(TensorBoardLogger)
        assert received.start.step == saver.step == logger.step == 9
        (values,) = agreed  # by all workers, whose paths may differ
        expected = {"step": 9, "jit": "auto", "data.checksum": saver.settings["data.checksum"]}
        expected |= {"batch_size": 10, "run_dir": None, "data_dir": None}
        assert values | expected == values
        assert received.callback(DivideRateOnPlateau).state["divisions"] == 2
        assert received.callback(callbacks.BestEpoch).state == {"epoch": 1, "top1": 0.75}
        saved = keras.models.load_model(run_dir / "model.keras")
        for weight, expected in zip(received.network.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_changed_setting_is_refused_unless_allowed(self, run_dir, start, caplog):
        with pytest.raises(ValueError, match=r"with other settings: learning_rate was 0\.01 and is now"):
            start(run_dir, learning_rate=0.5)
        assert start(run_dir, learning_rate=0.5, allow_changed=True).rate_at(9) == pytest.approx(0.005)
        assert "Resuming with other settings: learning_rate was 0.01 and is now 0.5" in caplog.text

    def test_other_number_of_workers_continues_the_epoch(self, run_dir, start, small_data_dir, caplog):
        folder = run_dir / "checkpoints" / "00000009"
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"workers": 2}))
        rewrite_checksums(folder)
        received = start(run_dir)  # with one
        assert "Resuming with other settings: workers was 2 and is now 1." in caplog.text
        rest = received.data.training(9, reader.Share()).take(3)
        epoch = reader.make_training_dataset(small_data_dir, 10, 56, start_epoch=2).take(4)
        images, expected = ([batch["image"].numpy() for batch, _ in dataset] for dataset in (rest, epoch))
        np.testing.assert_array_equal(images, expected[1:])

    def test_allowed_changes_keep_the_optimizer_state_that_still_fits(self, run_dir, start, caplog):
        folder = run_dir / "checkpoints" / "00000009"
        with np.load(folder / "training_state.npz") as arrays:
            saved = dict(arrays)
        (name,) = [name for name in saved if name.endswith("fc7_bias_1_momentum")]
        momentum = np.random.default_rng(0).normal(size=saved[name].shape).astype("float32")
        np.savez(folder / "training_state.npz", **saved | {name: momentum})
        rewrite_checksums(folder)
        changes = {"schedule": "cosine", "precision": "mixed_float16", "freeze": ("conv1", "fc6")}
        received = start(run_dir, allow_changed=True, **changes)
        assert received.start.step == 9
        (restored,) = [each for each in received.optimizer.momentums if each.name == "fc7_bias_1_momentum"]
        np.testing.assert_array_equal(restored, momentum)
        assert "The other variables keep their initial values" in caplog.text

    def test_finished_run_is_left_as_it_is(self, run_dir, train_here, capsys):
        train_here(run_dir, epochs=2)
        assert f"Trained to the end of epoch 2: {run_dir / 'model.keras'}" in capsys.readouterr().out
        assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["00000009"]
