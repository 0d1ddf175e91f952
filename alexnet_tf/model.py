"""Builds the networks of the table of variants as Keras models, and opens saved models."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from alexnet_tf.layers import MeanImage, device_placement
from alexnet_tf.networks import descriptions, keras_layers, precision, rows, structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import hub, keras_files, pretrained, pretrained_files, published, transfer

_POOLINGS = {None: None, "avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}

_IMAGE_PX = 256  # section 2; the side to which images are resized if no dataset.json says otherwise


def build_alexnet(
    variant: str = "paper",
    num_classes: int | None = None,
    *,
    initializer: str | keras.initializers.Initializer | None = None,
    initial_biases: float | None = None,
    input_scale: float | tuple[float, float, float] | None = None,
    merge_columns: bool | None = None,
    column_devices: Sequence[str] | None = None,
    weights: str | pathlib.Path | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    image_px: int | None = None,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    classes: int | None = None,
    input_shape: Sequence[int] | None = None,
) -> keras.Model:
    """Builds an AlexNet.

    The names of the layers follow figure 2 (conv1, relu1, norm1, pool1, ... fc8, softmax): the output of fc7 is
    `model.get_layer("fc7").output`.

    Args:
        variant: a key of `variants.VARIANTS`.
        num_classes: number of classes, at least 2; None for ImageNet's 1000.
        initializer: None for the variant's own initial weights and biases, or a Keras initializer for all kernels, such
            as "he_normal". The biases are then 0: the paper's biases of 1 belong to its small weights.
        initial_biases: initial value of all biases; None for that of `initializer`.
        input_scale: factor of the centered pixels (see `layers.MeanImage`); None for the variant's own.
        merge_columns: whether a layer that is connected to every column is one layer for all columns (True: fewer,
            larger products on one device) instead of one for each column (False: each column can have its own device);
            None for the variant's own. The function is the same; `weights.transfer.copy_weights` converts between them.
        column_devices: None, or a TensorFlow device name for each column, such as ["GPU:0", "GPU:1"], for the column's
            variables and operations. The devices exchange activations only where the columns are connected. The
            layers' outputs are then lists of one tensor for each column. Devices are not saved.
        weights: None for initial weights; the name of published weights, a key of `weights.published.PUBLISHED`;
            "imagenet" for those that were published for this variant; or a file: a saved model, .keras or its folder,
            or a file for `weights.pretrained.load_weights`. They include the mean image.
        include_top: whether the network has its fully-connected layers. Without them its output is the last feature
            maps, before dropout.
        pooling: without `include_top`, None for feature maps, or "avg" or "max" for their average or maximum,
            (batch, channels).
        image_px: side of the images; None for the variant's own. The size determines the inputs of the first
            fully-connected layer: with another size, only weights below it fit.
        classifier_activation: "softmax", or None for logits.
        name: name of the model; by default it contains the variant.
        classes, input_shape: `num_classes`, and (image_px, image_px, 3), by their names in `keras.applications`.

    Returns:
        A functional `keras.Model` from RGB pixels, float32 or uint8 (batch, image_px, image_px, 3) from 0 to 255, to
        class probabilities, float32 (batch, num_classes). Its mean image is zero unless `weights` or
        `model.get_layer("mean_image").set_mean_image(...)` sets it. With published weights it knows their classes and
        preprocessing, as a model from `load_model`.

    Raises:
        ValueError: if the variant does not exist, `num_classes` is below 2, the devices do not exist or do not match
            the columns, the images are too small, or the weights are not available or do not fit.

    Source: section 3.5 and figure 2; the table of variants has a source for each number.
    """
    num_classes, image_px = _translate_keras_arguments(num_classes, classes, image_px, input_shape)
    _check_arguments(variant, num_classes, include_top, pooling, classifier_activation, column_devices)
    row = VARIANTS[variant] if image_px is None else VARIANTS[variant].replace(image_px=image_px)
    shapes = _shapes(row, num_classes, include_top, classifier_activation)
    if weights is not None:
        initializer = "zeros"  # drawing 61 million random numbers, to be replaced, takes a second
    merged = row.columns_merged if merge_columns is None else merge_columns
    if column_devices is not None:
        _check_devices(variant, row, merged, column_devices)
    x = image = keras.Input((row.image_px, row.image_px, 3), name="image")
    x = MeanImage(
        scale=row.input_scale if input_scale is None else input_scale,
        noise_divisor=row.noise_divisor,
        name="mean_image",
    )(x)
    for shape in shapes:
        x = keras_layers.make_layer(shape, row.columns, merged, initializer, column_devices, initial_biases)(x)
    if pooling:
        x = _POOLINGS[pooling](name=f"{pooling}_pool")(x)
    model = keras.Model(image, x, name=name or f"alexnet_{variant}")
    if weights is not None:
        _load_weights(model, variant, weights)
    return model


def _translate_keras_arguments(num_classes, classes, image_px, input_shape):
    """Returns (num_classes, image_px) from this project's names and those of `keras.applications`."""
    if input_shape is not None:
        if len(input_shape) != 3 or input_shape[0] != input_shape[1] or input_shape[2] != 3:
            raise ValueError(f"`input_shape` must be (side, side, 3). Received: input_shape={tuple(input_shape)}")
        if image_px not in (None, input_shape[0]):
            raise ValueError(
                f"`image_px` must be the side in `input_shape`. Received: image_px={image_px}, {input_shape=}"
            )
        image_px = input_shape[0]
    if None not in (num_classes, classes) and num_classes != classes:
        raise ValueError(f"`num_classes` and `classes` must be equal. Received: {num_classes=}, {classes=}")
    given = num_classes if classes is None else classes
    return 1000 if given is None else given, image_px


