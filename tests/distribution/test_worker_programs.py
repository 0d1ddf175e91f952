"""alexnet-train as several workers."""

import json
import subprocess
import sys
import textwrap

import pytest
from programs import ENVIRONMENT, run, run_well, train_flags

pytestmark = pytest.mark.slow

# Runs a script as two workers.
TWO_WORKERS = """
import sys
from alexnet_tf.distribution import local_workers
sys.exit(local_workers.run_workers([sys.executable, "-c", *sys.argv[1:]], 2, 0))
"""


def test_only_the_chief_writes_and_its_metrics_are_global(data_dir, tmp_path):
    flags = train_flags(data_dir, tmp_path / "run", "--epochs=1", "--num_local_workers=2")
    output = run_well("train", *flags)
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
    evaluation = run_well("evaluate", f"--model={tmp_path / 'run'}", f"--data_dir={data_dir}", "--noten_views")
    assert f"{reported['val_top1_error']:.2%}" in evaluation


@pytest.mark.long
def test_workers_with_different_checkpoints_are_refused(data_dir, run_dir, tmp_path):
    # Like two machines whose --run_dir is not on the same disk: the second has no checkpoints.
    script = textwrap.dedent("""
        import json, os, sys
        if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
            sys.argv.append(f"--run_dir={sys.argv.pop(1)}")
        else:
            sys.argv.pop(1)
        from alexnet_tf import train
        train.run()
    """)
    flags = train_flags(data_dir, tmp_path / "run", "--epochs=1")
    run_well("train", *flags, "--num_local_workers=2", "--checkpoint_every_steps=1000")
    others = ("--epochs=2", "--allow_changed")
    command = [sys.executable, "-c", TWO_WORKERS, script, str(tmp_path / "other"), *flags, *others]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "a --run_dir on a disk that they share" in result.stderr
    assert "Worker 1 (localhost:" in result.stderr


@pytest.mark.long
def test_workers_with_different_flags_are_refused(data_dir, tmp_path):
    script = textwrap.dedent("""
        import json, os, sys
        from alexnet_tf import train
        if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
            sys.argv.append("--layer_rates=fc8=0")
        train.run()
    """)
    command = [sys.executable, "-c", TWO_WORKERS, script, *train_flags(data_dir, tmp_path / "run", "--epochs=1")]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "All workers must have the same flags" in result.stderr
    assert "'layer_rates': {'fc8': 0.0}" in result.stderr


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


def test_batch_that_workers_cannot_share_is_refused(data_dir, tmp_path):
    result = run("train", *train_flags(data_dir, tmp_path / "run", "--batch_size=25", "--num_local_workers=2"))
    assert result.returncode != 0
    assert "`batch_size` must be a multiple of the number of replicas, 2. Received: 25" in result.stderr
