"""The panels of figure 4: predictions for images of a data set, and their nearest neighbors."""

import pathlib

import keras
import numpy as np

from alexnet_tf.evaluation import features, metrics, nearest_neighbors
from alexnet_tf.figures import image_grids
from alexnet_tf.networks import structure
from alexnet_tf.tfrecords import crops, reader, schema
from alexnet_tf.tfrecords import images as image_files

_FILE_PX = 256  # side of the squares that stand for image files


def draw_predictions(
    model: keras.Model, data_dir: str | pathlib.Path, description: schema.DatasetDescription, count: int = 8
) -> np.ndarray:
    """Draws images spread evenly over the validation split above bars of their five most probable classes.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        data_dir, description: the images.
        count: number of images.

    Returns: uint8 (height, width, 3).

    Source: figure 4, left.
    """
    indices = image_grids.spread_evenly(description.splits["validation"].count, count)
    images = reader.read_images(data_dir, description, "validation", indices)
    labels = reader.read_labels(data_dir, description, "validation")[indices]
    probabilities = model.predict(crops.center_crop(images, model.input_shape[1]), verbose=0)
    predictions = [
        ([description.class_names[label] for label in best], row[best])
        for row, best in zip(probabilities, metrics.top_k(probabilities, 5), strict=True)
    ]
    return image_grids.prediction_panel(images, predictions, [description.class_names[label] for label in labels])


def draw_neighbors(
    queries: features.Features,
    searched: features.Features,
    indices: np.ndarray,
    data_dir: str | pathlib.Path | None,
    description: schema.DatasetDescription | None,
    num_queries: int,
) -> np.ndarray:
    """Draws images next to their nearest neighbors, named by their class or, without one, by their file.

    Args:
        queries, searched: features of the images of one data set, or of image files.
        indices: int (queries, count), the neighbors found by `nearest_neighbors.exact_search`.
        data_dir, description: the data set; None for image files.
        num_queries: number of queries to draw: the first image of that many classes, or files spread evenly.

    Returns: uint8 (height, width, 3).

    Source: figure 4, right.
    """
    if len(queries.labels):
        _, firsts = np.unique(queries.labels, return_index=True)
        drawn = np.sort(firsts)[:num_queries]
    else:
        drawn = image_grids.spread_evenly(len(queries.files), num_queries)
    own = _named_images(queries, drawn, data_dir, description)
    found = _named_images(searched, indices[drawn].ravel(), data_dir, description)
    count = indices.shape[1]
    return image_grids.image_rows([[one, *found[count * row : count * (row + 1)]] for row, one in enumerate(own)])


def _named_images(shown, indices, data_dir, description):
    """The images of some features, with the names of their classes or files."""
    if shown.split:
        images = reader.read_images(data_dir, description, shown.split, indices)
        return [(image, description.class_names[shown.labels[i]]) for image, i in zip(images, indices, strict=True)]
    paths = [pathlib.Path(shown.files[index]) for index in indices]
    return [(image_files.prepare_image(path, _FILE_PX), path.stem) for path in paths]


def draw_nearest_training_images(
    model: keras.Model, data_dir: str | pathlib.Path, description: schema.DatasetDescription
) -> np.ndarray:
    """Draws five validation images next to the six training images nearest in the last hidden layer's feature space.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        data_dir, description: the images.

    Returns: uint8 (height, width, 3).

    Source: figure 4, right.
    """
    layers = [structure.last_hidden_layer(model)]
    searched, queries = (
        features.extract(model, layers, data_dir, description, split, batch_size=128)[0]
        for split in ("train", "validation")
    )
    # By Euclidean distance, as in the paper.
    indices, _ = nearest_neighbors.exact_search(queries.vectors, searched.vectors, 6, "euclidean")
    return draw_neighbors(queries, searched, indices, data_dir, description, num_queries=5)
