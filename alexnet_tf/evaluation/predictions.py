"""Predicted class probabilities for the images of a split: computed, saved, loaded."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from alexnet_tf.distribution import strategies, workers
from alexnet_tf.evaluation.naming import VIEWS
from alexnet_tf.files import write_atomically
from alexnet_tf.model import load_model, weights_checksum
from alexnet_tf.networks import structure
from alexnet_tf.tfrecords import crops, reader, schema, verify

_WORDNET_ID = re.compile(r"n\d{8}")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Class probabilities for all images of a split, in the order of its shards.

    Attributes:
        name: name of the model, for tables.
        class_names: names in the order of the labels.
        split: "train" or "validation".
        images: checksum of the split's shards, which is equal if two predictions are of the same images.
        labels: int32 (n,).
        views: a dict from "center_crop" and, if they were computed, "ten_views" to float32 (n, classes).
        weights: `model.weights_checksum` of the model; empty if unknown.

    Raises:
        ValueError: if a probability is not finite.
    """

    name: str
    class_names: tuple[str, ...]
    split: str
    images: str
    labels: np.ndarray
    views: dict[str, np.ndarray]
    weights: str = ""

    def __post_init__(self):
        for view, probabilities in self.views.items():
            wrong = int((~np.isfinite(probabilities)).any(axis=1).sum())
            if wrong:
                raise ValueError(
                    f"Probabilities must be finite. Received: NaN or infinity from {self.name} for {wrong:,} of "
                    f"{len(probabilities):,} images ({view}). The model's weights are probably not finite."
                )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an .npz file: arrays `labels`, `center_crop`, `ten_views`, and `about`, the rest as JSON."""
        about = {name: getattr(self, name) for name in ("name", "class_names", "split", "images", "weights")}
        arrays: dict[str, Any] = self.views | {"labels": self.labels, "about": np.array(json.dumps(about))}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Predictions":
        """Reads a file that `save` wrote. Raises ValueError if it is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                views = {name: arrays[name] for name in VIEWS if name in arrays.files}
                about = json.loads(str(arrays["about"]))
                names = tuple(about.pop("class_names"))
                return cls(class_names=names, labels=arrays["labels"], views=views, **about)
        except Exception as error:  # damaged archives raise many kinds of errors
            raise ValueError(f"{path} must hold predictions saved by alexnet-evaluate. Received: {error!r}") from error


def checksum(description: schema.DatasetDescription, split: str) -> str:
    """A checksum of the images of a split: its shards and the records that are skipped in them."""
    content = [(shard.sha256, shard.left_out) for shard in description.splits[split].shards]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def load_model_for(
    path: str | pathlib.Path, data_dir: str | pathlib.Path, description: schema.DatasetDescription
) -> keras.Model:
    """Opens a model to predict the images of a data set.

    Args:
        path: a run's folder, a checkpoint in it, a .keras file, or the name of published weights.
        data_dir, description: the data set.

    Returns: a model from RGB pixels to the probabilities of the data set's classes, in their order. If these are only
        some of the model's classes, as in ImageNet-A, the model's probabilities for them are divided by their sum.

    Raises:
        ValueError: if there is no model at `path`, or it lacks a class, or its input is larger than the images.
    """
    model = load_model(path)
    trained_on = model.description
    structure.check_classifier(model)
    if trained_on.resize != description.resize:
        logging.warning(
            "%s was trained on images resized by %s, but those in %s were resized by %s. Build the data set with "
            "alexnet-tfrecords --resize=%s.",
            *(path, trained_on.resize, data_dir, description.resize, trained_on.resize),
        )
    crops.check_image_px(data_dir, description.image_px, model.input_shape[1])
    known, wanted = trained_on.class_names, description.class_names
    columns = _class_columns(known, wanted)
    if columns is None:
        raise ValueError(
            f"The model must have been trained on the classes of the data set. Received: {path} with {len(known)} "
            f"classes ({', '.join(known[:3])}, ...), and {data_dir} with {len(wanted)} ({', '.join(wanted[:3])}, ...)."
        )
    if columns == list(range(len(known))):
        return model
    print(f"{path} predicts only the classes of {data_dir}: {len(wanted):,} of {len(known):,}.")
    chosen = keras.ops.take(model.output, np.array(columns), axis=-1)
    probabilities = chosen / keras.ops.sum(chosen, axis=-1, keepdims=True)
    return keras.Model(model.input, probabilities, name=model.name)


