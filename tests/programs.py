"""Runs the programs as a user does, in processes of their own, and servers for them in a thread of this one."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import threading

from absl import flags
from PIL import Image

from alexnet_tf import options
from alexnet_tf.tfrecords import sources

ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def program(module, *flags):
    return [sys.executable, "-m", f"alexnet_tf.{module}", *map(str, flags)]


def run(module, *flags, environment=None):
    """Runs a program to its end, with more environment variables; returns the finished process."""
    variables = ENVIRONMENT | (environment or {})
    return subprocess.run(program(module, *flags), env=variables, capture_output=True, text=True, check=False)


def run_well(module, *flags):
    """Runs a program that must succeed; returns its stdout."""
    result = run(module, *flags)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


TRAIN_FLAGS = (
    "--variant=testing",
    "--batch_size=50",
    "--initializer=he_normal",
    "--input_scale=0.0125",
    "--schedule=cosine",
    "--learning_rate=0.1",
    "--seed=3",
)


def call(module, *arguments):
    """Runs a program's main function in this process; returns its stdout.

    A user's mistake raises an exception; what was printed before is on this process's stdout."""
    program_module = importlib.import_module(f"alexnet_tf.{module}")
    defined, stdout = set(flags.FLAGS), io.StringIO()
    try:
        program_module.define_flags()
        others = flags.FLAGS([module, *map(str, arguments)])[1:]
        with contextlib.redirect_stdout(stdout):
            program_module.main(others)
    except BaseException:
        print(stdout.getvalue(), end="")
        raise
    finally:
        for name in set(flags.FLAGS) - defined:
            delattr(flags.FLAGS, name)
    return stdout.getvalue()


@contextlib.contextmanager
def flag_reader(config):
    """Yields a function from flags to the configuration of this dataclass that they give."""
    before = set(flags.FLAGS)
    options.define_flags(config)
    own = set(flags.FLAGS) - before

    def read(*arguments):
        for name in own:
            flags.FLAGS[name].unparse()
        flags.FLAGS(["program", *map(str, arguments)])
        return options.read_flags(config)

    yield read
    for name in own:
        delattr(flags.FLAGS, name)


def train_flags(data_dir, run_dir, *others):
    return (*TRAIN_FLAGS, f"--data_dir={data_dir}", f"--run_dir={run_dir}", *others)


def image_files(folder, count):
    """The first validation images, written as PNG files."""
    paths = []
    for index, (_, image, _) in enumerate(sources.open_source("fashion_mnist").read("validation", 0, count)):
        paths.append(folder / f"image-{index}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


@contextlib.contextmanager
def in_background(server):
    """Runs a `socketserver.BaseServer` to the end of the block, also if a test fails."""
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:  # its thread would take a core from then on
            server.shutdown()
