"""Training processes that a test kills, stops and resumes."""

import pathlib
import subprocess
import sys
import textwrap
import time

import numpy as np
from programs import ENVIRONMENT, program, train_flags

from alexnet_tf.model import load_model

# alexnet-train on a machine with two devices.
TWO_DEVICES = textwrap.dedent("""
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from alexnet_tf import train
    train.run()
""")
# A schedule with a state, multipliers, options that depend on the epoch, and checkpoints within epochs: all of it must
# come back.
FLAGS = (
    *("--epochs=2", "--checkpoint_every_steps=11", "--schedule=plateau", "--plateau_patience=1", "--keep_best"),
    *("--layer_rates=conv1=2,fc8/bias=0", "--bias_rate=2", "--label_smoothing=0.1", "--images_per_crop=5"),
    "--color_noise_epochs=1",
)
STEPS = 2 * 60
FEW_STEPS = ("--batch_size=500", "--checkpoint_every_steps=2")  # 2 x 6
MODES = {
    "one": (),
    "mirrored": ("--strategy=mirrored",),
    "multi_worker": ("--num_local_workers=2",),
    "fc_parallel": ("--num_local_workers=2", "--fc_parallel"),
}


def command(mode, data_dir, run_dir, *others):
    flags = train_flags(data_dir, run_dir, *FLAGS, *MODES[mode], *others)
    return [sys.executable, "-c", TWO_DEVICES, *flags] if mode == "mirrored" else program("train", *flags)


def start(arguments, **options):
    return subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(arguments):
    """Runs a command that must succeed; returns its stdout."""
    process = start(arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    return output


def steps_saved(run_dir):
    folder = pathlib.Path(run_dir) / "checkpoints"
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def wait_for_step(process, run_dir, step):
    """Waits for a checkpoint of that step or a later one; returns the seconds that it took."""
    begin = time.monotonic()
    while steps_saved(run_dir) < step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return time.monotonic() - begin


def workers_of(process):
    """The process numbers of the workers that a process has started, in order."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(child): pathlib.Path(f"/proc/{child}/environ").read_text() for child in children}
    return sorted(environments, key=lambda child: '"index": 1' in environments[child])


def assert_same_weights(run_dir, other_dir):
    weights, others = (load_model(folder).get_weights() for folder in (run_dir, other_dir))
    assert all(np.std(weight) > 0 for weight in weights if weight.ndim > 1)  # not both of zeros
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, other)
