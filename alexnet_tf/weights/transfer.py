"""Copies weights between networks, and from other programs' files into networks."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import shutil
import tempfile

import keras
import numpy as np
from absl import logging

from alexnet_tf import files, layers
from alexnet_tf.networks import structure
from alexnet_tf.networks.structure import column_variables, merged_weights
from alexnet_tf.tfrecords import ilsvrc, schema
from alexnet_tf.weights.pretrained_files import PretrainedWeights


def copy_weights(
    source: keras.Model,
    target: keras.Model,
    new_head: bool = False,
    names: collections.abc.Sequence[str] = (),
) -> None:
    """Copies the weights of a model into another, so that both compute the same function.

    The columns may be merged in one and split in the other. Differences outside of the weights are folded into them:
    another input scale into conv1, dropout's factor (at test time or in training) into the layer above it.

    Args:
        source, target: from `model.build_alexnet`.
        new_head: whether the classifier keeps its own initial weights, and with a source without its top all
            fully-connected layers.
        names: the layers to copy, if not all.

    Raises:
        ValueError: if a layer of the target is missing in the source, has other shapes, or weights that are not finite.
    """
    weights = {layer.name: merged_weights(layer) for layer in source.layers if layer.weights}
    for name, values in weights.items():
        if "kernel" in values and name in {layer.name for layer in target.layers}:
            values["kernel"] = values["kernel"] * (_dropout_factor(source, name) / _dropout_factor(target, name))
    _set_weights(target, weights, structure.mean_image(source).scale, new_head, names)


def has_other_classes(units: int | None, target: keras.Model) -> bool:
    """Tells whether weights are for another number of classes than a network, and warns if so: it keeps its own head.

    Args:
        units: number of classes of the weights; None if they have no classifier.
        target: from `model.build_alexnet`.
    """
    head = structure.classifier(target)
    if units is None or head is None or units == head.units:
        return False
    logging.warning(
        "The weights have %d classes, the network has %d: %s keeps its initial weights, all other layers are loaded.",
        *(units, head.units, head.name),
    )
    return True


def load_pretrained(network: PretrainedWeights, target: keras.Model, new_head: bool = False) -> None:
    """Copies weights that were read from another program's file into a model.

    Args:
        network: from `pretrained_files.read_pretrained`.
        target: from `model.build_alexnet`, with merged or split columns.
        new_head: whether the classifier keeps its own initial weights.

    Raises:
        ValueError: if a layer is missing, its shapes are not the target's, or its weights are not finite.
    """
    weights = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in network.weights.items()}
    weights["mean_image"] = {"mean": np.asarray(network.mean_color, "float32").reshape(1, 1, 3)}
    first_dense = next((layer for layer in target.layers if isinstance(layer, layers.ColumnDense)), None)
    values = weights.get(first_dense.name) if first_dense else None
    if network.maps_first and values:
        _check_shape(first_dense, "kernel", values["kernel"].shape)
        below = target.layers[target.layers.index(first_dense) - 1]
        rows, columns, maps = structure.output_shape(below)
        kernel = values["kernel"].reshape(maps, rows, columns, -1).transpose(1, 2, 0, 3)
        values["kernel"] = kernel.reshape(rows * columns * maps, -1)
    _set_weights(target, weights, network.input_scale, new_head)


def _set_weights(target: keras.Model, weights: dict, input_scale, new_head: bool, names=()) -> None:
    """Sets weights by the names of their layers, each as `merged_weights` returns it."""
    *below, head = [layer for layer in target.layers if layer.weights]
    if new_head and not any("kernel" in values and values["kernel"].ndim == 2 for values in weights.values()):
        below = [layer for layer in below if not isinstance(layer, layers.ColumnDense)]
    copied = below if new_head else [*below, head]
    if names:
        structure.check_layers(target, names)
        copied = [layer for layer in copied if layer.name in names]
    ratio = np.ones(3) * input_scale / structure.mean_image(target).scale
    first = next(layer for layer in target.layers if structure.has_kernel(layer))
    for layer in copied:
        if layer.name not in weights:
            hint = " Convolutions alone need `include_top=False`." if isinstance(layer, layers.ColumnDense) else ""
            raise ValueError(f"{layer.name} is missing. There are {', '.join(sorted(weights))}.{hint}")
        values, expected = dict(weights[layer.name]), merged_weights(layer)
        if values.keys() != expected.keys():
            raise ValueError(f"{layer.name} must have {sorted(expected)}. Received: {sorted(values)}")
        is_mean_image = isinstance(layer, layers.MeanImage)
        for name, value in values.items():
            if not is_mean_image:
                _check_shape(layer, name, value.shape)
            if not np.all(np.isfinite(value)):
                raise ValueError(f"{layer.name}'s {name} must be finite. Received: NaN or infinity")
        if is_mean_image:
            layer.set_mean_image(values["mean"])  # which may have another size
            continue
        if layer is first:
            values["kernel"] = values["kernel"] * ratio.astype("float32")[:, None]
        for name, variables in column_variables(layer).items():
            for variable, part in zip(variables, np.split(values[name], len(variables), axis=-1), strict=True):
                variable.assign(part)


def _check_shape(layer, name, shape):
    expected = merged_weights(layer)[name].shape
    if tuple(shape) != expected:
        raise ValueError(f"{layer.name}'s {name} must be of shape {expected}. Received: {tuple(shape)}")


def _dropout_factor(network, name):
    """The factor of a layer's inputs at test time."""
    before = None
    for layer in network.layers:
        if layer.name == name:
            break
        if layer.weights:
            before = None
        elif isinstance(layer, layers.PaperDropout):
            before = layer
    return 1.0 if before is None else 1.0 - before.rate


