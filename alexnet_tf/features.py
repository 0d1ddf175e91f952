"""What a layer makes of each image of a split: for nearest neighbours, or for another classifier."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from alexnet_tf.evaluation import predictions
from alexnet_tf.model import layer_output, load_model
from alexnet_tf.tfrecords import program, reader, schema, verify


@dataclasses.dataclass(frozen=True)
class Features:
    """Feature vectors of the images of a split, in the order of its shards.

    Attributes:
        layer: name of the layer whose output they are.
        class_names: names in the order of the labels.
        split: "train" or "validation".
        images: checksum of the split's shards, as in `predictions.Predictions`.
        labels: int32 (n,).
        vectors: float32 (n, units).
    """

    layer: str
    class_names: tuple
    split: str
    images: str
    labels: np.ndarray
    vectors: np.ndarray

    def save(self, path):
        """Writes an .npz file: arrays `vectors` and `labels`, and `about`, the rest as JSON."""
        about = {"layer": self.layer, "class_names": self.class_names, "split": self.split, "images": self.images}
        arrays = {"vectors": self.vectors, "labels": self.labels, "about": np.array(json.dumps(about))}
        schema.write_whole(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote. Raises ValueError where it is damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                names = tuple(about.pop("class_names"))
                return cls(class_names=names, labels=arrays["labels"], vectors=arrays["vectors"], **about)
        except Exception as error:  # a damaged archive raises one of half a dozen kinds
            raise ValueError(f"{path} must hold features that alexnet-features saved: {error!r}") from error


def extract(model, layer, data_dir, description, split, batch_size):
    """The output of a layer for the centre crop of each image.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layer: name of one of its layers. What it gives of an image is laid out as one vector.
        data_dir: folder of the data set.
        description: its `schema.DatasetDescription`.
        split: "train" or "validation".
        batch_size: images in a batch.

    Returns: `Features`.

    Raises:
        ValueError: where the model has no such layer.

    Source: section 6.1: "the feature activations induced by an image at the last, 4096-dimensional hidden layer".
    """
    names = [each.name for each in model.layers]
    if layer not in names:
        raise ValueError(f"`layer` must be one of {', '.join(names)}. Received: layer={layer!r}")
    output = keras.layers.Flatten()(layer_output(model, layer))
    dataset = reader.make_evaluation_dataset(
        data_dir, batch_size, model.input_shape[1], description=description, split=split
    )
    with verify.naming_damaged_shards(data_dir, description):
        vectors = keras.Model(model.input, output).predict(dataset.map(lambda images, _: images))
    labels = reader.read_labels(data_dir, description, split)
    checksum = predictions.checksum(description, split)
    return Features(layer, description.class_names, split, checksum, labels, np.float32(vectors))


def save_tfrecord(features, path):
    """Writes features as a TFRecord file of tf.train.Example: "features", floats, and "image/class/label"."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".tmp-{path.name}")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for vector, label in zip(features.vectors, features.labels, strict=True):
            feature = {
                "features": tf.train.Feature(float_list=tf.train.FloatList(value=vector)),
                schema.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString(deterministic=True))
    temporary.replace(path)


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("split", "validation", "Which images: train or validation.")
    flags.DEFINE_string("layer", "relu7", "Whose output: relu7 is fc7 as the classifier sees it, relu6 fc6.")
    flags.DEFINE_string(
        "output", None, "File to write: .npz, which alexnet-neighbours reads, or .tfrecord.", required=True
    )
    flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
    program.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    suffix = pathlib.Path(flag.output).suffix
    if suffix not in (".npz", ".tfrecord"):
        raise ValueError(f"`output` must end in .npz or .tfrecord. Received: {flag.output}")
    program.check_outputs("output", [flag.output], flag.overwrite)
    model, _ = load_model(flag.model)
    description = schema.load_description(flag.data_dir)
    schema.split_of(description, flag.split)
    features = extract(model, flag.layer, flag.data_dir, description, flag.split, flag.batch_size)
    features.save(flag.output) if suffix == ".npz" else save_tfrecord(features, flag.output)
    print(f"{len(features.vectors):,} vectors of {features.vectors.shape[1]:,} numbers. Written: {flag.output}")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
