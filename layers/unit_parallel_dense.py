"""Dense layer whose units are split among the workers of a training run."""

import itertools
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from alexnet_tf.layers.column_dense import ColumnDense
from alexnet_tf.layers.device_placement import custom_gradient
from alexnet_tf.layers.tensor_types import Shape, Tensor


class UnitParallelDense(ColumnDense):
    """One worker's share of a `ColumnDense`: it holds and updates only some of each column's units.

    In a step of a distribution strategy its outputs and gradients are those of the whole layer for the worker's own
    images: the workers gather each other's inputs, each applies its units to all images, and they gather the outputs.
    Gradients of weights are not sent. Outside of a step it calls the whole layer.

    The layer is only for training with TensorFlow, and can't be saved.

    Call arguments:
        inputs: float tensor (batch, ..., channels). In training all workers have the same number of images.
        training: whether in training.

    Returns: float tensor (batch, units).

    Args:
        whole: the layer to split, built, with at least one unit of each column for each worker.
        worker: index of this worker, which is also that of its one replica.
        workers: number of workers.

    Attributes:
        own_units: the slice of each column's units that this worker has.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, section 3, scheme (a).
    Deviation: each worker then keeps only the outputs for its own images, and the layer above gathers them again. So
    the layers between, dropout and its masks included, are the same as on one device.
    """

    def __init__(self, whole: ColumnDense, worker: int, workers: int):
        # The whole layer's weights replace the initial ones.
        config: Any = whole.get_config() | {"kernel_initializer": "zeros", "bias_initializer": "zeros"}
        super().__init__(**config)
        bounds = [number * self.column_units // workers for number in range(workers + 1)]
        self.own_units = slice(bounds[worker], bounds[worker + 1])
        self.worker = worker
        self._call_whole = whole.__call__  # as an attribute, the layer would add its weights to this one's
        # The positions of each worker's units in the whole layer's output, one worker after the other.
        positions = [
            [column * self.column_units + unit for column in range(self.groups) for unit in range(start, stop)]
            for start, stop in itertools.pairwise(bounds)
        ]
        self._own_positions = positions[worker]
        self._order = np.argsort(np.concatenate(positions))

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
        if not training:  # the workers' last validation batches differ in size
            start = tf.reduce_sum(_all_gather(batch[None], 0)[: self.worker])
        own_images = slice(start, start + batch)
        outputs = super().call(_gather_images(inputs, own_images))
        return tf.ensure_shape(self._exchange(outputs, own_images), (inputs.shape[0], self.units))

    def _exchange(self, outputs, own_images):
        """Exchanges (all workers' images, own units) for (own images, all units)."""

        @custom_gradient
        def exchange(outputs):
            def gradient(upstream):
                return tf.gather(_all_gather(upstream, 0), self._own_positions, axis=1)

            return tf.gather(_all_gather(outputs, 1)[own_images], self._order, axis=1), gradient

        return exchange(outputs)


def _gather_images(images, own_images):
    """Returns the images of all workers. The gradient of one's own images is the sum over all workers' units."""

    @custom_gradient
    def gather(images):
        def gradient(upstream):
            return all_reduce(upstream)[own_images]

        return tf.ensure_shape(_all_gather(images, 0), (None, *images.shape[1:])), gradient

    return gather(images)


def own_variable(next_creator: Any, **kwargs: Any) -> tf.Variable:
    """Creates a variable of one worker in `tf.variable_creator_scope`. A strategy mirrors other variables."""
    del next_creator  # the strategy's
    return ResourceVariable(**{name: kwargs[name] for name in ("initial_value", "trainable", "name", "dtype")})


def _all_gather(tensor, axis):
    replica = tf.distribute.get_replica_context()
    with tf.device(replica.strategy.extended.worker_devices[0]):  # TensorFlow refuses a tensor without a device
        return replica.all_gather(tf.identity(tensor), axis)


def all_reduce(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the sum over all workers, in a step of a distribution strategy."""
    replica = tf.distribute.get_replica_context()
    with tf.device(replica.strategy.extended.worker_devices[0]):
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(tensor))
