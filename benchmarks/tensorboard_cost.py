"""Measures what logging to TensorBoard costs a training step of the paper's network with 1,000 classes.

    python benchmarks/tensorboard_cost.py --batch_size=32 --rounds=8

Two models train alternately on the same images in memory, A as bare Keras does, B with everything that alexnet-train
measures and logs. Prints a Markdown table: the time of a step of each, their ratio, and the time that a log point, the
end of an epoch and the end of the run take alone. Reading data is not part of it.
"""

import statistics
import tempfile
import time
import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from alexnet_tf import model
from alexnet_tf.distribution import strategies
from alexnet_tf.networks import variants
from alexnet_tf.tfrecords import schema
from alexnet_tf.training import compilation, fit, gradient_norms, optimizers, tensorboard_logger
from alexnet_tf.training.config import TrainConfig

CLASSES = 1000


def define_flags():
    flags.DEFINE_string("variant", "paper", "The network.")
    flags.DEFINE_integer("batch_size", 32, "Images per step.")
    flags.DEFINE_integer("log_every", 20, "Steps between log points.")
    flags.DEFINE_integer("rounds", 8, "Number of rounds; in each A and B train --log_every steps.")
    flags.DEFINE_string("jit", "auto", "As in alexnet-train.")


class Clock(keras.callbacks.Callback):
    """Measures a turn's steps without its first, which starts the data, and what `inner`, a callback, takes of them."""

    def __init__(self, inner=None):
        super().__init__()
        self.inner = inner
        self.seconds = self.inner_seconds = self.epoch_end_seconds = 0.0

    def _of_inner(self, name, *args):
        begin = time.perf_counter()
        if self.inner:
            getattr(self.inner, name)(*args)
        return time.perf_counter() - begin

    def set_model(self, model):
        super().set_model(model)
        self._of_inner("set_model", model)

    def set_params(self, params):
        super().set_params(params)
        self._of_inner("set_params", params)

    def on_train_begin(self, logs=None):
        self._of_inner("on_train_begin")

    def on_epoch_begin(self, epoch, logs=None):
        self._of_inner("on_epoch_begin", epoch)

    def on_train_batch_begin(self, batch, logs=None):
        self.inner_seconds += self._of_inner("on_train_batch_begin", batch)

    def on_train_batch_end(self, batch, logs=None):
        self.inner_seconds += self._of_inner("on_train_batch_end", batch, logs)
        if batch == 0:
            self.inner_seconds, self.begin = 0.0, time.perf_counter()
        self.seconds = time.perf_counter() - self.begin

    def on_epoch_end(self, epoch, logs: Any = None):
        self.epoch_end_seconds = self._of_inner(
            "on_epoch_end", epoch, logs | {f"val_{name}": logs[name] for name in logs}
        )


def make_model(flag, jit, measured):
    """Returns (network, training model, confusion matrix, gradient norms); the last two are None unless measured."""
    keras.utils.set_random_seed(0)
    alexnet = model.build_alexnet(flag.variant, CLASSES)
    trained, optimizer = model.with_color_offset(alexnet), optimizers.PaperMomentum(1e-5)
    confusion_matrix = compilation.compile_model(trained, optimizer, jit)
    if measured:
        norms = gradient_norms.GradientNorms(trained.trainable_variables, always=jit)
        optimizer.gradient_norms = norms
        return alexnet, trained, confusion_matrix, norms
    trained.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"),
        ],
        jit_compile=jit,
    )
    return alexnet, trained, None, None


def main(argv):
    del argv
    flag = flags.FLAGS
    jit = strategies.use_jit(flag.jit, strategies.make_strategy("one"))
    side, rng = variants.VARIANTS[flag.variant].image_px, np.random.default_rng(0)
    images = rng.integers(0, 256, (flag.batch_size, side, side, 3), "uint8")
    labels = rng.integers(0, CLASSES, flag.batch_size).astype("int32")
    inputs = {"image": images, "color_offset": np.zeros((flag.batch_size, 3), "float32")}

    def training_data():
        return tf.data.Dataset.from_tensors((inputs, labels)).repeat().prefetch(2)

    class_names = tuple(f"class {number}" for number in range(CLASSES))
    with tempfile.TemporaryDirectory() as folder:
        _, bare, _, _ = make_model(flag, jit, measured=False)
        alexnet, full, confusion_matrix, norms = make_model(flag, jit, measured=True)
        assert norms is not None
        input_clock = fit.InputClock()
        full.make_train_function()
        full.train_function = input_clock.wrap(full.train_function)
        config = TrainConfig(
            data_dir="",
            run_dir=folder,
            variant=flag.variant,
            batch_size=flag.batch_size,
            log_every=10**9,  # the only log point is at the end of each turn, --log_every steps after the last one
        )
        training: Any = types.SimpleNamespace(network=alexnet, confusion_matrix=confusion_matrix, gradient_norms=norms)
        data: Any = types.SimpleNamespace(
            description=schema.DatasetDescription(class_names, side, False, "raw", splits={}, settings={}),
            training=lambda step, share: training_data(),
            validation=lambda share: tf.data.Dataset.from_tensors((images, labels)).repeat(),
            first_validation_image=lambda: images[0],
            training_images=0,
            skipped=[],
        )
        logger = tensorboard_logger.TensorBoardLogger(config, training, data, 0, input_clock)
        clocks, times = {"A": Clock(), "B": Clock(logger)}, {"A": [], "B": []}
        entries, epoch_ends = [], []
        for turn in range(flag.rounds + 1):
            for name, trained in (("A", bare), ("B", full)):
                trained.fit(
                    training_data(),
                    steps_per_epoch=flag.log_every + 1,
                    initial_epoch=turn,
                    epochs=turn + 1,
                    callbacks=[clocks[name]],
                    verbose=0,
                    shuffle=False,
                )
                if turn:  # the first compiles
                    times[name].append(clocks[name].seconds / flag.log_every)
            if turn:
                entries.append(clocks["B"].inner_seconds)
                epoch_ends.append(clocks["B"].epoch_end_seconds)
        begin = time.perf_counter()
        logger.finish()
        end_seconds = time.perf_counter() - begin

    ratios = sorted(b / a for a, b in zip(times["A"], times["B"], strict=True))
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    entry = statistics.median(entries)
    cells = {
        "images per step": flag.batch_size,
        "A, ms": f"{1000 * statistics.median(times['A']):.0f}",
        "B, ms": f"{1000 * statistics.median(times['B']):.0f}",
        "B / A, median (quartiles)": f"{middle:.3f} ({low:.3f} to {high:.3f})",
        "log point, ms": f"{1000 * entry:.0f}",
        f"share of {flag.log_every} steps": f"{entry / statistics.median(times['B']) / flag.log_every:.2%}",
        "end of epoch, s": f"{statistics.median(epoch_ends):.1f}",
        "end of run, s": f"{end_seconds:.1f}",
    }
    print(
        "| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|\n| " + " | ".join(map(str, cells.values())) + " |"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
