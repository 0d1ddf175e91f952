"""alexnet-train with two workers, one of which is killed, stopped or cut off."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import types

import pytest
from interruptions import (
    FEW_STEPS,
    assert_same_weights,
    command,
    finish,
    start,
    steps_saved,
    wait_for_step,
    workers_of,
)
from programs import ENVIRONMENT, call

from alexnet_tf.distribution import local_workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[pytest.param(0, marks=pytest.mark.long), 1])
def killed(request, data_dir, tmp_path_factory):
    """A run that was automatically restarted after one of its workers was killed: its folder, this worker, and what it
    printed."""
    folder, victim = tmp_path_factory.mktemp("killed") / "run", request.param
    process = start(command("multi_worker", data_dir, folder, "--max_restarts=1", *FEW_STEPS))
    wait_for_step(process, folder, 2)
    os.kill(workers_of(process)[victim], signal.SIGKILL)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return types.SimpleNamespace(folder=folder, victim=victim, output=output, errors=errors)


class TestKill:
    def test_killed_worker_is_named_and_all_resume_automatically(self, killed, data_dir, tmp_path):
        assert f"Worker {1 - killed.victim} stops: worker {killed.victim} (localhost:" in killed.errors
        # -9 or, if the other worker noticed first, its 69.
        assert re.search(r"A worker ended with status (-9|69)\. Restart 1 of 1\.", killed.errors)
        assert killed.output.count("2 replicas on 2 workers") == 2
        assert killed.output.count("Resuming after step") == 1
        assert killed.output.count("Trained to the end of epoch 2") == 1
        if killed.victim == 0:
            finish(command("multi_worker", data_dir, tmp_path / "uninterrupted", *FEW_STEPS))
            assert_same_weights(killed.folder, tmp_path / "uninterrupted")

    def test_only_the_chief_writes(self, killed):
        assert {path.name for path in killed.folder.iterdir()} == {
            ".lock",
            "best.keras",
            "checkpoints",
            "config.json",
            "dataset.json",
            "initial_kernels.npz",
            "model.keras",
            "statistics.npz",
            "tensorboard",
            "training.json",
        }
        event_files = [path.name for path in (killed.folder / "tensorboard").rglob("events*")]
        # events.out.tfevents.TIME.HOST.PROCESS: of the chief before and after the restart.
        assert len({name.split(".")[5] for name in event_files}) == 2

    def test_metrics_are_those_of_all_workers_images(self, killed, data_dir):
        reported = json.loads((killed.folder / "training.json").read_text())
        evaluation = call("evaluate", f"--model={killed.folder}", f"--data_dir={data_dir}", "--noten_views")
        assert f"{reported['val_top1_error']:.2%}" in evaluation


@pytest.mark.long
def test_cut_network_ends_both_workers_with_its_status(data_dir, linked_namespaces, tmp_path):
    addresses = [f"{address}:2222" for _, address in linked_namespaces]
    processes = []
    for index, (namespace, _) in enumerate(linked_namespaces):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        arguments = command("one", data_dir, tmp_path / "run", "--epochs=100")
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", namespace, *arguments],
                env=ENVIRONMENT | {"TF_CONFIG": json.dumps(task)},
                stdout=subprocess.DEVNULL,
                stderr=(tmp_path / f"errors-{index}").open("w"),
                text=True,
            )
        )
    try:
        wait_for_step(processes[0], tmp_path / "run", 11)
        # Packets go to a machine that does not exist: neither worker sees the connection closed.
        for (namespace, _), (_, other) in zip(linked_namespaces, reversed(linked_namespaces), strict=True):
            nobody = ("lladdr", "02:00:00:00:00:99", "dev", "cable", "nud", "permanent")
            subprocess.run(["ip", "-n", namespace, "neigh", "replace", other, *nobody], check=True)
        for index, process in enumerate(processes):
            assert process.wait(timeout=120) == local_workers.EXIT_WORKER_LOST
            message = (tmp_path / f"errors-{index}").read_text()
            assert f"Worker {index} stops: worker {1 - index} ({addresses[1 - index]}) is gone or" in message
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_workers_after_the_same_step(number, data_dir, tmp_path):
    process = start(command("multi_worker", data_dir, tmp_path / "run"), start_new_session=True)
    wait_for_step(process, tmp_path / "run", 11)
    if number == signal.SIGTERM:
        os.kill(workers_of(process)[1], number)  # not the chief, which is the only one to save
    else:
        os.killpg(process.pid, number)  # like a terminal: to the program and its group
    output, errors = process.communicate()
    assert process.returncode == local_workers.EXIT_STOPPED, errors
    assert "Stopped on request" in output
    assert steps_saved(tmp_path / "run") >= 11


@pytest.mark.long
def test_workers_end_with_the_process_that_started_them(data_dir, tmp_path):
    process = start(command("multi_worker", data_dir, tmp_path / "run"))
    wait_for_step(process, tmp_path / "run", 11)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 120
    while any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
