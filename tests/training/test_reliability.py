"""alexnet-train killed, stopped, left without workers or disk: the same command resumes, and nothing is lost."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from programs import ENVIRONMENT, program, run, run_well, train_flags

from alexnet_tf.distribution import local_workers
from alexnet_tf.model import load_model

# What alexnet-train does on a machine with two devices.
TWO_DEVICES = textwrap.dedent("""
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from alexnet_tf import train
    train.run()
""")
# A schedule, multipliers and checkpoints in the middle of epochs: all of it must come back.
FLAGS = (
    "--epochs=2",
    "--checkpoint_every_steps=11",
    "--schedule=plateau",
    "--plateau_patience=1",
    "--layer_rates=conv1=2",
)
STEPS = 2 * 60
MODES = {
    "one": (),
    "mirrored": ("--strategy=mirrored",),
    "multi_worker": ("--num_local_workers=2",),
    "fc_parallel": ("--num_local_workers=2", "--fc_parallel"),
}


def command(mode, data_dir, run_dir, *others):
    flags = train_flags(data_dir, run_dir, *FLAGS, *MODES[mode], *others)
    return [sys.executable, "-c", TWO_DEVICES, *flags] if mode == "mirrored" else program("train", *flags)


def start(arguments):
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def steps_saved(run_dir):
    folder = pathlib.Path(run_dir) / "checkpoints"
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def wait_for_step(process, run_dir, step):
    """Waits for a checkpoint of that step or a later one; returns the seconds that it took."""
    start = time.monotonic()
    while steps_saved(run_dir) < step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return time.monotonic() - start


def workers_of(process):
    """The process numbers of the workers that a process has started, in order."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(child): pathlib.Path(f"/proc/{child}/environ").read_text() for child in children}
    return sorted(environments, key=lambda child: '"index": 1' in environments[child])


def assert_same_weights(run_dir, other_dir):
    weights, others = (load_model(folder)[0].get_weights() for folder in (run_dir, other_dir))
    assert all(np.std(weight) > 0 for weight in weights if weight.ndim > 1)  # not both of zeros
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    """A function from a mode to the folder of a complete run that nothing interrupted."""
    folders = {}

    def folder(mode):
        if mode not in folders:
            folders[mode] = tmp_path_factory.mktemp("uninterrupted") / mode
            process = start(command(mode, data_dir, folders[mode]))
            output, errors = process.communicate()
            assert process.returncode == 0, output + errors
        return folders[mode]

    return folder


class TestStopping:
    @pytest.mark.slow
    def test_sigterm_saves_the_current_step_and_the_same_command_resumes(self, data_dir, uninterrupted, tmp_path):
        arguments = command("one", data_dir, tmp_path / "run")
        process = start([*arguments, "--checkpoint_every_steps=1000"])
        shown = ""
        while not re.search(r"[2-4]\d/60", shown):  # of the progress bar, which skips some steps
            part = process.stdout.read(50)
            assert part, process.communicate()
            shown = (shown + part)[-100:]
        process.send_signal(signal.SIGTERM)
        signaled = time.monotonic()
        output, errors = process.communicate()
        assert process.returncode == local_workers.EXIT_STOPPED, errors
        assert time.monotonic() - signaled < 60
        assert "Stopped on request. The same command resumes" in output
        done = steps_saved(tmp_path / "run")
        assert 20 <= done < STEPS
        result = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert f"Resuming after step {done}, in epoch {done // 60 + 1}." in result.stdout
        assert_same_weights(tmp_path / "run", uninterrupted("one"))

    @pytest.mark.slow
    @pytest.mark.long
    def test_sigterm_within_the_validation_has_it_done_again(self, data_dir, uninterrupted, tmp_path):
        # The signal comes while the first epoch is validated: sent by the process itself, at the first batch of it.
        script = textwrap.dedent("""
            import os, signal
            from alexnet_tf import train
            from alexnet_tf.training import callbacks
            begin = callbacks.SaveCheckpoints.on_test_batch_begin
            def request_stop(self, batch, logs=None):
                os.kill(os.getpid(), signal.SIGTERM)
                begin(self, batch, logs)
            callbacks.SaveCheckpoints.on_test_batch_begin = request_stop
            train.run()
        """)
        flags = train_flags(data_dir, tmp_path / "run", *FLAGS)
        process = start([sys.executable, "-c", script, *flags])
        assert process.communicate() and process.returncode == local_workers.EXIT_STOPPED
        newest = tmp_path / "run" / "checkpoints" / "00000060"
        assert json.loads((newest / "progress.json").read_text())["validation_due"]
        run_well("train", *flags)
        assert_same_weights(tmp_path / "run", uninterrupted("one"))
        summaries = [
            json.loads((folder / "training.json").read_text()) for folder in (tmp_path / "run", uninterrupted("one"))
        ]
        for key in ("epochs", "val_top1_error", "val_top5_error"):
            assert summaries[0][key] == summaries[1][key]

    def test_sigterm_before_the_first_step_leaves_at_once(self, data_dir, tmp_path):
        script = textwrap.dedent("""
            import os, signal
            from alexnet_tf import train
            from alexnet_tf.training import fit
            fit.fit = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM)
            train.run()
        """)
        process = start([sys.executable, "-c", script, *train_flags(data_dir, tmp_path / "run")])
        output, _ = process.communicate()
        assert process.returncode == local_workers.EXIT_STOPPED
        assert "Stopped on request" in output

    @pytest.mark.slow
    @pytest.mark.long
    def test_twelve_runs_killed_at_random_end_with_exactly_the_same_weights(self, data_dir, uninterrupted, tmp_path):
        chance = random.Random(2012)
        plan = [
            (mode, number, chance.randrange(1, STEPS - 60), chance.random())
            for mode in ("one", "mirrored", "multi_worker", "fc_parallel")
            for number in (signal.SIGKILL, signal.SIGTERM)
        ]
        plan += [("one", signal.SIGKILL, chance.randrange(1, STEPS - 60), chance.random()) for _ in range(4)]
        lost = []
        for index, (mode, number, step, fraction) in enumerate(plan):
            run_dir = tmp_path / str(index)
            arguments = command(mode, data_dir, run_dir)
            process = start(arguments)
            wait_for_step(process, run_dir, step)
            # At any moment between two checkpoints, however fast the machine is.
            time.sleep(fraction * wait_for_step(process, run_dir, steps_saved(run_dir) + 1))
            process.send_signal(number)
            _, errors = process.communicate()
            assert process.returncode in (-number, local_workers.EXIT_STOPPED), (mode, number, errors)
            lost.append(steps_saved(run_dir))
            result = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)
            assert result.returncode == 0, (mode, number, step, result.stderr)
            assert f"Resuming after step {lost[-1]}," in result.stdout
            assert_same_weights(run_dir, uninterrupted(mode))
            assert not list((run_dir / "checkpoints").glob(".tmp-*"))
        assert len(set(lost)) > 5, "killed at the same moment again and again"


