"""The description of a network's training data, which the network's own configuration keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras

from alexnet_tf.networks import structure
from alexnet_tf.tfrecords import schema


def make_description(
    class_names: Iterable[str],
    image_px: int,
    source: str | None = None,
    resize: str = "crop",
    exif_orientation: bool = True,
) -> schema.DatasetDescription:
    """Describes a network's training data without its records: the arguments are fields, settings and properties of
    `schema.DatasetDescription`."""
    settings = {"source": source, "resize": resize, "exif_orientation": exif_orientation}
    return schema.DatasetDescription(tuple(class_names), image_px, False, "jpeg", splits={}, settings=settings)


def set_description(network: Any, description: schema.DatasetDescription) -> None:
    """Stores the class names of a network, and how its images become squares.

    A saved, cloned or pickled network keeps them: a lone .keras file is complete.

    Args:
        network: from `model.build_alexnet`.
        description: of its training data. If the network has another number of classes, they are named by index.
    """
    description = dataclasses.replace(description, class_names=_names(network, description.class_names))
    structure.mean_image(network).training_data = {
        "class_names": list(description.class_names),
        "image_px": description.image_px,
        "resize": description.resize,
        "exif_orientation": description.exif_orientation,
        "source": description.settings.get("source"),
    }
    network.description = description


def find_description(network: keras.Model) -> schema.DatasetDescription | None:
    """Returns the description of a network's training data; None if it has none.

    A classifier of another number of classes, as on a base from `include_top=False`, has classes named by index.
    """
    if hasattr(network, "description"):
        return network.description
    try:
        kept = structure.mean_image(network).training_data
    except ValueError:  # not a network of this project
        return None
    if not kept:
        return None
    arguments: dict[str, Any] = kept | {"class_names": _names(network, kept["class_names"])}
    return make_description(**arguments)


def _names(network, names):
    """The class names of a network, by index if the given ones are not as many."""
    if structure.classifier(network) is not None and network.output_shape[-1] != len(names):
        return tuple(map(str, range(network.output_shape[-1])))
    return names
