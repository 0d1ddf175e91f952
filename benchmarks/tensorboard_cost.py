"""What TensorBoard's entries cost a training step of the paper's network with 1,000 classes.

    python benchmarks/tensorboard_cost.py --batch_size=32 --rounds=8

Two models train in turn on the same images in memory, A as bare Keras does, B with all that alexnet-train measures and
writes. Prints a Markdown table: a step of each, their ratio in each turn, and how long an entry, an epoch's end and the
run's end take by themselves. Speeds of reading data don't come into it.
"""

import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from alexnet_tf import model, variants
from alexnet_tf.distribution import strategies
from alexnet_tf.training import loop, optimizers, tensorboard_logger

CLASSES = 1000


def define_flags():
    flags.DEFINE_string("variant", "paper", "The network.")
    flags.DEFINE_integer("batch_size", 32, "Images in a step.")
    flags.DEFINE_integer("log_every", 20, "Steps between entries.")
    flags.DEFINE_integer("rounds", 8, "How often A and B take turns, of --log_every steps each.")
    flags.DEFINE_string("jit", "auto", "As alexnet-train takes it.")


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

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_end_seconds = self._of_inner(
            "on_epoch_end", epoch, logs | {f"val_{name}": logs[name] for name in logs}
        )


def make_model(flag, jit, measured):
    keras.utils.set_random_seed(0)
    alexnet = model.build_alexnet(flag.variant, CLASSES)
    trained, optimizer = model.with_color_offset(alexnet), optimizers.PaperMomentum(1e-5)
    confusion_matrix = loop.compile_model(trained, optimizer, jit)
    if measured:
        optimizer.measure_gradients(always=jit)
        return alexnet, trained, confusion_matrix
    trained.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"),
        ],
        jit_compile=jit,
    )
    return alexnet, trained, None


def main(argv):
    del argv
    flag = flags.FLAGS
    jit = loop.use_jit(flag.jit, strategies.make_strategy("one"))
    side, rng = variants.VARIANTS[flag.variant].image_px, np.random.default_rng(0)
    images = rng.integers(0, 256, (flag.batch_size, side, side, 3), "uint8")
    labels = rng.integers(0, CLASSES, flag.batch_size).astype("int32")
    inputs = {"image": images, "color_offset": np.zeros((flag.batch_size, 3), "float32")}

    def training_data():
        return tf.data.Dataset.from_tensors((inputs, labels)).repeat().prefetch(2)

    with tempfile.TemporaryDirectory() as folder:
        _, bare, _ = make_model(flag, jit, measured=False)
        alexnet, full, confusion_matrix = make_model(flag, jit, measured=True)
        input_clock = loop.InputClock()
        full.make_train_function()
        full.train_function = input_clock.wrap(full.train_function)
        book = tensorboard_logger.Diary(
            pathlib.Path(folder),
            10**9,  # an entry at the end of each turn alone, which is --log_every steps after the last
            flag.batch_size,
            0,
            images[:8],
            {"flags": "none"},
            [f"class {number}" for number in range(CLASSES)],
            confusion_matrix,
            {"variant": flag.variant},
            input_clock,
        )
        clocks, times = {"A": Clock(), "B": Clock(book)}, {"A": [], "B": []}
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
        book.finish(alexnet, tf.data.Dataset.from_tensors((images, labels)).repeat())
        end_seconds = time.perf_counter() - begin

    ratios = sorted(b / a for a, b in zip(times["A"], times["B"], strict=True))
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    entry = statistics.median(entries)
    cells = {
        "images a step": flag.batch_size,
        "A, ms": f"{1000 * statistics.median(times['A']):.0f}",
        "B, ms": f"{1000 * statistics.median(times['B']):.0f}",
        "B / A, median (quartiles)": f"{middle:.3f} ({low:.3f} to {high:.3f})",
        "an entry, ms": f"{1000 * entry:.0f}",
        f"of {flag.log_every} steps": f"{entry / statistics.median(times['B']) / flag.log_every:.2%}",
        "epoch's end, s": f"{statistics.median(epoch_ends):.1f}",
        "run's end, s": f"{end_seconds:.1f}",
    }
    print(
        "| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|\n| " + " | ".join(map(str, cells.values())) + " |"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
