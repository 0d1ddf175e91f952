"""How alexnet-train starts: from a checkpoint, or not at all."""

import json

import keras
import numpy as np
import pytest

from alexnet_tf.training import callbacks, checkpoints


class TestResume:
    @pytest.fixture
    def run_dir(self, start, tmp_path):
        """A run of which a checkpoint of step 9 is saved, in its third epoch."""
        received = start(tmp_path / "run", "--plateau_patience=7")
        saver = received.callback(callbacks.SaveCheckpoints)
        progress = {"step": 9, "settings": saver.settings, "validation_due": False, "schedule": saver.schedule.state}
        progress["schedule"]["divisions"] = 2
        checkpoints.save(tmp_path / "run", received.network, received.model, progress)
        return tmp_path / "run"

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
        assert start(run_dir, "--weight_decay=0.01", "--allow_changed").optimizer.decay == 0.01
        assert "Resuming with other settings: weight_decay was 0.0005" in caplog.text

    def test_rates_of_layers_may_change(self, run_dir, start):
        assert start(run_dir, "--bias_rate=2").rate_multipliers()["fc8/bias"] == 2

    def test_finished_run_is_left_as_it_is(self, run_dir, start, flag, capsys):
        progress = run_dir / "checkpoints" / "00000009" / "progress.json"
        progress.write_text(json.dumps(json.loads(progress.read_text()) | {"step": 360}))
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            start(run_dir)
        assert f"Trained to the end of epoch 90: {run_dir / 'model.keras'}" in capsys.readouterr().out


class TestRefusals:
    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--layer_rates=conv9=1"], r"a layer that learns \(conv1, "),
            (["--layer_rates=conv1"], "must be a list such as conv1=0.1,fc8=2. Received: 'conv1'"),
            (["--freeze=norm1"], "`freeze` must name layers that learn: conv1, "),
            (["--new_head"], "`new_head` needs `init_from`"),
            (["--init_from=nowhere.keras"], "There is no model at nowhere.keras"),
            (["--label_smoothing=1"], "label_smoothing=1.0"),
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