def _class_columns(known: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The labels that a model which knows some classes has for other classes, or None if it doesn't know all of them.

    Classes are the same if their WordNet ids are, or their names. ImageNet-V2 numbers ImageNet's classes.
    """
    known, wanted = class_ids(known), class_ids(wanted)
    if len(known) == 1000 and _WORDNET_ID.fullmatch(known[0]) and set(wanted) == set(map(str, range(1000))):
        wanted = [sorted(known)[int(number)] for number in wanted]
    if wanted != known and (len(set(known)) < len(known) or not set(wanted) <= set(known)):
        return None
    return list(range(len(known))) if wanted == known else [known.index(each) for each in wanted]


def class_ids(names: Sequence[str]) -> list[str]:
    """The WordNet ids of classes if all names begin with one; the names otherwise."""
    ids = [name.split(" ")[0] for name in names]
    return ids if all(map(_WORDNET_ID.fullmatch, ids)) else list(names)


def predict(
    model: keras.Model,
    name: str,
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    batch_size: int,
    ten_views: bool,
    strategy: tf.distribute.Strategy,
    worker: workers.Worker,
) -> Predictions:
    """Runs inference on all images of a split.

    Args:
        model: from `load_model_for`, in the strategy's scope unless there are several workers.
        name: name of the model, for tables.
        data_dir, description, split: the images.
        batch_size: global batch size; a tenth of it for ten views.
        ten_views: whether to predict ten views as well.
        strategy: the `tf.distribute.Strategy` whose devices are used. If there are several workers, each predicts its
            share of the images, on one of its devices.
        worker: the worker that this process is.

    Returns: `Predictions`.

    Source: section 4.1: the softmax outputs of the ten views are averaged.
    """
    num_workers = len(worker.addresses)
    share = reader.Share(worker.number, num_workers)
    side = model.input_shape[1]
    replicas = strategy.num_replicas_in_sync if num_workers == 1 else 1
    count = description.splits[split].count
    own_count = count * (worker.number + 1) // num_workers - count * worker.number // num_workers

    def as_batch(images, _):
        """Images or views as one batch, padded with its first image so that no replica gets an empty batch."""
        batch = tf.reshape(images, (-1, side, side, 3))
        return tf.concat([batch, tf.repeat(batch[:1], tf.math.floormod(-tf.shape(batch)[0], replicas), axis=0)], axis=0)

    number = 10 if ten_views else 1
    images_in_batch = -(-max(1, batch_size // number) // replicas) * replicas
    dataset = reader.make_evaluation_dataset(
        data_dir, images_in_batch, side, description=description, split=split, views=number, share=share
    )
    print(f"{name}, {'ten views' if ten_views else 'center crop'}:")
    with verify.naming_damaged_shards(data_dir, description):
        probabilities = model.predict(dataset.map(as_batch))[: number * own_count]
    of_views = probabilities.reshape(own_count, number, -1)
    center = crops.CENTER_OF_TEN if ten_views else 0
    views = {"center_crop": of_views[:, center]} | ({"ten_views": of_views.mean(axis=1)} if ten_views else {})
    views = {view: strategies.gather_rows(strategy, worker, rows) for view, rows in views.items()}
    labels = reader.read_labels(data_dir, description, split)
    images, weights = checksum(description, split), weights_checksum(model)
    return Predictions(name, description.class_names, split, images, labels, views, weights)


def load_matching(
    path: str | pathlib.Path,
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
) -> Predictions:
    """Loads saved predictions of a split of a data set.

    Args:
        path: an .npz file that `Predictions.save` wrote.
        data_dir, description, split: the images that they must be of.

    Raises:
        ValueError: if the file is damaged, or holds predictions of other images.
    """
    saved = Predictions.load(path)
    expected = checksum(description, split)
    if (saved.split, saved.images) != (split, expected):
        raise ValueError(
            f"`model` {path} must hold predictions of the split {split} of {data_dir}. Received: those of "
            f"{len(saved.labels)} images of {saved.split} with the checksum {saved.images[:12]}, not {expected[:12]}"
        )
    return saved
