"""alexnet-train as several workers."""

import json
import subprocess
import sys

import pytest
from programs import ENVIRONMENT, call, run_well, train_flags

pytestmark = pytest.mark.slow


def test_only_the_chief_writes_and_its_metrics_are_global(data_dir, tmp_path):
    flags = ("--epochs=1", "--batch_size=500", "--num_local_workers=2")
    output = run_well("train", *train_flags(data_dir, tmp_path / "run", *flags))
    assert "2 replicas on 2 workers" in output
    assert output.count("Trained to the end of epoch 1") == 1
    written = sorted(path.name for path in (tmp_path / "run").iterdir())
    expected = [
        ".lock",
        "checkpoints",
        "config.json",
        "dataset.json",
        "initial_kernels.npz",
        "model.keras",
        "statistics.npz",
        "tensorboard",
        "training.json",
    ]
    assert written == expected
    event_files = [path.name for path in (tmp_path / "run" / "tensorboard").rglob("events*")]
    assert len({name.split(".")[5] for name in event_files}) == 1  # events.out.tfevents.TIME.HOST.PROCESS
    reported = json.loads((tmp_path / "run" / "training.json").read_text())
    evaluation = call("evaluate", f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}", "--noten_views")
    assert f"{reported['val_top1_error']:.2%}" in evaluation


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
