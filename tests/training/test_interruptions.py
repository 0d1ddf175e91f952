"""alexnet-train on one machine, killed, stopped, or with a full disk: the same command resumes, and nothing is lost."""

import os
import random
import signal
import subprocess
import time

import pytest
from interruptions import (
    FEW_STEPS,
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
    def test_resume_after_sigkill_is_bit_identical(self, data_dir, train_here, read_config, tmp_path):
        arguments = command("one", data_dir, tmp_path / "run", *FEW_STEPS)
        process = start(arguments)
        wait_for_step(process, tmp_path / "run", 2)
        process.kill()
        process.communicate()
        done = steps_saved(tmp_path / "run")
        assert done < 12, "killed too late to be a test"
        half = tmp_path / "run" / "checkpoints" / ".tmp-half"
        half.mkdir()
        (half / "model.keras").write_bytes(b"half")
        assert f"Resuming after step {done}," in finish(arguments)
        assert not half.exists()
        flags = train_flags(data_dir, tmp_path / "uninterrupted", *FLAGS, *FEW_STEPS)
        train_here(**vars(read_config(*flags)))
        assert_same_weights(tmp_path / "run", tmp_path / "uninterrupted")

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