def describe_data(
    known: schema.DatasetDescription | None,
    names_file: str | pathlib.Path | None,
    converted: keras.Model,
    source: str | pathlib.Path,
) -> schema.DatasetDescription:
    """The description of the data of a converted network.

    Args:
        known: that of the network that was converted; None if it has none. Caffe's images are then resized by "warp".
        names_file: a file of class names for `read_class_names`, or None.
        converted: the network.
        source: the file that was converted.

    Raises:
        ValueError: as `read_class_names`.
    """
    classes = converted.output_shape[-1]
    if known and not names_file:
        if len(known.class_names) != classes:
            raise ValueError(f"`class_names` must name the {classes} classes. Received: {len(known.class_names)} names")
        return known
    names = tuple(read_class_names(names_file, classes))
    if known:
        return dataclasses.replace(known, class_names=names)
    of_caffe = pathlib.Path(source).suffix in (".caffemodel", ".npy")
    settings = {"source": f"converted from {pathlib.Path(source).name}", "exif_orientation": True}
    settings |= {"resize": "warp" if of_caffe else "crop"}
    image_px = max(256, converted.input_shape[1])  # section 2
    return schema.DatasetDescription(names, image_px, False, "jpeg", splits={}, settings=settings)


def save_converted(
    converted: keras.Model,
    description: schema.DatasetDescription,
    card: str,
    output_dir: str | pathlib.Path,
    zipped: bool = True,
) -> None:
    """Writes a folder like the run folders of alexnet-train, with the network, dataset.json and README.md: a model for
    the Hugging Face Hub. An interrupted call leaves no folder.

    Args:
        converted: the network.
        description: of the data that it was trained on.
        card: the text of README.md.
        output_dir: the folder, which must not exist.
        zipped: whether the network is one file, model.keras, instead of Keras's three files in the folder.

    Raises:
        ValueError: if the folder exists already.
    """
    output_dir = pathlib.Path(output_dir)
    if output_dir.exists() or output_dir.is_symlink():
        raise ValueError(f"`output_dir` must not exist yet. Received: {output_dir}")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".tmp-{output_dir.name}-", dir=output_dir.parent))
    try:
        if zipped:
            converted.save(temporary / "model.keras")
        else:
            converted.save(temporary, zipped=False)
        description.save(temporary)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        files.publish(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_class_names(path: str | pathlib.Path | None, num_classes: int) -> collections.abc.Sequence[str]:
    """Reads class names.

    Args:
        path: a file with a name per line, or a dataset.json; None for ImageNet's, such as "n01440764 tench, Tinca
            tinca", sorted by their ids: the order of Caffe's and torchvision's labels.
        num_classes: the expected number of names.

    Raises:
        ValueError: if there are more or fewer names than classes, a name is empty or occurs twice, or the file has
            another format.
    """
    if path is None:
        if num_classes != 1000:
            raise ValueError(
                f"`class_names` must be given: only ImageNet's 1000 are known. Received: {num_classes} classes"
            )
        return [f"{class_id} {words}" for class_id, words in ilsvrc.read_classes().items()]
    content = pathlib.Path(path).read_bytes()
    if str(path).endswith(".json"):
        try:
            content = "\n".join(json.loads(content)["class_names"]).encode()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"`class_names` must be a dataset.json or a text file. {path}: {error!r}") from error
    names = schema.parse_class_names(content, path)
    if len(names) != num_classes:
        raise ValueError(f"`class_names` must name the {num_classes} classes. Received: {len(names)} names in {path}")
    return names
