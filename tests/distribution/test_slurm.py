"""alexnet-train as the tasks of a SLURM job."""

import subprocess
import sys

import pytest
from programs import ENVIRONMENT, train_flags


@pytest.mark.slow
@pytest.mark.long
def test_slurm_starts_workers(data_dir, tmp_path):
    flags = train_flags(data_dir, tmp_path / "run", "--epochs=1")
    processes = []
    for task in range(2):
        slurm = {
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_PROCID": str(task),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_TASKS_PER_NODE": "2",
        }
        command = [sys.executable, "-m", "alexnet_tf.train", *flags]
        processes.append(
            subprocess.Popen(command, env=ENVIRONMENT | slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert b"2 replicas on 2 workers" in outputs[0][0]
    assert (tmp_path / "run" / "model.keras").exists()
