"""The order of the training images: one permutation per epoch, the same for any number of workers.

A block is a number of consecutive records of the files, which are read at once. An epoch is a random permutation of the
blocks. It is cut into windows of several steps, and the records of a window are mixed: the window is laid out as a
table with a row for each position in the global batch and a column for each step, and then its rows, and the records in
each row, are shuffled. Each column is a batch. For example, 12 records in blocks of two, with a batch size of two and
windows of three steps:

    records                0 1 | 2 3 | 4 5 | 6 7 | 8 9 | 10 11
    blocks, shuffled       6 7 | 2 3 | 10 11 | 4 5 | 0 1 | 8 9
    first window           6  7  2     its rows and their        10  3  11
                           3 10 11     records, shuffled          7  6   2     the batches: (10, 7), (3, 6), (11, 2)
    second window          4  5  0     ...
                           1  8  9

So each batch has records from all over its window. A worker, which has some positions in each batch, reads only the
records of these rows. The records after the last full batch are left out, different ones in each epoch.
"""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import records

# A window is read while the previous one is consumed: two are in memory.
WINDOW_IMAGES = 4096
WINDOW_BYTES = 128e6
BLOCK_IMAGES = 32
BLOCK_BYTES = 1e6  # TensorFlow reads 1 MB per request from Google Cloud Storage
MIN_BLOCKS = 1024  # in an epoch: small data sets have shorter blocks


@dataclasses.dataclass(frozen=True)
class EpochOrder:
    """The order in which an epoch reads the records of the training split; see the module's documentation.

    Attributes:
        count: number of records.
        record_bytes: mean size of a record.
        batch_size: global batch size.
        seed: any integer.
    """

    count: int
    record_bytes: float
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return self.count // self.batch_size

    @property
    def block_length(self) -> int:
        """Number of records in a block."""
        return max(1, min(BLOCK_IMAGES, int(BLOCK_BYTES / self.record_bytes), self.count // MIN_BLOCKS))

    @property
    def windows(self) -> int:
        """Number of windows in an epoch."""
        images = min(WINDOW_IMAGES, int(WINDOW_BYTES / self.record_bytes))
        return -(-self.steps // max(1, images // self.batch_size))

    def first_step(self, window):
        """The first step of a window, which is an integer or an int64 scalar."""
        return window * self.steps // self.windows

    def window_of(self, step: int) -> int:
        """The window that contains a step."""
        return ((step + 1) * self.windows - 1) // self.steps

    def key(self, epoch: tf.Tensor | int) -> tf.Tensor:
        """The key of an epoch's random numbers, int64 (2,)."""
        return tf.random.fold_in(tf.constant([self.seed, 0], tf.int64), tf.cast(epoch, tf.int64))

    def step_key(self, epoch: tf.Tensor | int, step: tf.Tensor | int) -> tf.Tensor:
        """The key of a step's random numbers, int64 (2,)."""
        return tf.random.fold_in(self.key(epoch), self.windows + step)

    def window(self, epoch: tf.Tensor | int, window: tf.Tensor | int) -> tf.Tensor:
        """The indices of the records in a window, int64 (steps, batch_size). `epoch` and `window` are int64 scalars."""
        key, window = self.key(epoch), tf.cast(window, tf.int64)
        first, end = self.first_step(window), self.first_step(window + 1)
        rows_key, records_key = tf.unstack(tf.random.split(tf.random.fold_in(key, window)))
        indices = self._indices(tf.range(first * self.batch_size, end * self.batch_size), key)
        rows = tf.random.experimental.stateless_shuffle(tf.reshape(indices, (self.batch_size, -1)), rows_key)
        columns = tf.argsort(tf.random.stateless_uniform(tf.shape(rows), records_key))
        indices = tf.gather(rows, columns, batch_dims=1)
        # As float64: on some processors TensorFlow logs an error when it transposes integers.
        return tf.cast(tf.transpose(tf.cast(indices, tf.float64)), tf.int64)

    def _indices(self, positions, key):
        """The indices of the records at positions in the permutation."""
        firsts = np.arange(0, self.count, self.block_length)
        lengths = np.minimum(self.block_length, self.count - firsts)  # the last block may be shorter
        blocks = tf.random.experimental.stateless_shuffle(tf.range(len(firsts)), key)
        begins = tf.cumsum(tf.gather(lengths, blocks), exclusive=True)
        found = tf.searchsorted(begins, positions, side="right") - 1
        return tf.gather(tf.gather(firsts, blocks), found) + positions - tf.gather(begins, found)


def read_epochs(
    order: EpochOrder,
    stored: records.Records,
    draw: Callable[[tf.Tensor, tf.Tensor], Any],
    worker_slice: slice,
    start_epoch: int,
    start_step: int,
) -> tf.data.Dataset:
    """Reads one worker's records, epoch after epoch, without end.

    Args:
        order: the order of all workers' records.
        stored: the records.
        draw: a function from the epoch and the step, int64 scalars, to the random numbers of this worker's images in
            the step, a structure of tensors (images, ...).
        worker_slice: this worker's positions in the global batch.
        start_epoch, start_step: where to begin.

    Returns: a `tf.data.Dataset` of (record, string scalar; its random numbers).
    """

    def read_window(number):
        epoch, window = number // order.windows, number % order.windows
        first = order.first_step(window)
        done = tf.where(epoch == start_epoch, tf.maximum(start_step - first, 0), tf.constant(0, tf.int64))
        indices = order.window(epoch, window)[done:, worker_slice]
        steps = first + done + tf.range(tf.shape(indices, tf.int64)[0])
        indices, shape = tf.reshape(indices, (-1,)), tf.shape(indices)
        in_files = tf.argsort(indices)
        positions = tf.reshape(tf.math.invert_permutation(in_files), shape)
        segments = tf.data.Dataset.from_tensor_slices(stored.segments(tf.gather(indices, in_files)))
        encoded = records.read_in_parallel(segments, lambda *each: records.read_records(*each).batch(each[-1]))
        encoded = encoded.unbatch().batch(tf.size(indices, tf.int64))
        return encoded.map(lambda encoded: (encoded, positions, epoch, steps))

    def read_steps(encoded, positions, epoch, steps):
        # One step at a time: sorting the complete window would hold it in memory twice.
        return tf.data.Dataset.from_tensor_slices((positions, steps)).map(
            lambda positions, step: (tf.gather(encoded, positions), draw(epoch, step))
        )

    first_window = start_epoch * order.windows + order.window_of(start_step)
    windows = tf.data.Dataset.range(first_window, tf.int64.max).flat_map(read_window)
    return windows.prefetch(1).flat_map(read_steps).unbatch()