def _load_weights(model, variant, weights):
    path = pathlib.Path(weights)
    name = pretrained.published_name(weights, variant, structure.classifier(model) is not None)
    if name is None and (path.is_dir() or path.suffix == ".keras"):
        transfer.copy_weights(open_model(path), model)
    else:
        pretrained.load_weights(model, variant, weights)
    if name is not None:
        descriptions.set_description(model, pretrained.description(name))


def _check_arguments(variant, num_classes, include_top, pooling, classifier_activation, column_devices):
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {sorted(VARIANTS)}. Received: variant={variant!r}")
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    if classifier_activation not in ("softmax", None):
        raise ValueError(f'`classifier_activation` must be "softmax" or None. Received: {classifier_activation!r}')
    if pooling not in _POOLINGS or (pooling and (include_top or column_devices)):
        raise ValueError(
            f"`pooling` must be one of {list(_POOLINGS)}, and None with `include_top` or `column_devices`. "
            f"Received: pooling={pooling!r}"
        )


def _check_devices(variant, row, merged, column_devices):
    if merged or row.columns != len(column_devices) or row.select(rows.BatchNorm):
        raise ValueError(
            "`column_devices` must name one device for each of several separate columns. "
            f"{variant} has {1 if merged else row.columns}. Received: column_devices={column_devices}"
        )
    device_placement.check_devices_exist(column_devices)


def _shapes(row, num_classes, include_top, classifier_activation):
    """Returns the shapes of the network's layers."""
    shapes = list(rows.trace(row, num_classes))
    if not include_top:
        shapes = list(itertools.takewhile(lambda shape: not isinstance(shape.row, rows.Dense), shapes))
        while isinstance(shapes[-1].row, rows.Dropout):  # one_weird_trick's belongs to fc6
            shapes.pop()
    elif classifier_activation is None:
        shapes.pop()
    for shape in shapes:
        if min(shape.output_shape) < 1:
            before = (each for each in shapes[: shapes.index(shape)] if each.output_shape != each.input_shape)
            sides = ", ".join(f"{each.name} {each.output_shape[0]}" for each in before)
            raise ValueError(
                f"`image_px` is too small: the sides of the feature maps are {sides}, and {shape.name} has none. "
                f"Received: image_px={row.image_px}"
            )
    return shapes


def variant_name(model: keras.Model) -> str:
    """Returns the variant of a model from `build_alexnet`, or the name of any other model."""
    return model.name.removeprefix("alexnet_")


def count_parameters(model: keras.Model) -> int:
    """Counts the learned parameters, frozen ones included: all weights but the mean image and moving averages."""
    others = ("mean", "moving_mean", "moving_variance")
    return sum(int(np.prod(weight.shape)) for weight in model.weights if weight.name not in others)


def weights_checksum(model: keras.Model) -> str:
    """Returns the SHA-256 of all weights, in hexadecimal, which identifies the model that was measured."""
    digest = hashlib.sha256()
    for values in model.get_weights():
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def layer_output(model: keras.Model, name: str) -> keras.KerasTensor:
    """The output of a layer as one tensor: outputs of separate columns are concatenated."""
    output = model.get_layer(name).output
    return keras.layers.Concatenate()(output) if isinstance(output, list) else output


