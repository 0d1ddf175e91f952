"""The fully-connected layers split over the workers by units, all others by images: the "one weird trick" of 2014.

The network holds all weights: it is what files contain and pictures show. The model that trains has the network's
convolutions and, instead of each fully-connected layer, a `UnitParallelDense` with this worker's share of the units,
whose weights and momentum no other worker has. It copies them from the network when training begins; all workers gather
them into the network before the chief saves.

Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, section 3.
"""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf import model
from alexnet_tf.distribution import strategies
from alexnet_tf.distribution.workers import Worker
from alexnet_tf.layers import ColumnDense
from alexnet_tf.layers.unit_parallel_dense import UnitParallelDense, all_reduce, own_variable
from alexnet_tf.training.gradient_norms import GradientNorms
from alexnet_tf.training.optimizers import Lars, PaperMomentum


def check_devices(strategy: tf.distribute.Strategy, worker: Worker) -> None:
    """Raises ValueError unless the strategy has several workers of one replica each."""
    workers, replicas = len(worker.addresses), strategy.num_replicas_in_sync
    if workers < 2 or replicas != workers:
        raise ValueError(
            "`fc_parallel` needs several workers with one device each: in TF_CONFIG, started by SLURM, or on this "
            f"machine by --num_local_workers. Received: workers={workers}, replicas={replicas}"
        )


def split(
    network: keras.Model, optimizer: PaperMomentum, strategy: tf.distribute.Strategy, worker: Worker
) -> tuple[keras.Model, PaperMomentum]:
    """Makes the model that trains this worker's share of a network. Call it in the scope of the strategy.

    Args:
        network: from `model.build_alexnet`. A layer with fewer units in a column than there are workers is not split.
        optimizer: the update rule, not built yet.
        strategy: one that `check_devices` accepts.
        worker: this `Worker`.

    Returns: the replacements of `model.with_color_offset(network)` and of the optimizer, which has `gradient_norms`.
    """
    shares, workers = _Shares(strategy, worker), len(worker.addresses)
    x = image = keras.Input(network.input_shape[1:], name="image")
    for layer in network.layers[1:]:
        if isinstance(layer, ColumnDense) and layer.column_units >= workers:
            own = UnitParallelDense(layer, worker.number, workers)
            x = own(x)
            shares.add(own, layer)
        else:
            x = layer(x)
    training_model = model.with_color_offset(keras.Model(image, x, name=network.name), _UnitParallelModel)
    of_shares = _LarsOfShares if isinstance(optimizer, Lars) else _MomentumOfShares
    optimizer = of_shares.from_config(optimizer.get_config())
    optimizer.gradient_norms = optimizer.norms_of_shares = _NormsOfShares(training_model.trainable_variables)
    training_model.shares = optimizer.shares = shares
    shares.optimizer = optimizer
    return training_model, optimizer


class _Whole:
    """A variable of which each worker has a share of the last dimension, as checkpoints see it: the whole."""

    def __init__(self, share: keras.Variable, units: slice, all_units: int, strategy: tf.distribute.Strategy):
        self.share = share
        self.units, self.all_units, self.strategy = units, all_units, strategy
        self.path = share.path
        self.shape = (*share.shape[:-1], all_units)
        self.gathered: np.ndarray | None = None

    @functools.cached_property
    def gather(self):
        """A function without arguments that gathers the shares of all workers. Call it on all of them."""

        @tf.function
        def gather():
            of_each = self.strategy.run(lambda: tf.identity(self.share.value))
            return self.strategy.gather(of_each, axis=len(self.shape) - 1)

        return gather.get_concrete_function()  # avoids a warning about functions that are called once

    def numpy(self) -> np.ndarray:
        if self.gathered is None:
            raise ValueError(f"The shares of {self.path} are not gathered.")
        return self.gathered

    def assign(self, value: np.ndarray) -> None:
        self.share.assign(value[..., self.units])


class _Shares:
    """A worker's shares of the split layers. (Not a Keras object, whose weights a model would count.)"""

    def __init__(self, strategy: tf.distribute.Strategy, worker: Worker):
        self.strategy, self.worker = strategy, worker
        self.weights: dict[int, tuple[_Whole, keras.Variable]] = {}  # by id, with the network's weight
        self.slots: dict[int, _Whole] = {}  # the optimizer's, by id
        self.optimizer: PaperMomentum
        self.begun = False
        self.gathered_at: int | None = None

    def add(self, layer: UnitParallelDense, whole_layer: ColumnDense) -> None:
        pairs = zip(layer.kernels + layer.biases, whole_layer.kernels + whole_layer.biases, strict=True)
        for share, whole in pairs:
            self.weights[id(share)] = (_Whole(share, layer.own_units, layer.column_units, self.strategy), whole)

    def add_slot(self, slot: keras.Variable, weight: keras.Variable) -> None:
        like, _ = self.weights[id(weight)]
        self.slots[id(slot)] = _Whole(slot, like.units, like.all_units, self.strategy)

    def take(self) -> None:
        """Copies this worker's weights from the network, before the first step: a checkpoint may have been restored."""
        if not self.begun:
            for share, whole in self.weights.values():
                share.assign(whole.numpy())
        self.begun = True

    def gather(self) -> None:
        """Gathers the weights into the network, and the momentum for the checkpoint. Call it on all workers."""
        step = int(keras.ops.convert_to_numpy(self.optimizer.iterations))
        if self.gathered_at == step:
            return
        self.gathered_at = step
        for share, whole in self.weights.values():
            whole.assign(share.gather())
        for slot in self.slots.values():
            momentum = slot.gather()
            slot.gathered = momentum.numpy() if self.worker.is_chief else None


