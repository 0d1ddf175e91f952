"""Features of images, the outputs of a layer: for nearest neighbors, or to train another classifier."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
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
    """Feature vectors of the images of a split, in the order of its shards, or of unlabeled image files.

    Attributes:
        layer: name of the layer whose outputs the vectors are.
        class_names: names in the order of the labels; empty for image files.
        split: "train" or "validation"; "" for image files.
        images: checksum of the split's shards, as in `predictions.Predictions`; "" for image files.
        labels: int32 (n,); (0,) for image files.
        vectors: float32 (n, units).
        files: strings (n,), the paths of image files; for a data set, the names of the files it was made from.
        weights: `model.weights_checksum` of the model; empty if unknown.
    """

    layer: str
    class_names: tuple[str, ...]
    split: str
    images: str
    labels: np.ndarray
    vectors: np.ndarray
    files: np.ndarray
    weights: str = ""

    def __post_init__(self):
        if not np.isfinite(self.vectors).all():
            raise ValueError(
                f"Features must be finite numbers. Received: NaN or infinity in the outputs of {self.layer}"
            )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an .npz file: arrays `vectors`, `labels` and `files`, and `about`, the rest as JSON."""
        about = {name: getattr(self, name) for name in ("layer", "class_names", "split", "images", "weights")}
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("vectors", "labels", "files")}
        arrays["about"] = np.array(json.dumps(about))
        write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Features":
        """Reads a file that `save` wrote. Raises ValueError if it is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                names = tuple(about.pop("class_names"))
                stored = {name: arrays[name] for name in ("vectors", "labels", "files")}
                return cls(class_names=names, **stored, **about)
        except Exception as error:  # damaged archives raise many kinds of errors
            raise ValueError(f"{path} must hold features saved by alexnet-features. Received: {error!r}") from error

    def save_csv(self, path: str | pathlib.Path) -> None:
        """Writes a CSV file with a row for each image: its file, its class ("" if unknown), its vector."""

        def write(file):
            text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(["file", "class", *range(self.vectors.shape[1])])
            classes = [self.class_names[label] for label in self.labels] or [""] * len(self.files)
            for name, class_name, vector in zip(self.files, classes, self.vectors, strict=True):
                rows.writerow([name, class_name, *(f"{value:.7g}" for value in vector)])
            text.detach()

        write_atomically(path, write)

    def save_tfrecord(self, path: str | pathlib.Path) -> None:
        """Writes a TFRecord file of tf.train.Example: "features", floats, "image/filename" and "image/class/label"."""
        labels = self.labels[:, None] if self.split else np.zeros((len(self.files), 0), int)

        def write(file):
            with tf.io.TFRecordWriter(file.name) as writer:
                for vector, label, name in zip(self.vectors, labels, self.files, strict=True):
                    feature = {
                        "features": tf.train.Feature(float_list=tf.train.FloatList(value=vector)),
                        schema.FILENAME: tf.train.Feature(
                            bytes_list=tf.train.BytesList(value=[name.encode("utf-8", "surrogateescape")])
                        ),
                        schema.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=label)),
                    }
                    example = tf.train.Example(features=tf.train.Features(feature=feature))
                    writer.write(example.SerializeToString(deterministic=True))

        write_atomically(path, write)


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
        data_dir, description, split: the images.
        batch_size: images in a batch.

    Returns: the `Features` of each layer.

    Raises:
        ValueError: if the model has no such layer, or an output is not finite.

    Source: section 6.1: "the feature activations induced by an image at the last, 4096-dimensional hidden layer".
    """
    network = _flat_features(model, layers)
    dataset = reader.make_evaluation_dataset(
        data_dir, batch_size, model.input_shape[1], description=description, split=split
    )
    with verify.naming_damaged_shards(data_dir, description):
        vectors = network.predict(dataset.map(lambda images, _: images))
        labels, files = (read(data_dir, description, split) for read in (reader.read_labels, reader.read_filenames))
    images, weights, names = predictions.checksum(description, split), weights_checksum(model), description.class_names
    return [Features(layer, names, split, images, labels, vectors[layer], files, weights) for layer in layers]


def extract_from_files(
    model: keras.Model, layers: Sequence[str], batches: Iterable[tuple[Sequence[str], np.ndarray]]
) -> list[Features]:
    """Computes the outputs of layers for unlabeled images.

    Args:
        model: a network, with or without its top.
        layers: names of its layers. The output for an image is flattened to one vector.
        batches: (files, images): the images' paths, and uint8 (n, side, side, 3) from `preprocess`.

    Returns: the `Features` of each layer.

    Raises:
        ValueError: if the model lacks a layer, there are no images, or an output is not finite.
    """
    network, files, found = _flat_features(model, layers), [], []
    for names, images in batches:
        files += names
        found.append(network.predict_on_batch(images))
    if not files:
        raise ValueError("There must be at least one image. Received none that can be read")
    nothing, weights = np.zeros(0, "int32"), weights_checksum(model)
    return [
        Features(layer, (), "", "", nothing, np.concatenate([each[layer] for each in found]), np.array(files), weights)
        for layer in layers
    ]


def _flat_features(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """A model that returns a dict from layers' names to their outputs, float32 (n, units)."""
    extractor = structure.features(model, layers)
    flat = {name: keras.layers.Flatten(dtype="float32")(output) for name, output in extractor.output.items()}
    return keras.Model(extractor.input, flat)


def load_matching(
    path: str | pathlib.Path, data_dir: str | pathlib.Path | None, description: schema.DatasetDescription | None
) -> Features:
    """Loads saved features of image files, or of a data set.

    Args:
        path: an .npz file that `Features.save` wrote.
        data_dir, description: the data set; None for image files.

    Raises:
        ValueError: if the file is damaged, or holds features of other images or of a data set that is not given.
    """
    features = Features.load(path)
    if not features.split:
        return features
    if description is None:
        raise ValueError(f"`data_dir` must be the data set with the {features.split} images of {path}. Received: None")
    if features.images != predictions.checksum(description, features.split):
        raise ValueError(f"{path} must hold features of the images in {data_dir}. Received: features of other images")
    return features
