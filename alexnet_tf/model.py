"""Builds the networks of the table of variants as Keras models, and opens saved models."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from alexnet_tf.layers import MeanImage
from alexnet_tf.networks import arguments, descriptions, keras_layers, precision, structure, variants
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import hub, keras_files, pretrained, pretrained_files, published, transfer

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
    dtype: str | keras.DTypePolicy | None = None,
    classes: int | None = None,
    input_shape: Sequence[int | None] | None = None,
    input_tensor: keras.KerasTensor | None = None,
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
            or a file for `weights.pretrained.load_weights`. They include the mean image. If they are for another number
            of classes, fc8 keeps its initial weights, with a warning.
        include_top: whether the network has its fully-connected layers. Without them its output is the last feature
            maps, before dropout.
        pooling: without `include_top`, None for feature maps, or "avg" or "max" for their average or maximum,
            (batch, channels).
        image_px: side of the images; None for the variant's own. The size determines the inputs of the first
            fully-connected layer: with another size, only weights below it fit.
        classifier_activation: "softmax", or None for logits.
        name: name of the model; by default it contains the variant.
        dtype: a Keras dtype or dtype policy, such as "mixed_bfloat16"; None for `keras.config.dtype_policy()`.
        classes, input_shape: `num_classes`, and (height, width, 3), by their names in `keras.applications`. Without
            `include_top`, images may be rectangular, or of any size: (None, None, 3). A mean image that does not cover
            them is reduced to its mean color.
        input_tensor: None, or a `keras.Input` or a layer's output, RGB pixels, to which the network is applied.

    Returns:
        A functional `keras.Model` from RGB pixels, float32 or uint8 (batch, height, width, 3) from 0 to 255, to class
        probabilities, float32 (batch, num_classes). Its mean image is zero unless `weights` or
        `model.get_layer("mean_image").set_mean_image(...)` sets it. With published weights it knows their classes and
        preprocessing, as a model from `load_model`.

    Raises:
        ValueError: if the variant does not exist, `num_classes` is below 2, the devices do not exist or do not match
            the columns, sizes differ or are too small, or the weights are not available or do not fit.

    Source: section 3.5 and figure 2; the table of variants has a source for each number.

    Example:

    >>> model = alexnet_tf.build_alexnet("paper", num_classes=10)
    >>> model.output_shape
    (None, 10)
    >>> size = (None, None, 3)  # unknown
    >>> base = alexnet_tf.build_alexnet("one_weird_trick", include_top=False, pooling="avg", input_shape=size)
    >>> base.predict(np.zeros((1, 128, 160, 3), "uint8"), verbose=0).shape
    (1, 256)
    """
    spec = variants.find_variant(variant)
    num_classes = arguments.num_classes(num_classes, classes)
    arguments.check_output(include_top, pooling, classifier_activation, column_devices)
    size = arguments.image_size(spec, image_px, input_shape, input_tensor, include_top)
    shapes = arguments.layer_shapes(spec, size, num_classes, include_top, classifier_activation)
    merged = spec.columns_merged if merge_columns is None else merge_columns
    if column_devices is not None:
        arguments.check_devices(variant, spec, merged, column_devices)
    with precision.policy_scope(dtype):
        image = keras.Input((*size, 3), name="image") if input_tensor is None else input_tensor
        scale = spec.input_scale if input_scale is None else input_scale
        x = MeanImage(scale=scale, noise_divisor=spec.noise_divisor, name="mean_image")(image)
        for shape in shapes:
            # Drawing 61 million random numbers, to be replaced, takes a second. Only a new classifier needs its own.
            replaced = weights is not None and shape.row not in spec.layers[-1:]
            first_values = "zeros" if replaced else initializer
            layer = keras_layers.make_layer(shape, spec.columns, merged, column_devices, first_values, initial_biases)
            x = layer(x)
        if pooling:
            x = arguments.POOLINGS[pooling](name=f"{pooling}_pool")(x)
    source = image if input_tensor is None else keras.utils.get_source_inputs(input_tensor)[0]
    model = keras.Model(source, x, name=name or f"alexnet_{variant}")
    if weights is not None:
        _load_weights(model, variant, weights)
    return model


def _load_weights(model, variant, weights):
    path = pathlib.Path(weights)
    name = pretrained.published_name(weights, variant, structure.classifier(model) is not None)
    if name is None and (path.is_dir() or path.suffix == ".keras"):
        source = open_model(path)
        head = structure.classifier(source)
        transfer.copy_weights(source, model, transfer.has_other_classes(head.units if head else None, model))
        known = _read_description(path, source)
    else:
        pretrained.load_weights(model, variant, weights)
        known = pretrained.description(name) if name else None
    if known is not None:
        descriptions.set_description(model, known)


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

    Example:

    >>> model = alexnet_tf.with_color_offset(alexnet_tf.build_alexnet("testing", 10))
    >>> sorted(model.input)
    ['color_offset', 'image']
    """
    image = keras.Input(model.input_shape[1:], name="image")
    color_offset = keras.Input((3,), name="color_offset")
    x = image
    for layer in model.operations[1:]:  # the layers, and what precedes them if there was an `input_tensor`
        x = layer(x, color_offset) if isinstance(layer, MeanImage) else layer(x)
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
        known = published.PUBLISHED[name]
        return build_alexnet(known.variant, weights=name, include_top=known.include_top)
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

    Example:

    >>> alexnet_tf.build_alexnet("testing", 3).save("mine.keras")
    >>> model = alexnet_tf.load_model("mine.keras")
    >>> model.predict(np.zeros((2, 56, 56, 3), "uint8"), verbose=0).shape
    (2, 3)
    >>> model.description.class_names
    ('0', '1', '2')
    """
    path = hub.local_folder(path) or path
    model: Any = open_model(path)
    name = pretrained.published_name(path)
    description = pretrained.description(name) if name else _read_description(pathlib.Path(path), model)
    if description is None:
        logging.warning("No %s found next to %s: classes are named by index.", schema.DATASET_FILE, path)
        names, image_px = map(str, range(model.output_shape[-1])), max(_IMAGE_PX, model.input_shape[1] or 0)
        model.description = descriptions.make_description(names, image_px)
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
    if structure.classifier(model) is not None and classes != len(description.class_names):
        raise ValueError(
            f"{path} has {classes} classes, but the {schema.DATASET_FILE} next to it has "
            f"{len(description.class_names)}."
        )
    return description
