"""What models say of the images of a split, kept so that nobody has to ask them again."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import reader, schema, verify


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Class probabilities of all images of a split, in the order of its shards.

    Attributes:
        name: of the model, for tables.
        class_names: names in the order of the labels.
        split: "train" or "validation".
        images: checksum of the split's shards, by which one knows that two predictions are of the same images.
        labels: int32 (n,).
        views: a dict from "center_crop" and, if they were asked for, "ten_views" to float32 (n, classes).
    """

    name: str
    class_names: tuple
    split: str
    images: str
    labels: np.ndarray
    views: dict

    def save(self, path):
        """Writes an .npz file: arrays `labels`, `center_crop`, `ten_views`, and `about`, the rest as JSON."""
        about = {"name": self.name, "class_names": self.class_names, "split": self.split, "images": self.images}
        arrays = self.views | {"labels": self.labels, "about": np.array(json.dumps(about))}
        schema.write_whole(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote. Raises ValueError where it is damaged or something else."""
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


def checksum(description, split):
    """What the images of a split are known by: a checksum of their shards and of what is left out of them."""
    content = [(shard.sha256, shard.left_out) for shard in description.splits[split].shards]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def write_submission(path, probabilities, class_names, numbers):
    """Writes the five most probable classes of each image as ILSVRC's evaluation server takes them.

    Args:
        path: of the text file: a line for each image, in the order of the validation images, the most probable first.
        probabilities: float (n, classes).
        class_names: names in the order of the labels, each of which begins with its WordNet id.
        numbers: a dict from WordNet ids to the devkit's class numbers.

    Raises:
        ValueError: where a class is none of the devkit's.
    """
    ids = [name.split()[0] for name in class_names]
    unknown = [class_id for class_id in ids if class_id not in numbers]
    if unknown:
        raise ValueError(
            f"The classes of a submission must be the devkit's WordNet ids. Received {len(unknown)} others: "
            f"{unknown[:3]}"
        )
    numbers_of_labels = np.array([numbers[class_id] for class_id in ids])
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    lines = "".join(" ".join(map(str, numbers_of_labels[labels])) + "\n" for labels in best)
    schema.write_whole(path, lambda file: file.write(lines.encode()))


def name_of(model):
    """What a model is called: its run's folder, of which `model` is the path, or the path of a .keras file in it."""
    folder = pathlib.Path(model).absolute()
    return (folder if folder.is_dir() else folder.parent).name


def predict(path, data_dir, description, split, batch_size, ten_views, strategy, worker=None):
    """Asks a model about all images of a split.

    Args:
        path: a run's folder, or a .keras file in one.
        data_dir: folder of the data set.
        description: its `schema.DatasetDescription`.
        split: "train" or "validation".
        batch_size: images in a batch, on all devices together; of ten views, a tenth as many.
        ten_views: whether to ask for the ten views too.
        strategy: the `tf.distribute.Strategy` whose devices work. Of several workers each asks about its share of the
            images, on one of its devices.
        worker: None, or the `strategies.Worker` that this process is.

    Returns: `Predictions`.

    Raises:
        ValueError: where there is no model, or it learned other classes.

    Source: section 4.1: the softmax outputs of the ten views are averaged.
    """
    worker = worker or strategies.Worker()
    num_workers = len(worker.addresses)
    share = reader.Share(worker.number, num_workers)
    with strategy.scope() if num_workers == 1 else contextlib.nullcontext():
        model, learned = load_model(path)
    if learned.class_names != description.class_names:
        raise ValueError(
            f"The model must have learned the classes of the data. {path} learned {len(learned.class_names)} "
            f"({', '.join(learned.class_names[:3])}, ...); {data_dir} holds {len(description.class_names)} "
            f"({', '.join(description.class_names[:3])}, ...)."
        )
    name_of_model = name_of(path)
    side = model.input_shape[1]
    views = {}
    replicas = strategy.num_replicas_in_sync if num_workers == 1 else 1
    begin, end = (
        description.splits[split].count * number // num_workers for number in (worker.number, worker.number + 1)
    )
    labels = reader.read_labels(data_dir, description, split)

    def as_batch(images, _):
        """Images or views as one batch, the last with copies of its first where a replica would get none."""
        batch = tf.reshape(images, (-1, side, side, 3))
        return tf.concat([batch, tf.repeat(batch[:1], -tf.shape(batch)[0] % replicas, axis=0)], axis=0)

    for name, number in [("center_crop", 1), ("ten_views", 10)][: 2 if ten_views else 1]:
        images_in_batch = -(-max(1, batch_size // number) // replicas) * replicas
        dataset = reader.make_evaluation_dataset(
            data_dir, images_in_batch, side, description=description, split=split, views=number, share=share
        )
        print(f"{name_of_model}, {name.replace('_', ' ')}:")
        with verify.naming_damaged_shards(data_dir, description):
            of_crops = model.predict(dataset.map(as_batch))[: number * (end - begin)]
        means = of_crops.reshape(end - begin, number, -1).mean(axis=1)
        views[name] = strategies.gather_rows(strategy, worker, means)
    return Predictions(name_of_model, description.class_names, split, checksum(description, split), labels, views)