class TestHalfPrecision:
    @pytest.mark.slow
    @pytest.mark.long
    def test_run_whose_first_gradients_overflow_resumes_at_the_right_image(self, data_dir, tmp_path):
        # With a loss scale of 2^26 the first steps overflow and are skipped: the optimizer counts fewer steps than
        # were read from the data.
        script = textwrap.dedent("""
            import functools
            from alexnet_tf import train
            from alexnet_tf.training import compilation
            compilation.AgreedLossScale = functools.partial(compilation.AgreedLossScale, initial_scale=2.0**26)
            train.run()
        """)
        for name in ("uninterrupted", "killed"):
            flags = train_flags(data_dir, tmp_path / name, *FLAGS, "--precision=mixed_float16", "--learning_rate=0.05")
            process = start([sys.executable, "-c", script, *flags])
            if name == "killed":
                wait_for_step(process, tmp_path / name, 66)
                process.kill()
                process.communicate()
                assert steps_saved(tmp_path / name) < STEPS
                process = start([sys.executable, "-c", script, *flags])
            output, errors = process.communicate()
            assert process.returncode == 0, errors
        assert "Resuming after step" in output
        assert_same_weights(tmp_path / "uninterrupted", tmp_path / "killed")
        with np.load(tmp_path / "killed" / "checkpoints" / f"{STEPS:08d}" / "training_state.npz") as arrays:
            (iterations,) = [arrays[name] for name in arrays.files if name.endswith("paper_momentum.iteration")]
        assert 60 < iterations < STEPS


