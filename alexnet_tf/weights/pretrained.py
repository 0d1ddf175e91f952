"""Loads published weights and weights files into a network."""

from __future__ import annotations

import pathlib
import re

import keras
from absl import logging

from alexnet_tf import layers
from alexnet_tf.networks import descriptions, structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import ilsvrc, schema
from alexnet_tf.weights import caffe_files, downloads, keras_files, pretrained_files, published, transfer


def load_weights(model: keras.Model, variant: str, weights: str | pathlib.Path) -> None:
    """Sets the weights and the mean image of a network.

    Args:
        model: from `model.build_alexnet`.
        variant: its variant.
        weights: the name of published weights, a key of `published.PUBLISHED`, or "imagenet" for the variant's; a
            .weights.h5 file that Keras saved; or a file for `pretrained_files.read_pretrained`.

    Raises:
        ValueError: if there are no such weights, they can't be downloaded, or they belong to another network.
    """
    include_top = any(isinstance(layer, layers.ColumnDense) for layer in model.layers)
    name = published_name(weights, variant, include_top)
    if name is None:
        path = pathlib.Path(weights)
        if not path.exists():
            known = ", ".join(published.PUBLISHED)
            raise ValueError(f"`weights` must be one of {known}, imagenet, or a file. Received: {weights}")
        if path.name.endswith(".weights.h5"):
            _load_keras_weights(model, path)
            return
        source = pretrained_files.read_pretrained(path)
        if source.variant not in (None, variant):  # None: the file does not say
            raise ValueError(f"{path} belongs to variant {source.variant!r}. Received: variant={variant!r}")
        new_head = "fc8" in source.weights and transfer.has_other_classes(source.num_classes, model)
        transfer.load_pretrained(source, model, new_head)
        return
    row = published.PUBLISHED[name]
    if include_top and not row.include_top:
        raise ValueError(
            f"`weights={name!r}` are convolutions only: `include_top` must be False. "
            f"`weights='imagenet'` has the fully-connected layers too"
        )
    if row.variant != variant:
        raise ValueError(f"`weights={name!r}` belong to variant {row.variant!r}. Received: variant={variant!r}")
    side = VARIANTS[variant].image_px
    if structure.mean_image(model).input.shape[1] != side and include_top:
        raise ValueError(
            f"`image_px` must be {side} with `weights` and `include_top`: the size determines the inputs of the first "
            f"fully-connected layer. Received: image_px={structure.mean_image(model).input.shape[1]}"
        )
    new_head = transfer.has_other_classes(len(ilsvrc.read_classes()) if row.include_top else None, model)
    transfer.load_pretrained(pretrained_files.read_pretrained(published.fetch(name)), model, new_head)
    if row.mean_image:
        structure.mean_image(model).set_mean_image(caffe_files.read_mean(downloads.fetch(row.mean_image)))


def _load_keras_weights(model, path):
    """Loads a .weights.h5 file; the classifier keeps its initial weights if only it differs."""
    head = structure.classifier(model)
    before = head.get_weights() if head else []
    try:
        keras_files.check_sizes(path)
        model.load_weights(path)
    except Exception as error:  # a damaged file raises one of a dozen classes
        # Keras raises this after it has set all other weights.
        only_head = head and re.search(rf"of 1 objects.*name={head.name},.*shape", str(error), re.DOTALL)
        if not only_head:
            raise ValueError(f"{path} does not hold weights of {model.name}: {error}") from error
        head.set_weights(before)
        logging.warning("%s has another number of classes: %s keeps its initial weights.", path, head.name)


def published_name(weights: str | pathlib.Path, variant: str | None = None, include_top: bool = True) -> str | None:
    """Returns the key of `published.PUBLISHED` for `weights`, or None if it is a path.

    "imagenet" without the top is the complete network's file if that is in the cache, otherwise the smaller file with
    the convolutions only, if there is one.

    Raises:
        ValueError: if `weights` is "imagenet" and nothing was published for the variant.
    """
    name = str(weights)
    if pathlib.Path(name).is_file() or (pathlib.Path(name) / "model.keras").is_file():
        return None
    if name == "imagenet" and variant is not None:
        names = [name for name, row in published.PUBLISHED.items() if row.variant == variant]
        if not names:
            known = sorted({row.variant for row in published.PUBLISHED.values()})
            raise ValueError(f"ImageNet weights were published for {', '.join(known)}. Received: variant={variant!r}")
        if not include_top and not published.PUBLISHED[names[0]].file.path.exists():
            return next((name for name in names if not published.PUBLISHED[name].include_top), names[0])
        return names[0]
    return name if name in published.PUBLISHED else None


def description(name: str) -> schema.DatasetDescription:
    """Returns the description of the training data of published weights, with ImageNet's class names."""
    names = (f"{class_id} {words}" for class_id, words in ilsvrc.read_classes().items())
    return descriptions.make_description(names, 256, f"published weights {name}", published.PUBLISHED[name].resize)
