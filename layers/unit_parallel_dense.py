"""Dense layer whose units are split between the workers that train together."""

import itertools
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from alexnet_tf.layers.column_dense import ColumnDense
from alexnet_tf.layers.tensor_types import Shape, Tensor


class UnitParallelDense(ColumnDense):
    """One worker's share of a `ColumnDense`: it holds and updates some of each column's units, and no more.

    In a step of a distribution strategy it returns what the whole layer would return for the worker's own images, and
    their gradients: the workers gather one another's inputs, each applies its units to the images of all, and they
    gather the outputs. No gradient of a weight is sent. Elsewhere it calls the whole layer.

    It is a layer for training, made from another, and can't be saved. On TensorFlow alone.

    Call arguments:
        inputs: float tensor (batch, ..., channels). In training all workers have the same number of images.
        training: whether in training.

    Returns: float tensor (batch, units).

    Args:
        whole: the layer to be split, built, with at least one unit of each column for each worker.
        worker: number of this worker, from 0, which is also that of its one replica.
        workers: how many there are.

    Attributes:
        own_units: the range of the units in each column that this worker has: `start` and `stop`.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, section 3, scheme (a).
    Deviation: each worker then keeps the outputs for its own images alone, and the layer above gathers them again: the
    layers between are those of one device, dropout and its masks too.
    """

    def __init__(self, whole: ColumnDense, worker: int, workers: int):
        # Its weights are to be replaced by the whole layer's.
        config: Any = whole.get_config() | {"kernel_initializer": "zeros", "bias_initializer": "zeros"}
        super().__init__(**config)
        bounds = [number * self.column_units // workers for number in range(workers + 1)]
        self.own_units = slice(bounds[worker], bounds[worker + 1])
        self.worker = worker
        self._call_whole = whole.__call__  # and not the layer, whose weights would become this one's too
        # The places in the whole layer's output of each worker's units, one worker after the other.
        places = [
            [column * self.column_units + unit for column in range(self.groups) for unit in range(start, stop)]
            for start, stop in itertools.pairwise(bounds)
        ]
        self._own_places = places[worker]
        self._order = np.argsort(np.concatenate(places))

    def column_kernel_shape(self, input_shape: Any) -> tuple[int, int]:
        inputs, _ = super().column_kernel_shape(input_shape)
        return (inputs, self.own_units.stop - self.own_units.start)

    def build(self, input_shape: Shape) -> None:
        with tf.variable_creator_scope(own_variable):
            super().build(input_shape)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return self._call_whole(inputs)
        batch = tf.shape(inputs)[0]
        start = self.worker * batch
        if not training:  # the last images of a validation are not the same number on each worker
            start = tf.reduce_sum(_all_gather(batch[None], 0)[: self.worker])
        own_images = slice(start, start + batch)
        outputs = super().call(_gather_images(inputs, own_images))
        return tf.ensure_shape(self._exchange(outputs, own_images), (inputs.shape[0], self.units))

    def _exchange(self, outputs, own_images):
        """From this worker's units (all workers' images, own units) to its images (own images, all units)."""

        @tf.custom_gradient
        def exchange(outputs):
            def gradient(upstream):
                return tf.gather(_all_gather(upstream, 0), self._own_places, axis=1)

            return tf.gather(_all_gather(outputs, 1)[own_images], self._order, axis=1), gradient

        return exchange(outputs)


def _gather_images(images, own_images):
    """The images of all workers; their gradient is the sum of what all workers' units have to say about one's own."""

    @tf.custom_gradient
    def gather(images):
        def gradient(upstream):
            return all_reduce(upstream)[own_images]

        return tf.ensure_shape(_all_gather(images, 0), (None, *images.shape[1:])), gradient

    return gather(images)


def own_variable(next_creator: Any, **kwargs: Any) -> tf.Variable:
    """A creator for `tf.variable_creator_scope` of variables that are one worker's own: a strategy mirrors others."""
    del next_creator  # the strategy's
    return ResourceVariable(**{name: kwargs[name] for name in ("initial_value", "trainable", "name", "dtype")})


def _all_gather(tensor, axis):
    replica = tf.distribute.get_replica_context()
    with tf.device(replica.strategy.extended.worker_devices[0]):  # TensorFlow refuses a tensor without a device
        return replica.all_gather(tf.identity(tensor), axis)


def all_reduce(tensor: tf.Tensor) -> tf.Tensor:
    """The sum over all workers. To be called in a step of a distribution strategy."""
    replica = tf.distribute.get_replica_context()
    with tf.device(replica.strategy.extended.worker_devices[0]):
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(tensor))
