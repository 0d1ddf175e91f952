"""What a run logs to TensorBoard: its data and flags as text, inputs, graph, numbers, samples and last features."""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector

from alexnet_tf import files, layers
from alexnet_tf.figures import image_grids, plots
from alexnet_tf.tfrecords import schema

# Number of weights in a large kernel's histogram: TensorBoard would need gigabytes for all 38 million of fc6.
_WEIGHTS_IN_HISTOGRAM = 100_000
_THUMBNAIL_PX = 48  # in the embedding projector


def describe_run(
    description: schema.DatasetDescription, records_skipped: int, flags: Mapping[str, str]
) -> dict[str, str]:
    """Describes data and flags as Markdown for TensorBoard's text page.

    Args:
        description: the data set.
        records_skipped: number of its records that are skipped because they are damaged.
        flags: the text of each flag.

    Returns: a dict from titles to texts.
    """
    settings = "\n".join(f"* {name}: {value}" for name, value in description.settings.items())
    counts = "\n".join(f"* {name}: {split.count:,} images" for name, split in description.splits.items())
    names = ", ".join(description.class_names[:20]) + (", ..." if len(description.class_names) > 20 else "")
    data = f"{counts}\n* records skipped: {records_skipped}\n* {len(description.class_names)} classes: {names}\n"
    return {"data": data + settings, "flags": "\n".join(f"    --{name}={value}" for name, value in flags.items())}


def augmented_inputs(dataset: tf.data.Dataset, count: int) -> np.ndarray:
    """The first images of a training set as the network receives them: with color noise, before the mean is subtracted.

    Returns: uint8 (at most count, height, width, 3).
    """
    inputs, _ = next(iter(dataset))
    pixels = np.float32(inputs["image"][:count]) + np.asarray(inputs["color_offset"][:count])[:, None, None, :]
    return np.clip(np.round(pixels), 0, 255).astype("uint8")


def network_graph(model: keras.Model) -> tf.compat.v1.GraphDef:
    """The operations of a model with named inputs, grouped by layer names, without the model's own group."""
    inputs = {name: tf.TensorSpec(tensor.shape, name=name) for name, tensor in model.input.items()}
    graph = tf.function(lambda inputs: model(inputs)).get_concrete_function(inputs).graph.as_graph_def()
    for node in graph.node:
        sources = [source for source in node.input if not source.startswith("^")]
        node.name, *sources = (re.sub(r"^[^/]+/([^/]+?)(_\d+)?/", r"\1/", name) for name in (node.name, *sources))
        node.input[:] = sources
    kept = [node for node in graph.node if node.op != "NoOp"]
    del graph.node[:]
    graph.node.extend(kept)
    return graph


def loss_and_errors(logs: Mapping[str, float] | None, prefix: str = "") -> dict[str, float]:
    """The loss and, like in the paper, errors instead of accuracies, from Keras's logs."""
    logs = logs or {}
    scalars = {"loss": logs[prefix + "loss"]} if prefix + "loss" in logs else {}
    return scalars | {f"{name}_error": 1 - logs[prefix + name] for name in ("top1", "top5") if prefix + name in logs}


def means_since(
    logs: Mapping[str, float], batches: int, before: Mapping[str, float], batches_before: int
) -> dict[str, float]:
    """The means over the batches since the previous log point, from Keras's means over the epoch so far.

    Args:
        logs, batches: the means now, and their number of batches.
        before, batches_before: the same at the previous log point; empty and 0 at the start of the epoch.
    """
    return {
        name: (value * batches - before.get(name, 0.0) * batches_before) / (batches - batches_before)
        for name, value in logs.items()
    }


def sample(weight: keras.Variable) -> np.ndarray:
    """The weights for a histogram: all, or a fixed random sample if there are many."""
    values = keras.ops.convert_to_numpy(weight).ravel()
    if values.size <= _WEIGHTS_IN_HISTOGRAM:
        return values
    return values[np.random.default_rng(0).integers(values.size, size=_WEIGHTS_IN_HISTOGRAM)]


def write_projector(
    folder: str | pathlib.Path,
    model: keras.Model,
    dataset: tf.data.Dataset,
    class_names: Sequence[str],
    max_images: int = 400,
) -> None:
    """Writes the last hidden layer's output for images, with thumbnails, classes and predicted classes.

    Args:
        folder: where TensorBoard will find `projector_config.pbtxt`.
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        dataset: `tf.data.Dataset` of (uint8 images, labels).
        class_names: names in the order of the labels.
        max_images: maximum number of images; the first ones are used.

    Source: section 6.1: figure 4 finds similar images by the features of the last hidden layer.
    """
    folder = pathlib.Path(folder)
    *_, hidden, classifier = (layer for layer in model.layers if isinstance(layer, layers.ColumnDense))
    hidden_output = classifier.input  # one tensor, or one of each column if these are on devices of their own
    if isinstance(hidden_output, list):
        hidden_output = keras.layers.Concatenate()(hidden_output)
    network = keras.Model(model.input, [hidden_output, model.output])
    vectors, lines, thumbnails = [], [], []
    for images, labels in dataset:
        features, probabilities = (keras.ops.convert_to_numpy(output) for output in network(images, training=False))
        for image, label, vector, predicted in zip(images, labels, features, probabilities.argmax(axis=1), strict=True):
            vectors.append("\t".join(f"{value:.4g}" for value in vector))
            lines.append(f"{_one_line(class_names[int(label)])}\t{_one_line(class_names[int(predicted)])}")
            thumbnails.append(np.asarray(Image.fromarray(image.numpy()).resize((_THUMBNAIL_PX, _THUMBNAIL_PX))))
        if len(vectors) >= max_images:
            break
    vectors, lines, thumbnails = vectors[:max_images], lines[:max_images], thumbnails[:max_images]

    config = projector.ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name = hidden.name
    embedding.tensor_path = f"{hidden.name}.tsv"
    embedding.metadata_path = f"{hidden.name}_classes.tsv"
    embedding.sprite.image_path = f"{hidden.name}_images.png"
    embedding.sprite.single_image_dim.extend([_THUMBNAIL_PX, _THUMBNAIL_PX])
    for path, text in (
        (embedding.tensor_path, "\n".join(vectors)),
        (embedding.metadata_path, "\n".join(["class\tpredicted class", *lines])),
    ):
        files.write_text(folder / path, f"{text}\n")
    # TensorBoard finds a thumbnail by its position.
    sheet = image_grids.tile(thumbnails, columns=math.ceil(math.sqrt(len(thumbnails))))
    plots.save_png(folder / embedding.sprite.image_path, sheet)
    projector.visualize_embeddings(str(folder), config)


def _one_line(name: str) -> str:
    return name.replace("\t", " ").replace("\n", " ")
