"""The features of validation images in the last hidden layer, for TensorBoard's embedding projector."""

import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector

from alexnet_tf import files, layers
from alexnet_tf.figures import plots

_THUMBNAIL_PX = 48


def write(
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
    plots.save_png(folder / embedding.sprite.image_path, _sheet(thumbnails))
    projector.visualize_embeddings(str(folder), config)


def _one_line(name: str) -> str:
    return name.replace("\t", " ").replace("\n", " ")


def _sheet(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """The thumbnails row by row in a square, where TensorBoard finds each by its position."""
    side = int(np.ceil(np.sqrt(len(thumbnails))))
    sheet = np.zeros((side * _THUMBNAIL_PX, side * _THUMBNAIL_PX, 3), "uint8")
    for number, thumbnail in enumerate(thumbnails):
        row, column = (_THUMBNAIL_PX * each for each in divmod(number, side))
        sheet[row : row + _THUMBNAIL_PX, column : column + _THUMBNAIL_PX] = thumbnail
    return sheet
