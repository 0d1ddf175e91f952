"""A small data set for the testing network, and alexnet-train in this process, also up to its first step only."""

import dataclasses
import functools
import itertools
import shutil
import signal
import types
from typing import Any

import keras
import programs
import pytest
from absl import logging
from made_numbered import build_numbered

from alexnet_tf import train
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.figures import image_grids
from alexnet_tf.tfrecords import schema
from alexnet_tf.training import fit, procedure, summaries, tensorboard_logger
from alexnet_tf.training.config import TrainConfig


@pytest.fixture(scope="session")
def small_data_dir(tmp_path_factory):
    """The data set of `made_numbered` at 60 pixels, in 3 and 2 shards."""
    return build_numbered(tmp_path_factory.mktemp("small"), 60, num_train_shards=3)


@pytest.fixture
def damaged_data_dir(small_data_dir, tmp_path):
    """A copy with a bit flipped in a record of training images."""
    folder = shutil.copytree(small_data_dir, tmp_path / "damaged")
    shard = folder / "train-00001-of-00003"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def make_config(small_data_dir):
    """A function from changes to the configuration of a run of 4 steps per epoch."""

    def make(**changes):
        own = {"data_dir": str(small_data_dir), "run_dir": "run", "variant": "testing", "batch_size": 10}
        return TrainConfig(**own | changes)

    return make


@pytest.fixture(scope="module")
def read_config():
    """A function from the flags of alexnet-train to their configuration."""
    with programs.flag_reader(TrainConfig) as read:
        yield read


class Reached(Exception):
    """Training would begin here."""


@dataclasses.dataclass
class Received:
    """What `fit.fit` received from alexnet-train."""

    training_model: Any
    data: Any
    start: Any
    epochs: int
    callbacks: list
    worker: Any
    input_wait_timer: Any

    @property
    def network(self):
        return self.callbacks[-1].compiled.network

    @property
    def optimizer(self):
        return getattr(self.training_model.optimizer, "inner_optimizer", self.training_model.optimizer)

    def callback(self, kind):
        (found,) = [callback for callback in self.callbacks if isinstance(callback, kind)]
        return found

    def rate_at(self, step):
        self.optimizer.iterations.assign(step)
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))


@pytest.fixture(scope="session")
def train_here(make_config):
    """A function that runs alexnet-train in this process, from a run's folder and changes of the configuration."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def train_here(run_dir, **changes):
        keras.utils.clear_session()  # random generators then have the same names as in a new process
        try:
            config = make_config(run_dir=str(run_dir), **changes)
            train.check_start(config)
            procedure.train(config, Worker())
        finally:
            keras.config.set_dtype_policy("float32")
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return train_here


@pytest.fixture
def without_pictures(monkeypatch):
    """Training draws nothing for TensorBoard, which takes as long as all else in a short run."""
    monkeypatch.setattr(tensorboard_logger, "_write_image", lambda *_: None)
    monkeypatch.setattr(summaries, "write_projector", lambda *_: None)


@pytest.fixture(scope="module")
def start(train_here):
    """A function that runs alexnet-train up to its first step, and returns what `fit` received."""

    def start(run_dir, **changes):
        received = []

        def record(*arguments):
            received.append(Received(*arguments))
            raise Reached

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit, "fit", record)
            with pytest.raises(Reached):
                train_here(run_dir, **changes)
        return received[0]

    return start


@pytest.fixture(scope="session")
def whole_run(train_here, small_data_dir, tmp_path_factory):
    """A run of two epochs of four steps: its folder, its warnings and its options. Its classes have odd names, and
    drawing a picture fails."""
    options = {
        "initializer": "he_normal",
        "input_scale": 0.0125,
        "seed": 5,
        "epochs": 2,
        "learning_rate": 0.64,
        "scale_lr": "linear",
        "schedule": "cosine",
        "warmup_steps": 2,
        "freeze": ("conv2",),
        "layer_rates": {"fc7": 0.0},
        "bias_rate": 0.0,
        "log_every": 3,
        "checkpoint_every_steps": 3,
        "profile_steps": (2, 3),
    }
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(small_data_dir, folder / "data")
    description = schema.load_description(folder / "data")
    dataclasses.replace(description, class_names=(r"$\frac{1}$", "$x^2$")).save(folder / "data")
    warnings, seconds, waited = [], itertools.count(step=0.5), itertools.count(step=0.1)
    with pytest.MonkeyPatch.context() as patch:
        # With these clocks half a second passes between two log points, and every batch takes 0.1 seconds.
        for module, clock in ((tensorboard_logger, seconds), (fit, waited)):
            patch.setattr(module, "time", types.SimpleNamespace(perf_counter=functools.partial(next, clock)))
        patch.setattr(image_grids, "kernel_sheet", lambda layer: 1 / 0)
        patch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
        train_here(folder / "run", data_dir=str(folder / "data"), **options)
    return types.SimpleNamespace(folder=folder / "run", warnings=warnings, options=options)
