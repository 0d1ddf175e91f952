"""What `fit` adds to a bare training step of the paper's network: alone with TensorBoard on, and with real reading.

    python benchmarks/fit.py --batch_size=32

Times three kinds of steps in turn: bare ones; those within `fit`, on a batch in memory, with TensorBoard writing every
step; and those within `fit` on JPEGs that are read, decoded and cropped meanwhile. The last line is JSON: the medians
in seconds, and images/s of the reading alone.
"""

import json
import pathlib
import statistics
import tempfile
import time

import contestants
import keras
import synthetic
import tensorflow as tf
from absl import app, flags

from alexnet_tf import model
from alexnet_tf.distribution import strategies
from alexnet_tf.tfrecords import dataset_builder, reader
from alexnet_tf.training import compilation, optimizers

_PHOTOS = 128


def define_flags():
    flags.DEFINE_integer("batch_size", 32, "Images in a step.")
    flags.DEFINE_integer("steps", 8, "Steps of each kind in a round.")
    flags.DEFINE_integer("rounds", 5, "How often each kind is timed, in turn.")


class StepTimes(keras.callbacks.Callback):
    """The seconds from the end of a step to the end of the next, including what other callbacks do in between."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.last_end = None

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.last_end is not None:
            self.seconds.append(now - self.last_end)
        self.last_end = now


def main(argv):
    del argv
    flag = flags.FLAGS
    batch_size = flag.batch_size
    trained = model.with_color_offset(model.build_alexnet("paper", contestants.CLASSES))
    jit = strategies.use_jit("auto", strategies.make_strategy("one"))
    compilation.compile_model(trained, optimizers.PaperMomentum(contestants.RATE), jit)
    pixels, labels = contestants.random_batch(batch_size)
    in_memory = tf.data.Dataset.from_tensors(({"image": pixels, "color_offset": tf.zeros((batch_size, 3))}, labels))
    in_memory = in_memory.repeat()

    with tempfile.TemporaryDirectory() as folder:
        photos = pathlib.Path(folder) / "photos"
        synthetic.write_photos(photos, _PHOTOS)
        dataset_builder.build_dataset(f"folder:{photos}", f"{folder}/data", num_processes=1)
        read = reader.make_training_dataset(f"{folder}/data", batch_size, contestants.IMAGE_PX)

        trained.make_train_function()
        batches = iter(in_memory)
        trained.train_function(batches)
        bare, on_memory, on_photos = [], StepTimes(), StepTimes()
        for number in range(flag.rounds):
            for _ in range(flag.steps):
                begin = time.perf_counter()
                trained.train_function(batches)
                bare.append(time.perf_counter() - begin)
            for dataset, times in ((in_memory, on_memory), (read, on_photos)):
                tensorboard = keras.callbacks.TensorBoard(f"{folder}/logs{number}", histogram_freq=1, update_freq=1)
                trained.fit(
                    dataset, steps_per_epoch=flag.steps + 1, callbacks=[times, tensorboard], shuffle=False, verbose=0
                )
        images, batches = 0, iter(read.take(2 + 4096 // batch_size))
        next(batches)  # which is there when the clock starts
        begin = time.perf_counter()
        for _, labels in batches:
            images += len(labels)
        input_rate = images / (time.perf_counter() - begin)
    result = {"batch_size": batch_size, "bare": statistics.median(bare), "fit": statistics.median(on_memory.seconds)}
    result |= {"fit_reading": statistics.median(on_photos.seconds), "input_rate": input_rate}
    print(json.dumps(result))


if __name__ == "__main__":
    define_flags()
    app.run(main)
