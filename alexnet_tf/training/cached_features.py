"""Training on cached features: the outputs of the frozen layers, computed once for all images."""

import dataclasses
import itertools
import pathlib

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf import layers
from alexnet_tf.evaluation import features, predictions
from alexnet_tf.model import weights_checksum
from alexnet_tf.networks import structure
from alexnet_tf.tfrecords import reader
from alexnet_tf.training.inputs import RunData


def split(network: keras.Model) -> tuple[keras.layers.Layer, list[keras.layers.Layer]]:
    """Splits a network below its first trainable layer, or below the dropout before it.

    Returns: the last layer whose outputs are the same in every epoch, and the layers above it.

    Raises:
        ValueError: if the first layer with a kernel is trainable.
    """
    network_layers = structure.network_layers(network)
    varying = (layers.PaperDropout, layers.ReplicaDropout)
    first = next(i for i, layer in enumerate(network_layers) if layer.trainable_weights or isinstance(layer, varying))
    if not any(map(structure.has_kernel, network_layers[:first])):
        raise ValueError(f"`cache_features` needs `freeze` to include {network_layers[first].name}, the first layer.")
    return network_layers[first - 1], network_layers[first:]


def trained_part(network: keras.Model) -> keras.Model:
    """Makes a model of the layers above the cached features: from {"features": batch} to probabilities.

    Raises:
        ValueError: as `split`.
    """
    below, above = split(network)
    x = cached = keras.Input(below.output.shape[1:], name="features")
    for layer in above:
        x = layer(x)
    return keras.Model({"features": cached}, x, name=network.name)


@dataclasses.dataclass(frozen=True)
class CachedFeatures:
    """The features of a run's images, as `fit.fit` takes them.

    Attributes:
        data: the images.
        shape: shape of an image's features.
        splits: the features of the splits "train" and "validation".
    """

    data: RunData
    shape: tuple[int, ...]
    splits: dict[str, features.Features]

    @property
    def steps_per_epoch(self) -> int:
        return self.data.steps_per_epoch

    def validation_steps(self, replicas: int) -> int:
        return self.data.validation_steps(replicas)

    def training(self, initial_step: int, share: reader.Share) -> tf.data.Dataset:
        """The training batches from a step on, endlessly, in another order in each epoch."""
        config, count = self.data.config, len(self.splits["train"].labels)
        first_epoch, skipped = divmod(initial_step, self.steps_per_epoch)

        def choose_rows():
            for epoch in itertools.count(first_epoch):
                order = np.random.default_rng([config.seed % 2**32, epoch]).permutation(count)
                for step in range(skipped if epoch == first_epoch else 0, self.steps_per_epoch):
                    yield order[step * config.batch_size : (step + 1) * config.batch_size]

        return self._make_dataset("train", choose_rows)

    def validation(self, share: reader.Share) -> tf.data.Dataset:
        """The validation batches."""
        rows, batch = np.arange(len(self.splits["validation"].labels)), self.data.config.batch_size
        return self._make_dataset("validation", lambda: np.split(rows, range(batch, len(rows), batch)))

    def _make_dataset(self, split, choose_rows):
        cached = self.splits[split]

        def make_batches():
            for rows in choose_rows():
                yield {"features": cached.vectors[rows].reshape(-1, *self.shape)}, cached.labels[rows]

        signature = ({"features": tf.TensorSpec((None, *self.shape))}, tf.TensorSpec((None,), "int32"))
        return tf.data.Dataset.from_generator(make_batches, output_signature=signature).prefetch(2)


def open_features(run_dir: str | pathlib.Path, data: RunData, network: keras.Model) -> CachedFeatures:
    """Reads the features of a run's images from its folder, or computes them and writes them there.

    Args:
        run_dir: the folder of the run; they are in its folder `features`.
        data: the images. Of each, the features are those of the center crop.
        network: the network with its initial weights.
    """
    layer, _ = split(network)
    folder, weights, splits = pathlib.Path(run_dir) / "features", weights_checksum(network), {}
    folder.mkdir(exist_ok=True)
    print(f"Training on {layer.name} of the center crops: without random crops, flips and color noise.")
    for name in ("train", "validation"):
        path = folder / f"{name}.npz"
        expected = (predictions.checksum(data.description, name), weights)
        if path.exists() and ((found := features.Features.load(path)).images, found.weights) == expected:
            splits[name] = found
            continue
        print(f"Computing {layer.name} of the {name} images ...")
        (splits[name],) = features.extract(network, [layer.name], data.folder, data.description, name, batch_size=64)
        splits[name].save(path)
    return CachedFeatures(data, tuple(layer.output.shape[1:]), splits)