class TestLostWorkers:
    @pytest.mark.slow
    @pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
    def test_killed_worker_is_named_and_all_resume_automatically(self, victim, data_dir, uninterrupted, tmp_path):
        process = start([*command("multi_worker", data_dir, tmp_path / "run"), "--max_restarts=1"])
        wait_for_step(process, tmp_path / "run", 11)
        os.kill(workers_of(process)[victim], signal.SIGKILL)
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert f"Worker {1 - victim} stops: worker {victim} (localhost:" in errors
        # -9 or, where the other was quick to notice, its 69.
        assert re.search(r"A worker ended with status (-9|69)\. Restart 1 of 1\.", errors)
        assert "Resuming after step" in output
        assert_same_weights(tmp_path / "run", uninterrupted("multi_worker"))

    @pytest.mark.slow
    def test_cut_network_ends_both_workers_with_the_status_for_it(self, data_dir, linked_namespaces, tmp_path):
        addresses = [f"{address}:2222" for _, address in linked_namespaces]
        processes = []
        for index, (namespace, _) in enumerate(linked_namespaces):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            arguments = command("one", data_dir, tmp_path / "run", "--epochs=100")
            environment = ENVIRONMENT | {"TF_CONFIG": json.dumps(task)}
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *arguments],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=(tmp_path / f"errors-{index}").open("w"),
                text=True,
            )
            processes.append(process)
        try:
            wait_for_step(processes[0], tmp_path / "run", 11)
            # Packets leave for a machine that isn't there: neither sees the connection closed.
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

    @pytest.mark.slow
    def test_worker_that_is_stopped_stops_all_after_the_same_step(self, data_dir, tmp_path):
        process = start(command("multi_worker", data_dir, tmp_path / "run"))
        wait_for_step(process, tmp_path / "run", 11)
        os.kill(workers_of(process)[1], signal.SIGTERM)  # not the chief, which alone can save
        output, errors = process.communicate()
        assert process.returncode == local_workers.EXIT_STOPPED, errors
        assert "Stopped on request" in output
        assert steps_saved(tmp_path / "run") >= 11

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", ["one", pytest.param("multi_worker", marks=pytest.mark.long)])
    def test_ctrl_c_saves_and_stops(self, mode, data_dir, tmp_path):
        arguments = command(mode, data_dir, tmp_path / "run", "--checkpoint_every_steps=25")
        process = subprocess.Popen(
            arguments,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for_step(process, tmp_path / "run", 25)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the program and all that is in its group
        output, errors = process.communicate()
        assert process.returncode == local_workers.EXIT_STOPPED, errors
        assert "Stopped on request" in output
        assert steps_saved(tmp_path / "run") > 25

    @pytest.mark.slow
    def test_workers_end_with_the_process_that_started_them(self, data_dir, tmp_path):
        process = start(command("multi_worker", data_dir, tmp_path / "run"))
        wait_for_step(process, tmp_path / "run", 11)
        workers = workers_of(process)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 120
        while any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    @pytest.mark.slow
    def test_error_that_would_come_again_is_not_tried_again(self, data_dir, tmp_path):
        result = run("train", *train_flags(data_dir, tmp_path / "run", "--freeze=norm1", "--max_restarts=3"))
        assert result.returncode == 2
        assert "Restart" not in result.stderr


class TestDisk:
    @pytest.mark.slow
    def test_full_disk_stops_the_run_and_leaves_the_last_checkpoint_complete(self, data_dir, uninterrupted, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small disk can be mounted by root alone")
        try:
            result = run("train", *train_flags(data_dir, disk / "run", *FLAGS))
            assert result.returncode == 2
            last_line = result.stderr.splitlines()[-1]
            assert "No space left on device" in last_line
            assert f"can't be written to {disk / 'run' / 'checkpoints'}, where 0 MB are free" in last_line
            saved = sorted(path.name for path in (disk / "run" / "checkpoints").iterdir())
            assert saved and all(name.isdigit() for name in saved)
            subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
            assert f"Resuming after step {int(saved[-1])}," in run_well(
                "train", *train_flags(data_dir, disk / "run", *FLAGS)
            )
            assert_same_weights(disk / "run", uninterrupted("one"))
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    @pytest.mark.slow
    @pytest.mark.long
    def test_second_run_in_the_same_folder_is_refused_while_the_first_lives(self, data_dir, tmp_path):
        process = start(command("one", data_dir, tmp_path / "run"))
        wait_for_step(process, tmp_path / "run", 11)
        process.send_signal(signal.SIGSTOP)  # else it may be done before the second has begun
        result = run("train", *train_flags(data_dir, tmp_path / "run", *FLAGS))
        assert result.returncode != 0
        assert "Another process trains in `run_dir`" in result.stderr
        process.kill()
        process.communicate()


@pytest.mark.slow
class TestChangedFlags:
    @pytest.mark.long
    def test_changes_are_listed_and_allowed_by_a_flag(self, data_dir, run_dir, tmp_path):
        shutil.copytree(run_dir, tmp_path / "run")
        flags = train_flags(data_dir, tmp_path / "run", "--epochs=4", "--batch_size=100", "--weight_decay=0.001")
        refused = run("train", *flags)
        assert refused.returncode != 0
        assert "batch_size was 50 and is now 100" in refused.stderr
        assert "weight_decay was 0.0005 and is now 0.001" in refused.stderr
        assert "steps_per_epoch was 60 and is now 30" in refused.stderr
        assert "--allow_changed to resume nevertheless" in refused.stderr
        allowed = run("train", *flags, "--allow_changed")
        assert allowed.returncode == 0, allowed.stderr
        assert "Resuming with other settings: batch_size was 50" in allowed.stderr
        assert "Resuming after step 60, in epoch 3." in allowed.stdout  # of 120 steps: two epochs are behind
        assert steps_saved(tmp_path / "run") == 120

    @pytest.mark.slow
    def test_other_network_is_never_allowed(self, data_dir, run_dir, tmp_path):
        shutil.copytree(run_dir, tmp_path / "run")
        result = run("train", *train_flags(data_dir, tmp_path / "run", "--optimizer=lars", "--allow_changed"))
        assert result.returncode != 0
        assert "optimizer was 'momentum' and is now 'lars'" in result.stderr
        assert "--allow_changed" not in result.stderr.splitlines()[-1]
