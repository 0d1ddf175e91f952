"""The processes of a run on this machine: which exit statuses restart them, and the environment of each."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from alexnet_tf.distribution import local_workers

# Adds a line to a file, with what it knows of its place; ends with the status given at its first start, then with 0.
SCRIPT = """
import os, pathlib, signal, sys
path, status = pathlib.Path(sys.argv[1]), int(sys.argv[2])
first = not path.exists()
with path.open("a") as file:
    file.write(os.environ.get("TF_CONFIG", "") + "\\n")
if first and status < 0:
    signal.raise_signal(-status)
sys.exit(status if first else 0)
"""

# The same, and waits for SIGTERM, at which it ends with that status or, if that is "ignored", writes another file.
STOPPABLE = """
import pathlib, signal, sys, time
def stop(*_):
    if sys.argv[2] == "ignored":
        pathlib.Path(sys.argv[1] + "1").touch()
    else:
        sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, stop)
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write("started\\n")
for _ in range(300):
    time.sleep(0.1)
"""


def run(path, status, **arguments):
    command = [sys.executable, "-S", "-c", SCRIPT, str(path), str(status)]
    return local_workers.run_workers(command, **{"num_workers": 1, "max_restarts": 1} | arguments)


class TestRunWorkers:
    @pytest.mark.parametrize("status", [local_workers.EXIT_STOPPED, local_workers.EXIT_WORKER_LOST, -9, -15])
    def test_stopped_killed_and_left_workers_are_started_again(self, status, tmp_path):
        assert run(tmp_path / "starts", status) == 0
        assert len((tmp_path / "starts").read_text().splitlines()) == 2

    @pytest.mark.parametrize(
        "status, max_restarts, expected",
        [(0, 1, 0), (1, 1, 1), (2, 1, 2), (local_workers.EXIT_WORKER_LOST, 0, 69), (-9, 0, 137), (-15, 0, 143)],
    )
    def test_other_ends_are_the_end(self, status, max_restarts, expected, tmp_path):
        assert run(tmp_path / "starts", status, max_restarts=max_restarts) == expected
        assert len((tmp_path / "starts").read_text().splitlines()) == 1

    def test_each_of_several_is_told_its_number_and_all_addresses(self, tmp_path, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        assert run(tmp_path / "starts", 0, num_workers=3) == 0
        configs = list(map(json.loads, (tmp_path / "starts").read_text().splitlines()))
        assert sorted(config["task"]["index"] for config in configs) == [0, 1, 2]
        (addresses,) = {tuple(config["cluster"]["worker"]) for config in configs}
        assert len(set(addresses)) == 3
        assert "TF_CONFIG" not in os.environ

    @pytest.mark.parametrize("num_signals, end", [(1, local_workers.EXIT_STOPPED), (2, 128 + signal.SIGKILL)])
    def test_workers_that_are_asked_to_stop_are_not_started_again(self, num_signals, end, tmp_path):
        def stop_all():
            for number in range(num_signals):
                while not (tmp_path / f"starts{number or ''}").exists():
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=stop_all)
        thread.start()
        # A worker that ignores the first signal is killed by the second.
        own_end = local_workers.EXIT_STOPPED if num_signals == 1 else "ignored"
        command = [sys.executable, "-S", "-c", STOPPABLE, str(tmp_path / "starts"), str(own_end)]
        assert local_workers.run_workers(command, num_workers=1, max_restarts=3) == end
        thread.join()
        assert (tmp_path / "starts").read_text() == "started\n"
