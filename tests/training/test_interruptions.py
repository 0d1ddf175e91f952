"""alexnet-train on one machine, killed, stopped, or with a full disk: the same command resumes, and nothing is lost."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from interruptions import (
    FLAGS,
    STEPS,
    assert_same_weights,
    command,
    finish,
    start,
    steps_saved,
    wait_for_step,
)
from programs import program, run, train_flags

from alexnet_tf.distribution import local_workers


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    """A function from a mode to the folder of a complete run that nothing interrupted."""
    folders = {}

    def folder(mode):
        if mode not in folders:
            folders[mode] = tmp_path_factory.mktemp("uninterrupted") / mode
            finish(command(mode, data_dir, folders[mode]))
        return folders[mode]

    return folder


@pytest.mark.slow
class TestKill:
    def test_resume_after_sigkill_is_bit_identical(self, data_dir, uninterrupted, tmp_path):
        arguments = command("one", data_dir, tmp_path / "run")
        process = start(arguments)
        wait_for_step(process, tmp_path / "run", 22)
        process.kill()
        process.communicate()
        done = steps_saved(tmp_path / "run")
        assert done < STEPS, "killed too late to be a test"
        half = tmp_path / "run" / "checkpoints" / ".tmp-half"
        half.mkdir()
        (half / "model.keras").write_bytes(b"half")
        assert f"Resuming after step {done}," in finish(arguments)
        assert not half.exists()
        assert_same_weights(tmp_path / "run", uninterrupted("one"))

    @pytest.mark.long
    def test_twelve_kills_at_random_times_are_bit_identical(self, data_dir, uninterrupted, tmp_path):
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
            assert f"Resuming after step {lost[-1]}," in finish(arguments)
            assert_same_weights(run_dir, uninterrupted(mode))
            assert not list((run_dir / "checkpoints").glob(".tmp-*"))
        assert len(set(lost)) > 5, "killed at the same moment again and again"

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
        options = (*FLAGS, "--precision=mixed_float16", "--learning_rate=0.05")
        for name in ("uninterrupted", "killed"):
            arguments = [sys.executable, "-c", script, *train_flags(data_dir, tmp_path / name, *options)]
            if name == "killed":
                process = start(arguments)
                wait_for_step(process, tmp_path / name, 66)
                process.kill()
                process.communicate()
                assert steps_saved(tmp_path / name) < STEPS
            output = finish(arguments)
        assert "Resuming after step" in output
        assert_same_weights(tmp_path / "uninterrupted", tmp_path / "killed")
        with np.load(tmp_path / "killed" / "checkpoints" / f"{STEPS:08d}" / "training_state.npz") as arrays:
            (iterations,) = [arrays[name] for name in arrays.files if name.endswith("paper_momentum.iteration")]
        assert 60 < iterations < STEPS


class TestStop:
    @pytest.mark.slow
    @pytest.mark.long
    def test_sigterm_saves_the_current_step(self, data_dir, uninterrupted, tmp_path):
        arguments = command("one", data_dir, tmp_path / "run")
        process = start([*arguments, "--checkpoint_every_steps=1000"])
        shown = ""
        while not re.search(r"[2-4]\d/60", shown):  # in the progress bar, which skips some steps
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
        assert f"Resuming after step {done}, in epoch {done // 60 + 1}." in finish(arguments)
        assert_same_weights(tmp_path / "run", uninterrupted("one"))

    @pytest.mark.slow
    @pytest.mark.long
    def test_sigterm_within_a_validation_repeats_it(self, data_dir, uninterrupted, tmp_path):
        # The process sends the signal to itself, at the first batch of the first validation.
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
        finish(program("train", *flags))
        assert_same_weights(tmp_path / "run", uninterrupted("one"))
        summaries = [
            json.loads((folder / "training.json").read_text()) for folder in (tmp_path / "run", uninterrupted("one"))
        ]
        for key in ("epochs", "val_top1_error", "val_top5_error"):
            assert summaries[0][key] == summaries[1][key]

    @pytest.mark.slow
    def test_sigterm_before_the_first_step_exits_at_once(self, data_dir, tmp_path):
        script = textwrap.dedent("""
            import os, signal
            from alexnet_tf import train
            from alexnet_tf.training import fit
            fit.fit = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
            train.run()
        """)
        process = start([sys.executable, "-c", script, *train_flags(data_dir, tmp_path / "run")])
        output, _ = process.communicate()
        assert process.returncode == local_workers.EXIT_STOPPED
        assert "Stopped on request" in output

    @pytest.mark.slow
    def test_ctrl_c_saves_and_stops(self, data_dir, tmp_path):
        process = start(
            command("one", data_dir, tmp_path / "run", "--checkpoint_every_steps=25"), start_new_session=True
        )
        wait_for_step(process, tmp_path / "run", 25)
        os.killpg(process.pid, signal.SIGINT)  # like a terminal: to the program and its group
        output, errors = process.communicate()
        assert process.returncode == local_workers.EXIT_STOPPED, errors
        assert "Stopped on request" in output
        assert steps_saved(tmp_path / "run") > 25


class TestDisk:
    @pytest.mark.slow
    @pytest.mark.long
    def test_full_disk_stops_the_run_and_keeps_the_last_checkpoint(self, data_dir, uninterrupted, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        try:
            flags = train_flags(data_dir, disk / "run", *FLAGS)
            result = run("train", *flags)
            assert result.returncode == 2
            last_line = result.stderr.splitlines()[-1]
            assert "No space left on device" in last_line
            assert f"can't be written to {disk / 'run' / 'checkpoints'}, where 0 MB are free" in last_line
            saved = sorted(path.name for path in (disk / "run" / "checkpoints").iterdir())
            assert saved and all(name.isdigit() for name in saved)
            subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
            assert f"Resuming after step {int(saved[-1])}," in finish(program("train", *flags))
            assert_same_weights(disk / "run", uninterrupted("one"))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
