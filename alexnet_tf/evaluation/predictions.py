"""Predicted class probabilities of the images of a split: computed, saved, loaded."""

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
from alexnet_tf.files import write_atomically
from alexnet_tf.model import load_model, weights_checksum
from alexnet_tf.tfrecords import crops, reader, schema, verify


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Class probabilities of all images of a split, in the order of its shards.

    Attributes:
        name: of the model, for tables.
        class_names: names in the order of the labels.
        split: "train" or "validation".
        images: checksum of the split's shards, equal if two predictions are of the same images.
        labels: int32 (n,).
        views: a dict from "center_crop" and, if they were computed, "ten_views" to float32 (n, classes).
        weights: `model.weights_checksum` of the model; empty if it was not saved with them.
    """

    name: str
    class_names: tuple[str, ...]
    split: str
    images: str
    labels: np.ndarray
    views: dict[str, np.ndarray]
    weights: str = ""

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an .npz file: arrays `labels`, `center_crop`, `ten_views`, and `about`, the rest as JSON."""
        about = {"name": self.name, "class_names": self.class_names, "split": self.split, "images": self.images}
        about["weights"] = self.weights
        arrays: dict[str, Any] = self.views | {"labels": self.labels, "about": np.array(json.dumps(about))}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Predictions":
        """Reads a file that `save` wrote. Raises ValueError if it is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                views = {name: arrays[name] for name in ("center_crop", "ten_views") if name in arrays.files}
                about = json.loads(str(arrays["about"]))
                names = tuple(about.pop("class_names"))
                return cls(class_names=names, labels=arrays["labels"], views=views, **about)
        except Exception as error:  # a damaged archive raises one of half a dozen kinds
            raise ValueError(
                f"{path} must hold predictions that alexnet-evaluate saved. Reading it failed: {error!r}"
            ) from error


def checksum(description: schema.DatasetDescription, split: str) -> str:
    """A checksum of the images of a split: of its shards and of the records that are skipped in them."""
    content = [(shard.sha256, shard.left_out) for shard in description.splits[split].shards]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def load_model_for(
    path: str | pathlib.Path, data_dir: str | pathlib.Path, description: schema.DatasetDescription
) -> keras.Model:
    """Opens a model that is to predict the images of a data set.

    Args:
        path: a run's folder, a checkpoint in one, or a .keras file in one.
        data_dir: folder of the data set, for errors.
        description: its `schema.DatasetDescription`.

    Raises:
        ValueError: if there is no model, it was trained on other classes, or its input is larger than the images.
    """
    model, learned = load_model(path)
    if learned.resize != description.resize:
        logging.warning(
            "The images of %s were resized by %s, those that %s was trained on by %s: alexnet-tfrecords --resize=%s.",
            *(data_dir, description.resize, path, learned.resize, learned.resize),
        )
    if _class_ids(learned.class_names) != _class_ids(description.class_names):
        raise ValueError(
            f"The model must have been trained on the classes of the data. {path} knows {len(learned.class_names)} "
            f"({', '.join(learned.class_names[:3])}, ...); {data_dir} holds {len(description.class_names)} "
            f"({', '.join(description.class_names[:3])}, ...)."
        )
    crops.check_crop_px(model.input_shape[1], description.image_px)
    return model


def _class_ids(names: Sequence[str]) -> list[str]:
    """The WordNet ids of classes whose names all begin with one, else their names."""
    ids = [name.split(" ")[0] for name in names]
    return ids if all(re.fullmatch(r"n\d{8}", each) for each in ids) else list(names)


def predict(
    model: keras.Model,
    name: str,
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    batch_size: int,
    ten_views: bool,
    strategy: tf.distribute.Strategy,
    worker: workers.Worker | None = None,
) -> Predictions:
    """Runs inference on all images of a split.

    Args:
        model: from `load_model_for`, in the strategy's scope unless there are several workers.
        name: of the model, for tables.
        data_dir: folder of the data set.
        description: its `schema.DatasetDescription`.
        split: "train" or "validation".
        batch_size: images in a batch, on all devices together; of ten views, a tenth as many.
        ten_views: whether to predict from the ten views too.
        strategy: the `tf.distribute.Strategy` whose devices are used. With several workers, each predicts its share of
            the images, on one of its devices.
        worker: the `workers.Worker` that this process is; None for the only one.

    Returns: `Predictions`.

    Source: section 4.1: the softmax outputs of the ten views are averaged.
    """
    worker = worker or workers.Worker()
    num_workers = len(worker.addresses)
    share = reader.Share(worker.number, num_workers)
    side = model.input_shape[1]
    replicas = strategy.num_replicas_in_sync if num_workers == 1 else 1
    count = description.splits[split].count
    own_count = count * (worker.number + 1) // num_workers - count * worker.number // num_workers

    def as_batch(images, _):
        """Images or views as one batch, the last padded with its first so that no replica gets an empty one."""
        batch = tf.reshape(images, (-1, side, side, 3))
        return tf.concat([batch, tf.repeat(batch[:1], tf.math.floormod(-tf.shape(batch)[0], replicas), axis=0)], axis=0)

    views = {}
    for view, number in [("center_crop", 1), ("ten_views", 10)][: 2 if ten_views else 1]:
        images_in_batch = -(-max(1, batch_size // number) // replicas) * replicas
        dataset = reader.make_evaluation_dataset(
            data_dir, images_in_batch, side, description=description, split=split, views=number, share=share
        )
        print(f"{name}, {view.replace('_', ' ')}:")
        with verify.naming_damaged_shards(data_dir, description):
            probabilities = model.predict(dataset.map(as_batch))[: number * own_count]
        means = probabilities.reshape(own_count, number, -1).mean(axis=1)
        views[view] = strategies.gather_rows(strategy, worker, means)
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
        data_dir: folder of the data set, for errors.
        description: its `schema.DatasetDescription`.
        split: "train" or "validation".

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