class _UnitParallelModel(strategies.DistributedModel):
    shares: _Shares

    def fit(self, *args, **kwargs):
        self.shares.take()
        return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        self.shares.take()
        self.shares.gather()  # for the callbacks at the end of the epoch
        return super().evaluate(*args, **kwargs)

    def gather_weights(self):
        self.shares.gather()


class _MomentumOfShares(PaperMomentum):
    """`PaperMomentum` that does not sum gradients of split layers: each worker has those of its own units."""

    shares: _Shares
    norms_of_shares: "_NormsOfShares"

    @property
    def variables(self):
        return [self.shares.slots.get(id(variable), variable) for variable in super().variables]

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        if id(reference_variable) not in self.shares.weights:
            return super().add_variable_from_reference(reference_variable, name, initializer)
        name = f"{reference_variable.path.replace('/', '_')}_{name}"  # as Keras names it
        with tf.variable_creator_scope(own_variable):
            slot = self.add_variable(reference_variable.shape, initializer, reference_variable.dtype, name=name)
        self.shares.add_slot(slot, reference_variable)
        return slot

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        own, others = [], []
        for pair in zip(grads, trainable_variables, strict=True):
            (own if id(pair[1]) in self.shares.weights else others).append(pair)
        self._measure([pair for pair in own if len(pair[1].shape) > 1])
        rate = tf.convert_to_tensor(learning_rate)
        for gradient, variable in own:
            self.update_step(gradient, variable.value, rate)
        if others:
            gradients, variables = zip(*others, strict=True)
            super()._backend_update_step(gradients, variables, learning_rate)

    def _measure(self, grads_and_kernels):
        """The norms of each kernel's gradient and of the kernel before the update, over all workers' shares."""

        def squares():
            halves = [[tf.nn.l2_loss(tf.cast(x, kernel.dtype)) for x in (g, kernel)] for g, kernel in grads_and_kernels]
            return 2 * tf.cast(halves, tf.float64)

        def squares_if_logged():
            zeros = tf.zeros((len(grads_and_kernels), 2), tf.float64)
            return tf.cond(self.norms_of_shares.enabled_on_any_worker(), squares, lambda: zeros)

        if not grads_and_kernels:  # all layers are frozen
            return
        norms = tf.sqrt(all_reduce(squares() if isinstance(self, Lars) else squares_if_logged()))
        indices = [self._get_variable_index(kernel) for _, kernel in grads_and_kernels]
        self.norms_of_shares.of_shares = dict(zip(indices, tf.unstack(norms), strict=True))


class _LarsOfShares(_MomentumOfShares, Lars):
    """`Lars` with the norms of whole layers."""

    def _norms(self, gradient, variable):
        norms = self.norms_of_shares.of_shares.get(self._get_variable_index(variable))
        return super()._norms(gradient, variable) if norms is None else tf.unstack(tf.cast(norms, variable.dtype))


class _NormsOfShares(GradientNorms):
    """`GradientNorms` of whole layers, from the sums over all workers that the optimizer makes in each step.

    Attributes:
        of_shares: from the index of a split kernel to the norms of its gradient and of itself in this step.
    """

    def __init__(self, variables):
        with tf.variable_creator_scope(own_variable):
            super().__init__(variables)
            self._weight_norms = [tf.Variable(tf.zeros(()), trainable=False) for _ in variables]
        self.of_shares: dict[int, tf.Tensor] = {}

    def enabled_on_any_worker(self) -> tf.Tensor:
        enabled: Any = self._enabled
        return all_reduce(tf.cast(enabled, tf.float32)) > 0

    def measure(self, index, gradient):
        if index in self.of_shares:
            gradient, weight_norm = self.of_shares[index][:1], self.of_shares[index][1]
            self._weight_norms[index].assign(tf.cast(weight_norm, tf.float32))
        super().measure(index, gradient)

    def weight_norm(self, kernel):
        index = self._indices[kernel.path]
        return float(self._weight_norms[index].numpy()) if index in self.of_shares else super().weight_norm(kernel)
