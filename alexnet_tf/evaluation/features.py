"""Features of the images of a split, the outputs of a layer: for nearest neighbors, or to train another classifier."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf.evaluation import predictions
from alexnet_tf.files import write_atomically
from alexnet_tf.model import weights_checksum
from alexnet_tf.networks import structure
from alexnet_tf.tfrecords import reader, schema, verify


@dataclasses.dataclass(frozen=True)
class Features:
    """Feature vectors of the images of a split, in the order of its shards.

    Attributes:
        layer: name of the layer whose outputs the vectors are.
        class_names: names in the order of the labels.
        split: "train" or "validation".
        images: checksum of the split's shards, as in `predictions.Predictions`.
        labels: int32 (n,).
        vectors: float32 (n, units).
        weights: `model.weights_checksum` of the model; empty if unknown.
    """

    layer: str
    class_names: tuple[str, ...]
    split: str
    images: str
    labels: np.ndarray
    vectors: np.ndarray
    weights: str = ""

    def __post_init__(self):
        if not np.isfinite(self.vectors).all():
            raise ValueError(
                f"Features must be finite numbers. Received: NaN or infinity in the outputs of {self.layer}"
            )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an .npz file: arrays `vectors` and `labels`, and `about`, the rest as JSON."""
        about = {name: getattr(self, name) for name in ("layer", "class_names", "split", "images", "weights")}
        arrays: dict[str, Any] = {"vectors": self.vectors, "labels": self.labels, "about": np.array(json.dumps(about))}
        write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Features":
        """Reads a file that `save` wrote. Raises ValueError if it is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                names = tuple(about.pop("class_names"))
                return cls(class_names=names, labels=arrays["labels"], vectors=arrays["vectors"], **about)
        except Exception as error:  # damaged archives raise many kinds of errors
            raise ValueError(f"{path} must hold features saved by alexnet-features. Received: {error!r}") from error

    def save_tfrecord(self, path: str | pathlib.Path) -> None:
        """Writes a TFRecord file of tf.train.Example: "features", floats, and "image/class/label"."""
        path = pathlib.Path(path)
        temporary = path.with_name(f".tmp-{path.name}")
        try:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for vector, label in zip(self.vectors, self.labels, strict=True):
                    feature = {
                        "features": tf.train.Feature(float_list=tf.train.FloatList(value=vector)),
                        schema.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                    }
                    example = tf.train.Example(features=tf.train.Features(feature=feature))
                    writer.write(example.SerializeToString(deterministic=True))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def extract(
    model: keras.Model,
    layers: Sequence[str],
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    batch_size: int,
) -> list[Features]:
    """Computes the outputs of layers for the center crop of each image, in one pass.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layers: names of its layers. The output for an image is flattened to one vector.
        data_dir: folder of the data set.
        description: description of the data set.
        split: "train" or "validation".
        batch_size: images in a batch.

    Returns: the `Features` of each layer.

    Raises:
        ValueError: if the model has no such layer, or an output is not finite.

    Source: section 6.1: "the feature activations induced by an image at the last, 4096-dimensional hidden layer".
    """
    extractor = structure.features(model, layers)
    flat = {layer: keras.layers.Flatten()(output) for layer, output in extractor.output.items()}
    dataset = reader.make_evaluation_dataset(
        data_dir, batch_size, model.input_shape[1], description=description, split=split
    )
    with verify.naming_damaged_shards(data_dir, description):
        vectors = keras.Model(extractor.input, flat).predict(dataset.map(lambda images, _: images))
    labels = reader.read_labels(data_dir, description, split)
    checksum, weights = predictions.checksum(description, split), weights_checksum(model)
    return [
        Features(layer, description.class_names, split, checksum, labels, vectors[layer].astype("float32"), weights)
        for layer in layers
    ]


def load_matching(
    path: str | pathlib.Path, data_dir: str | pathlib.Path, description: schema.DatasetDescription
) -> Features:
    """Loads saved features of a data set.

    Args:
        path: an .npz file that `Features.save` wrote.
        data_dir: folder of the data set, for errors.
        description: description of the data set.

    Raises:
        ValueError: if the file is damaged, or holds features of other images.
    """
    features = Features.load(path)
    if features.images != predictions.checksum(description, features.split):
        raise ValueError(f"{path} must hold features of the images in {data_dir}. Received: features of other images")
    return features