def with_color_offset(model: keras.Model, model_class: type[keras.Model] = keras.Model) -> keras.Model:
    """Makes a model with the same layers and weights that accepts color noise as well.

    Args:
        model: from `build_alexnet`.
        model_class: `strategies.DistributedModel` for training with a distribution strategy.

    Returns:
        A functional model of that class for training, whose inputs are {"image": pixels (batch, image_px, image_px, 3),
        "color_offset": float32 (batch, 3)}, as `tfrecords.reader.make_training_dataset` yields. It shares `model`'s
        weights.

    Source: section 4.1.
    """
    image = keras.Input(model.input_shape[1:], name="image")
    color_offset = keras.Input((3,), name="color_offset")
    mean_image, *others = model.layers[1:]
    x = mean_image(image, color_offset)
    for layer in others:
        x = layer(x)
    return model_class({"image": image, "color_offset": color_offset}, x, name=model.name)


def open_model(path: str | pathlib.Path) -> keras.Model:
    """Opens a network that this project saved.

    Args:
        path: a folder with model.keras, or with the files that Keras saves unzipped; a .keras or .h5 file; the name of
            published weights, such as "caffe"; or a model on the Hugging Face Hub, "hf://USER/NAME".

    Returns: a `keras.Model` from RGB pixels, float32 or uint8 (batch, side, side, 3), to probabilities (batch,
    classes). A model that was trained in bfloat16 computes in float32 if that is faster on this machine.

    Raises:
        ValueError: if there is no model, it is damaged, or it is not a model of this project.
    """
    name = pretrained.published_name(path)
    if name:
        row = published.PUBLISHED[name]
        return build_alexnet(row.variant, weights=name, include_top=row.include_top)
    file = hub.find_model(path)
    if file.is_file():
        pretrained_files.check_not_lfs_pointer(file)
    try:
        keras_files.check_sizes(file)
        opened: Any = keras.models.load_model(file, compile=False)
    except Exception as error:  # a damaged file raises one of a dozen classes
        raise ValueError(f"{file} is not a complete Keras model: {str(error) or type(error).__name__}") from error
    try:
        structure.mean_image(opened)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a model of this project: it has no MeanImage layer.") from error
    return precision.computed_where_fast(structure.flatten(opened))


def load_model(path: str | pathlib.Path) -> keras.Model:
    """Opens a trained model, which knows its classes and how its images are prepared.

    Args:
        path: a run folder, a folder of its checkpoints, a .keras file of a network from `build_alexnet`, the name of
            published weights, or "hf://USER/NAME".

    Returns:
        The model from `open_model`. `model.description` is the `tfrecords.schema.DatasetDescription` of its training
        data: from dataset.json next to the model or in its run folder, or else from the model itself (see
        `networks.descriptions`). If there is neither, it warns and names the classes by index: "0", "1", and so on.

    Raises:
        ValueError: as from `open_model`, and if the description has another number of classes than the model.
    """
    path = hub.local_folder(path) or path
    model: Any = open_model(path)
    name = pretrained.published_name(path)
    description = pretrained.description(name) if name else _read_description(pathlib.Path(path), model)
    if description is None:
        logging.warning("No %s found next to %s: classes are named by index.", schema.DATASET_FILE, path)
        names, image_px = tuple(map(str, range(model.output_shape[-1]))), max(_IMAGE_PX, model.input_shape[1])
        settings = {"exif_orientation": True}
        model.description = schema.DatasetDescription(names, image_px, False, "jpeg", splits={}, settings=settings)
    else:
        descriptions.set_description(model, description)
    return model


def _read_description(path: pathlib.Path, model: keras.Model) -> schema.DatasetDescription | None:
    """Returns the description of a saved model's training data, or None if there is none."""
    folder = path if path.is_dir() else path.parent
    classes = model.output_shape[-1]
    if folder.absolute().parent.name == "checkpoints" and not (folder / schema.DATASET_FILE).exists():
        folder = folder.absolute().parents[1]
    if not (folder / schema.DATASET_FILE).exists():
        return descriptions.find_description(model)
    description = schema.load_description(folder)
    if classes != len(description.class_names):
        raise ValueError(
            f"{path} has {classes} classes, but the {schema.DATASET_FILE} next to it has "
            f"{len(description.class_names)}."
        )
    return description
