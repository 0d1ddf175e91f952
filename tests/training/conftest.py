"""A data set that is small and large enough for the testing network, and alexnet-train up to its first step on it."""

import dataclasses
import shutil
import signal
from typing import Any

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from alexnet_tf import train, train_flags
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.tfrecords import dataset_builder, reader
from alexnet_tf.training import fit

SMALL_IMAGE_PX = 60


@pytest.fixture(scope="session")
def small_data_dir(tmp_path_factory):
    """Images of 60 pixels whose red is 4 x row, green 4 x column, blue a number: 0 to 45 for training, and 100 to 109
    for validation; classes: even and odd."""
    root = tmp_path_factory.mktemp("small")
    rows, columns = np.mgrid[:SMALL_IMAGE_PX, :SMALL_IMAGE_PX]
    for split, numbers in (("train", range(46)), ("validation", range(100, 110))):
        for number in numbers:
            path = root / "images" / split / ("even", "odd")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.stack([4 * rows, 4 * columns, np.full_like(rows, number)], axis=-1).astype("uint8")
            Image.fromarray(pixels).save(path)
    dataset_builder.build_dataset(
        f"folder:{root / 'images'}",
        root / "data",
        image_px=SMALL_IMAGE_PX,
        encoding="png",
        num_train_shards=3,
        num_validation_shards=2,
        num_processes=1,
    )
    return root / "data"


@pytest.fixture
def damaged_data_dir(small_data_dir, tmp_path):
    """A copy with a bit flipped in a record of training images."""
    folder = shutil.copytree(small_data_dir, tmp_path / "damaged")
    shard = folder / "train-00001-of-00003"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return folder


class Reached(Exception):
    """Training would begin here."""


@dataclasses.dataclass
class Received:
    """What `fit.fit` received of alexnet-train."""

    model: Any
    training_data: Any
    validation_data: Any
    first_step: int
    steps_per_epoch: int
    epochs: int
    callbacks: list
    others: dict

    @property
    def network(self):
        return self.callbacks[-1].inference_model

    @property
    def optimizer(self):
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)

    def callback(self, kind):
        (found,) = [callback for callback in self.callbacks if isinstance(callback, kind)]
        return found

    def rate_at(self, step):
        self.optimizer.iterations.assign(step)
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))

    def rate_multipliers(self):
        paths = [variable.path for variable in self.optimizer._trainable_variables]
        return dict(zip(paths, np.asarray(self.optimizer.rate_multipliers).tolist(), strict=True))

    def first_batch(self, first_step=0):
        inputs, _ = next(iter(self.training_data(first_step, reader.Share())))
        return inputs["image"].numpy(), inputs["color_offset"].numpy()


@pytest.fixture(scope="module")
def flag():
    """absl's flags, with those of alexnet-train defined."""
    before = set(flags.FLAGS)
    train_flags.define_flags()
    yield flags.FLAGS
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture(scope="module")
def train_here(flag, small_data_dir):
    """A function that runs alexnet-train in this process, from a run's folder and flags."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def train_here(run_dir, *arguments):
        for each in flag.get_flags_for_module(train_flags.__name__):
            each.unparse()
        own = (f"--data_dir={small_data_dir}", f"--run_dir={run_dir}", "--variant=testing", "--batch_size=10")
        flag(["alexnet-train", *own, *arguments])
        keras.utils.clear_session()  # random generators are then named as in a process of its own
        try:
            train_flags.check_flags(flag)
            train.train(flag, Worker())
        finally:
            keras.config.set_dtype_policy("float32")
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return train_here


@pytest.fixture(scope="module")
def start(train_here):
    """A function that runs alexnet-train up to its first step: from a run's folder and flags to what `fit` received."""

    def start(run_dir, *arguments):
        received = []

        def record(*positional, **others):
            received.append(Received(*positional, others))
            raise Reached

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit, "fit", record)
            with pytest.raises(Reached):
                train_here(run_dir, *arguments)
        return received[0]

    return start
