"""The order of the training images, epoch after epoch, and what is drawn at random for each of them."""

# TensorFlow's type stubs are wrong here.
# pyright: reportArgumentType=false

import bisect
import dataclasses
import functools

import numpy as np
import tensorflow as tf

from alexnet_tf.tfrecords import records


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
        first_image = self.start_step * self.local_batch
        window = bisect.bisect_right(range(self.windows), first_image, key=self._images_before) - 1
        numbers = tf.data.Dataset.range(self.start_epoch * self.windows + window, tf.int64.max)
        return numbers.flat_map(self._read_window)

    def _seed_of(self, epoch):
        return tf.random.fold_in(tf.constant([self.seed, 0], tf.int64), tf.cast(epoch, tf.int64))

    def _window(self, epoch_seed, window):
        """(images before a window in this worker's share of the epoch, what the window consists of)."""
        begin, end = (self.count * worker // self.num_workers for worker in (self.worker, self.worker + 1))
        return self.parts.window(epoch_seed, begin, end, window)

    def _images_before(self, window: int) -> int:
        return int(self._window(self._seed_of(self.start_epoch), tf.constant(window, tf.int64))[0])

    def _read_window(self, number):
        """The elements of `read` in a window; `number` counts the windows of all epochs."""
        # The seed of this graph, which holds the operations of one window: without it the program's global seed would
        # change the order of the images, and a global seed of 0 fails.
        tf.compat.v1.set_random_seed(None)
        epoch, window = number // self.windows, number % self.windows
        epoch_seed = self._seed_of(epoch)
        first, slices = self._window(epoch_seed, window)
        encoded = tf.data.Dataset.from_tensor_slices(slices).interleave(
            records.read_records,
            cycle_length=records.SHARDS_IN_WINDOW,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        order = tf.random.stateless_uniform((), tf.random.fold_in(epoch_seed, window), None, None, tf.int64)
        buffer_size = self.parts.window_size + records.SHARDS_IN_WINDOW
        encoded = encoded.shuffle(buffer_size, seed=order, reshuffle_each_iteration=False)
        # In the first epoch the images before the start are skipped; in each, those that don't fill a batch.
        done = tf.where(epoch == self.start_epoch, tf.maximum(self.start_step * self.local_batch - first, 0), 0)
        left = tf.maximum(self.steps * self.local_batch - first, 0)
        begun = first + done
        steps = tf.data.Dataset.range(begun // self.local_batch, self.steps)
        draws = steps.flat_map(functools.partial(self._draw, epoch, epoch_seed)).skip(begun % self.local_batch)
        return tf.data.Dataset.zip(encoded.take(left).skip(done), draws)

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
