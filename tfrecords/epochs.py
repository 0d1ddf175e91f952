"""The order of the training images: one permutation per epoch, whatever the number of workers."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import records

# A window of the epoch is read while the previous one is decoded, so that memory holds two windows.
WINDOW_IMAGES = 4096
WINDOW_BYTES = 128e6
# Consecutive records that stay together in a window. An object store sends TensorFlow 1 MB per request.
RUN_IMAGES = 32
RUN_BYTES = 1e6
MIN_RUNS = 1024  # in an epoch: a small data set has shorter runs


@dataclasses.dataclass(frozen=True)
class EpochOrder:
    """The order in which an epoch reads the records.

    1. The epoch is a random permutation of runs of consecutive records, laid end to end.
    2. It is cut into windows of some steps, which are read one after another.
    3. A window of n steps is cut into `batch_size` stretches of n records. Each step takes one record of each stretch,
       in random order.

    So a batch holds records from all over its window; and a worker, whose images are some of each batch, reads some of
    the stretches and nothing else. The records after the last full batch are not read; they differ between epochs.

    Attributes:
        count: number of records.
        record_bytes: their mean size.
        batch_size: images in a step, of all workers together.
        seed: any integer.
    """

    count: int
    record_bytes: float
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return self.count // self.batch_size

    @property
    def run_length(self) -> int:
        """Records in a run."""
        return max(1, min(RUN_IMAGES, int(RUN_BYTES / self.record_bytes), self.count // MIN_RUNS))

    @property
    def windows(self) -> int:
        """Windows in an epoch."""
        images = min(WINDOW_IMAGES, int(WINDOW_BYTES / self.record_bytes))
        return -(-self.steps // max(1, images // self.batch_size))

    def first_step(self, window):
        """The first step of a window; an integer or an int64 scalar, as `window`."""
        return window * self.steps // self.windows

    def key(self, epoch: tf.Tensor) -> tf.Tensor:
        """The key of an epoch's random numbers, int64 (2,)."""
        return tf.random.fold_in(tf.constant([self.seed, 0], tf.int64), tf.cast(epoch, tf.int64))

    def step_key(self, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The key of a step's random numbers, int64 (2,)."""
        return tf.random.fold_in(self.key(epoch), self.windows + step)

    def window(self, epoch: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        """The numbers of the records in a window, int64 (steps, batch_size), eagerly or in a graph.

        Args:
            epoch: int64 scalar.
            window: int64 scalar, number of the window in the epoch.
        """
        key, window = self.key(epoch), tf.cast(window, tf.int64)
        first, end = self.first_step(window), self.first_step(window + 1)
        stretches_key, steps_key = tf.unstack(tf.random.split(tf.random.fold_in(key, window)))
        numbers = self._numbers(tf.range(first * self.batch_size, end * self.batch_size), key)
        stretches = tf.reshape(numbers, (self.batch_size, -1))
        stretches = tf.random.experimental.stateless_shuffle(stretches, stretches_key)
        steps = tf.argsort(tf.random.stateless_uniform(tf.shape(stretches), steps_key))
        return tf.transpose(tf.gather(stretches, steps, batch_dims=1))

    def _numbers(self, places, key):
        """The numbers of the records at places of the epoch."""
        firsts = np.arange(0, self.count, self.run_length)
        lengths = np.minimum(self.run_length, self.count - firsts)  # the last run may be shorter
        runs = tf.random.experimental.stateless_shuffle(tf.range(len(firsts)), key)
        begins = tf.cumsum(tf.gather(lengths, runs), exclusive=True)
        found = tf.searchsorted(begins, places, side="right") - 1
        return tf.gather(tf.gather(firsts, runs), found) + places - tf.gather(begins, found)


def read_epochs(
    order: EpochOrder,
    found: records.Records,
    draw: Callable[[tf.Tensor, tf.Tensor], Any],
    columns: slice,
    start_epoch: int,
    start_step: int,
) -> tf.data.Dataset:
    """Reads one worker's records, epoch after epoch, without end.

    Args:
        order: the order of all workers' records.
        found: the records.
        draw: a function from the epoch and the step, int64 scalars, to the random numbers of this worker's images in
            the step: tensors (images, ...).
        columns: this worker's part of each batch.
        start_epoch, start_step: where to begin.

    Returns: a `tf.data.Dataset` of (string scalar, a record; its part of what `draw` returns).
    """

    def read_window(number):
        epoch, window = number // order.windows, number % order.windows
        first = order.first_step(window)
        skipped = tf.where(epoch == start_epoch, tf.maximum(start_step - first, 0), tf.constant(0, tf.int64))
        numbers = order.window(epoch, window)[skipped:, columns]
        flat = tf.reshape(numbers, (-1,))
        in_files = tf.argsort(flat)
        runs = tf.data.Dataset.from_tensor_slices(found.runs(tf.gather(flat, in_files)))
        encoded = records.interleave(runs, lambda *run: records.read_records(*run).batch(run[-1]))
        places = tf.reshape(tf.math.invert_permutation(in_files), tf.shape(numbers))
        steps = first + skipped + tf.range(tf.shape(numbers, tf.int64)[0])
        encoded = encoded.unbatch().batch(tf.size(flat, tf.int64))
        return encoded.map(lambda encoded: (encoded, epoch, steps, places))

    def read_steps(encoded, epoch, steps, places):
        # Copies one step's records at a time: in order, the whole window would be in memory twice.
        return tf.data.Dataset.from_tensor_slices((steps, places)).map(
            lambda step, places: (tf.gather(encoded, places), draw(epoch, step))
        )

    start = start_epoch * order.windows + sum(order.first_step(each + 1) <= start_step for each in range(order.windows))
    windows = tf.data.Dataset.range(start, tf.int64.max).flat_map(read_window)
    return windows.prefetch(1).flat_map(read_steps).unbatch()
