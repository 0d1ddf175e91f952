"""What alexnet-train checks before it trains, and how it ends."""

import json
import os
import pathlib
import signal
import sys

import pytest
import tensorflow as tf

from alexnet_tf import options, train
from alexnet_tf.distribution import local_workers, strategies
from alexnet_tf.layers import device_placement
from alexnet_tf.training import fit, procedure


class TestRefusals:
    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"cache_features": True}, "`cache_features` needs `freeze` to include conv1, the first layer"),
            ({"init_from": "nowhere.keras", "data_dir": "nowhere"}, "No model found: nowhere.keras"),
            ({"init_from": "torchvision_features"}, "needs `variant=one_weird_trick`.* Received: testing"),
            ({"init_from": "torchvision_features", "variant": "one_weird_trick"}, "needs `new_head`"),
            ({"strategy": "multi_worker"}, "needs several workers"),
            ({"fc_parallel": True}, "`fc_parallel` needs several workers: .*Received: 1"),
            ({"column_devices": ("GPU:0", "GPU:1")}, "With --allow_fewer_devices"),
            ({"data_service": "nowhere"}, "`data_service` must be HOST:PORT"),
            ({"data_dir": "nowhere"}, "alexnet-tfrecords --source="),
            ({"data_dir": str(pathlib.Path(__file__).parents[1])}, "For a folder of images per class: .*=folder:/"),
            ({"data_dir": "folder:nowhere"}, "nowhere does not exist."),
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

    def test_missing_column_devices_are_a_warning_if_allowed(self, start, tmp_path, monkeypatch, caplog):
        names, make_strategy = [], strategies.make_strategy
        monkeypatch.setattr(strategies, "make_strategy", lambda *args: names.append(args[0]) or make_strategy(*args))
        received = start(tmp_path / "run", column_devices=("GPU:0", "GPU:1"), allow_fewer_devices=True)
        assert "columns share a device" in caplog.text
        assert names == ["one"]  # instead of one replica per GPU
        assert not received.training_model.jit_compile  # "auto" on a CPU

    def test_column_devices_with_a_strategy_are_refused(self, train_here, tmp_path, monkeypatch):
        monkeypatch.setattr(device_placement, "check_devices_exist", lambda _: None)
        with pytest.raises(ValueError, match="can't be combined with a distribution strategy"):
            train_here(tmp_path / "run", column_devices=("CPU:0", "CPU:1"), strategy="mirrored")


class TestMain:
    @pytest.fixture
    def main(self, monkeypatch, make_config):
        """A function that runs the program's main function with a configuration."""

        def main(**changes):
            monkeypatch.setattr(options, "read_flags", lambda kind: make_config(**changes))
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
        monkeypatch.setattr(procedure, "train", fail)
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

    def test_sigterm_before_the_first_step_exits_at_once(self, main, monkeypatch, tmp_path, capsys):
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        monkeypatch.setattr(fit, "fit", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        try:
            with pytest.raises(SystemExit) as ending:
                main(run_dir=str(tmp_path / "run"))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert ending.value.code == local_workers.EXIT_STOPPED
        assert "Stopped on request" in capsys.readouterr().out
