"""The order of the training images, epoch after epoch, and what is drawn at random for each of them."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import records


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive images of a worker's share of an epoch.

    Attributes:
        worker, num_workers: whose share, and the number of shares.
        first, end: the images from `first` to before `end`, counted in the order in which the share is read.
    """

    worker: int
    num_workers: int
    first: int
    end: int


def pieces_left(
    readers: Sequence[tuple[int, int]], start_step: int, steps: int, batch_size: int, worker: int
) -> list[Piece]:
    """What a worker reads of an epoch from a step on, where the number of workers may have changed within the epoch.

    When it changes, what each worker has not read is laid end to end and cut into as many equal parts as there are
    workers now. So each image is still read once.

    Args:
        readers: (number of workers, their first step in the epoch), one after another, this worker among the last.
            The numbers divide the batch size.
        start_step: where to begin, at the last readers' first step or later.
        steps: steps in the epoch.
        batch_size: images in a step, of all workers together.
        worker: number of the worker.

    Returns: pieces of the shares that the first readers had, in the order in which they are read.
    """
    unit = math.gcd(*(batch_size // workers for workers, _ in readers))  # all that is cut is a multiple of it
    left = np.arange(steps * batch_size // unit)  # the shares of the first readers, end to end
    for (workers, begin), (_, end) in itertools.pairwise((*readers, (0, start_step))):
        left = left.reshape(workers, -1)[:, (end - begin) * batch_size // workers // unit :]
    own, shares = left[worker], readers[0][0]
    size = steps * batch_size // shares // unit
    breaks = np.flatnonzero((np.diff(own) != 1) | (own[1:] % size == 0)) + 1
    bounds = [(int(each[0]), int(each[-1])) for each in np.split(own, breaks)]
    return [Piece(first // size, shares, first % size * unit, (last % size + 1) * unit) for first, last in bounds]


@dataclasses.dataclass(frozen=True)
class Epochs:
    """The images that one worker trains on, without end.

    All randomness follows from the seed, the epoch and the image's place in it. So any place can be found without
    reading what comes before it.

    Attributes:
        parts: the records of the training split.
        count: images in the split.
        seed: any integer.
        batch_size: images in a step, of all workers together.
        worker: number of this worker, from 0.
        num_workers: number of workers.
        start_epoch, start_step: where to begin.
        readers: who reads the start epoch, as `pieces_left` takes it.
        color_noise: float32 (3, 3), which makes color offsets of three draws from N(0, 1).
        color_noise_epochs: number of epochs, from the first, with color noise; None for all.
        images_per_crop: number of consecutive images that share the place of the crop and the flip.
        crop_draws: random numbers that a crop takes.
    """

    parts: records.Parts
    count: int
    seed: int
    batch_size: int
    worker: int
    num_workers: int
    start_epoch: int
    start_step: int
    readers: Sequence[tuple[int, int]]
    color_noise: np.ndarray
    color_noise_epochs: int | None
    images_per_crop: int
    crop_draws: int = 2

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return self.count // self.batch_size

    @property
    def local_batch(self) -> int:
        """Images of this worker in a step."""
        return self.batch_size // self.num_workers

    @functools.cached_property
    def windows(self) -> int:
        """Windows in an epoch."""
        return self.parts.windows_per_epoch()

    def read(self) -> tf.data.Dataset:
        """Reads the images from the start on.

        Returns: a `tf.data.Dataset` of (string scalar, a record; (float32 (crop_draws + 1,), float32 (3,))): draws from
        0 to 1 for the crop and for the flip, and the color offset.
        """
        numbers = tf.data.Dataset.range(tf.int64.max)
        return numbers.flat_map(functools.partial(self._read_window, self._windows_left()))

    def _windows_left(self) -> np.ndarray:
        """The windows of what this worker reads of the start epoch, int64 (windows, 7): the epoch, the window's number
        in a share, a `Piece` of that share, and how many images this worker reads in the epoch before the piece."""
        rows, place = [], self.start_step * self.local_batch
        for piece in pieces_left(self.readers, self.start_step, self.steps, self.batch_size, self.worker):
            share = self._share(piece.worker, piece.num_workers)
            firsts = self.parts.before_windows(self._seed_of(self.start_epoch), *share).numpy()
            windows = range(np.searchsorted(firsts, piece.first, "right") - 1, np.searchsorted(firsts, piece.end))
            rows += [(self.start_epoch, window, *dataclasses.astuple(piece), place) for window in windows]
            place += piece.end - piece.first
        return np.array(rows, "int64")

    def _seed_of(self, epoch):
        return tf.random.fold_in(tf.constant([self.seed, 0], tf.int64), tf.cast(epoch, tf.int64))

    def _share(self, worker, num_workers):
        """The images of an epoch that are a worker's share, as `records.Parts.window` takes them."""
        return self.count * worker // num_workers, self.count * (worker + 1) // num_workers

    def _read_window(self, left, number):
        """The elements of `read` in a window; `number` counts the rows of `left`, then the windows of later epochs."""
        # The seed of this graph, which holds the operations of one window: without it the program's global seed would
        # change the order of the images, and a global seed of 0 fails.
        tf.compat.v1.set_random_seed(None)
        later = number - len(left)
        epoch, window = self.start_epoch + 1 + later // self.windows, later % self.windows
        whole = tf.stack([epoch, window, self.worker, self.num_workers, 0, self.steps * self.local_batch, 0])
        row = tf.where(later < 0, tf.gather(left, tf.minimum(number, len(left) - 1)), whole)
        epoch, window, worker, num_workers, first, end, place = tf.unstack(row)
        epoch_seed = self._seed_of(epoch)
        before, slices = self.parts.window(epoch_seed, *self._share(worker, num_workers), window)
        encoded = tf.data.Dataset.from_tensor_slices(slices).interleave(
            records.read_records,
            cycle_length=records.SHARDS_IN_WINDOW,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        order = tf.random.stateless_uniform((), tf.random.fold_in(epoch_seed, window), None, None, tf.int64)
        buffer_size = self.parts.window_size + records.SHARDS_IN_WINDOW
        encoded = encoded.shuffle(buffer_size, seed=order, reshuffle_each_iteration=False)
        # The first window of a piece begins before it, the last ends behind it: images of other steps or workers, or
        # those that don't fill a batch.
        skipped, place = tf.maximum(first - before, 0), place + tf.maximum(before - first, 0)
        steps = tf.data.Dataset.range(place // self.local_batch, self.steps)
        draws = steps.flat_map(functools.partial(self._draw, epoch, epoch_seed)).skip(place % self.local_batch)
        return tf.data.Dataset.zip(encoded.take(tf.maximum(end - before, 0)).skip(skipped), draws)

    def _draw(self, epoch, epoch_seed, step):
        """The random draws of a step: for all workers' images at once, since image by image it took longer."""
        crop_seed, noise_seed = tf.unstack(tf.random.split(tf.random.fold_in(epoch_seed, self.windows + step)))
        own = slice(self.worker * self.local_batch, (self.worker + 1) * self.local_batch)
        first_of_crop = np.arange(self.batch_size) // self.images_per_crop * self.images_per_crop
        shape = (self.batch_size, self.crop_draws + 1)
        crops = tf.gather(tf.random.stateless_uniform(shape, crop_seed), first_of_crop[own])
        offsets = tf.random.stateless_normal((self.batch_size, 3), noise_seed)
        if self.color_noise_epochs is not None:
            offsets = tf.cast(epoch < self.color_noise_epochs, tf.float32) * offsets
        offsets = offsets @ self.color_noise.T
        return tf.data.Dataset.from_tensor_slices((crops, offsets[own]))
