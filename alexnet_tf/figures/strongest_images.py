"""The images of a data set that activate the feature maps of layers most, and where in the image."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from alexnet_tf.figures import image_grids
from alexnet_tf.networks import receptive_fields, structure
from alexnet_tf.tfrecords import crops, reader, schema, verify

_BATCH_SIZE = 128
_FLAT = 8  # gray levels by which an area of one color varies, because of JPEG


class StrongestImages(NamedTuple):
    """The images with the largest activations in each feature map of a layer: arrays (feature maps, count).

    Attributes:
        indices: of the images, those with the largest activations first.
        values: the largest activation of the feature map in each image.
        rows, columns: position of that activation; 0 and 0 in a fully-connected layer.
    """

    indices: np.ndarray
    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def find_strongest_images(
    model: keras.Model, layers: Sequence[str], batches: Iterable[np.ndarray], count: int
) -> dict[str, StrongestImages]:
    """Finds the images that activate the feature maps of layers most, in one pass.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layers: names of its layers.
        batches: the images, uint8 or float32 (batch, side, side, 3).
        count: number of images for each feature map.

    Returns: a dict from the layers' names to `StrongestImages`. Among equal activations, earlier images come first.

    Raises:
        ValueError: if the model lacks a layer, or `count` is larger than the number of images.
    """
    extractor = structure.features(model, layers)
    peaks, widths = {}, {}
    for name, output in extractor.output.items():
        widths[name] = output.shape[2] if len(output.shape) == 4 else 1
        flat = keras.ops.reshape(output, (-1, int(np.prod(output.shape[1:-1])), output.shape[-1]))
        peaks[name] = keras.ops.max(flat, axis=1), keras.ops.argmax(flat, axis=1)
    network = keras.Model(extractor.input, peaks)
    found: dict[str, tuple[np.ndarray, ...]] = {}
    first = 0
    for images in batches:
        for name, (values, positions) in network.predict_on_batch(images).items():
            indices = np.broadcast_to(first + np.arange(len(values))[:, None], values.shape)
            candidates = (indices, values, positions)
            if name in found:  # the best so far come first, because equal activations are sorted by index
                candidates = tuple(np.concatenate(pair) for pair in zip(found[name], candidates, strict=True))
            best = np.argsort(-candidates[1], axis=0, kind="stable")[:count]
            found[name] = tuple(np.take_along_axis(array, best, axis=0) for array in candidates)
        first += len(images)
    if not 1 <= count <= first:
        raise ValueError(f"`count` must be from 1 to the number of images, {first}. Received: count={count}")
    result = {}
    for name, arrays in found.items():
        indices, values, positions = (array.T for array in arrays)
        result[name] = StrongestImages(indices, values, positions // widths[name], positions % widths[name])
    return result


def crop_receptive_field(image: np.ndarray, field: receptive_fields.Window, row: int, column: int) -> np.ndarray:
    """Crops an image to the receptive field of a unit, moved into the image if a part of it is outside.

    Args:
        image: uint8 (side, side, 3), the network's input.
        field: receptive field of the unit's layer, from `receptive_fields.receptive_field`.
        row, column: the unit's position in its feature map.

    Returns: uint8 (size, size, 3); the whole image if it is smaller.
    """
    size = min(field.size, len(image))
    top, left = (min(max(field.start + x * field.step, 0), len(image) - size) for x in (row, column))
    return image[top : top + size, left : left + size]


def _is_flat(image: np.ndarray, field: receptive_fields.Window, row: int, column: int) -> bool:
    """Whether the part of a receptive field that is inside the image has one color."""
    size, step, start = field
    top, left = (start + position * step for position in (row, column))
    inside = image[max(top, 0) : top + size, max(left, 0) : left + size]
    return int(np.ptp(inside, axis=(0, 1)).max()) <= _FLAT


def draw_strongest_images(
    model: keras.Model,
    layers: Sequence[str],
    data_dir: str | pathlib.Path,
    description: schema.DatasetDescription,
    split: str,
    num_feature_maps: int,
    count: int,
) -> dict[str, np.ndarray]:
    """Draws the receptive fields of the largest activations in some feature maps of layers, one row per feature map.

    The value of each activation is below its image.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layers: names of its layers.
        data_dir, description, split: the images.
        num_feature_maps: number of feature maps, spread evenly over each layer; all if it has fewer. Feature maps that
            are strongest on areas of one color, such as a black background, are skipped.
        count: number of images for each feature map.

    Returns: a dict from the layers' names to uint8 (height, width, 3).

    Raises:
        ValueError: as `find_strongest_images`.
    """
    side = model.input_shape[1]
    dataset = reader.make_evaluation_dataset(data_dir, _BATCH_SIZE, side, description=description, split=split)
    with verify.naming_damaged_shards(data_dir, description):
        num_batches = -(-description.splits[split].count // _BATCH_SIZE)
        quiet = not keras.config.is_interactive_logging_enabled()
        batches = tqdm(dataset.as_numpy_iterator(), "searching images", num_batches, unit=" batches", disable=quiet)
        found = find_strongest_images(model, layers, (images for images, _ in batches), count)
    pictures = {}
    for layer, strongest in found.items():
        candidates = image_grids.spread_evenly(len(strongest.indices), 2 * num_feature_maps)  # some may be skipped
        strongest = StrongestImages(*(array[candidates] for array in strongest))
        images = reader.read_images(data_dir, description, split, strongest.indices.ravel())
        images = crops.center_crop(images, side).reshape(*strongest.indices.shape, side, side, 3)
        pictures[layer] = _draw(model, layer, candidates, strongest, images, num_feature_maps, description.class_names)
    return pictures


def _draw(model, layer, candidates, strongest, images, num_feature_maps, class_names):
    """Draws the feature maps of one layer. `images` are those of `strongest`: (feature maps, count, side, side, 3)."""
    field = receptive_fields.receptive_field(model, layer)
    rows, flat = [], []
    for of_map, values, *positions in zip(images, strongest.values, strongest.rows, strongest.columns, strict=True):
        units = list(zip(of_map, *positions, strict=True))
        patches = [crop_receptive_field(image, field, row, column) for image, row, column in units]
        rows.append([(patch, f"{value:.3g}") for patch, value in zip(patches, values, strict=True)])
        flat.append(np.mean([_is_flat(image, field, row, column) for image, row, column in units]) > 0.5)
    shown = np.flatnonzero(np.invert(flat)) if not all(flat) else np.arange(len(candidates))
    shown = shown[image_grids.spread_evenly(len(shown), num_feature_maps)]
    is_class = layer in structure.class_layers(model)
    names = [class_names[index] if is_class else f"feature map {index}" for index in candidates[shown]]
    return image_grids.patch_rows([rows[m] for m in shown], [f"{layer}\n{image_grids.shorten(n)}" for n in names])
