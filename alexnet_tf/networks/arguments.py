"""Checks the arguments of `model.build_alexnet`, and translates those that have other names in `keras.applications`."""

from __future__ import annotations

import itertools

import keras

from alexnet_tf.layers import device_placement
from alexnet_tf.networks import rows

POOLINGS = {None: None, "avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


def num_classes(given: int | None, classes: int | None) -> int:
    """Returns the number of classes from `num_classes` and `classes`, 1000 if both are None.

    Raises:
        ValueError: if both are given and differ, or there are fewer than 2.
    """
    if None not in (given, classes) and given != classes:
        raise ValueError(f"`num_classes` and `classes` must be equal. Received: num_classes={given}, {classes=}")
    found = given if classes is None else classes
    found = 1000 if found is None else found
    if found < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={found}")
    return found


def image_size(
    spec: rows.Variant, image_px: int | None, input_shape, input_tensor, include_top: bool
) -> tuple[int | None, int | None]:
    """Returns the height and width of the images, in pixels; None where `input_shape` or `input_tensor` leaves it open.

    Raises:
        ValueError: if the arguments differ, there are not three channels, or the network has fully-connected layers,
            whose weights belong to square images of one size, and the images have another form.
    """
    if input_tensor is not None and not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            "`input_tensor` must be symbolic: a `keras.Input` or the output of a layer. "
            f"Received: input_tensor={type(input_tensor).__name__}"
        )
    given = {
        "input_tensor": None if input_tensor is None else tuple(input_tensor.shape[1:]),
        "input_shape": None if input_shape is None else tuple(input_shape),
        "image_px": None if image_px is None else (image_px, image_px, 3),
    }
    given = {name: shape for name, shape in given.items() if shape is not None}
    received = ", ".join(f"{name} of {shape}" for name, shape in given.items())
    for name, shape in given.items():
        if len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"`{name}` must have the shape (height, width, 3). Received: {received}")
    if len(set(given.values())) > 1:
        names = " and ".join(f"`{name}`" for name in given)
        raise ValueError(f"{names} must have the same shape. Received: {received}")
    height, width, _ = next(iter(given.values()), (spec.image_px, spec.image_px, 3))
    if include_top and (height is None or height != width):
        raise ValueError(
            "Images must be squares of a known size unless `include_top` is False: the size determines the inputs of "
            f"the first fully-connected layer. Received: {received}"
        )
    return height, width


def check_output(include_top, pooling, classifier_activation, column_devices) -> None:
    """Raises ValueError if `classifier_activation` or `pooling` has no such value, or does not fit the others."""
    if classifier_activation not in ("softmax", None):
        raise ValueError(f'`classifier_activation` must be "softmax" or None. Received: {classifier_activation!r}')
    if pooling not in POOLINGS or (pooling and (include_top or column_devices)):
        raise ValueError(
            f"`pooling` must be one of {list(POOLINGS)}, and None with `include_top` or `column_devices`. "
            f"Received: pooling={pooling!r}"
        )


def check_devices(variant: str, spec: rows.Variant, merged: bool, column_devices) -> None:
    """Raises ValueError unless `column_devices` names an existing device for each of several separate columns."""
    if merged or spec.columns != len(column_devices) or spec.select(rows.BatchNorm):
        raise ValueError(
            "`column_devices` must name one device for each of several separate columns. "
            f"{variant} has {1 if merged else spec.columns}. Received: column_devices={column_devices}"
        )
    device_placement.check_devices_exist(column_devices)


def layer_shapes(
    spec: rows.Variant, size: tuple[int | None, int | None], classes: int, include_top: bool, activation: str | None
) -> list[rows.LayerShape]:
    """Returns the shapes of the network's layers, for squares of the shorter known side of the images.

    Raises:
        ValueError: if the images are too small for a layer.
    """
    image_px = min([side for side in size if side is not None] or [spec.image_px])
    shapes = list(rows.trace(spec.replace(image_px=image_px), classes))
    if not include_top:
        shapes = list(itertools.takewhile(lambda shape: not isinstance(shape.row, rows.Dense), shapes))
        while isinstance(shapes[-1].row, rows.Dropout):  # one_weird_trick's belongs to fc6
            shapes.pop()
    elif activation is None:
        shapes.pop()
    for shape in shapes:
        if min(shape.output_shape) < 1:
            before = (each for each in shapes[: shapes.index(shape)] if each.output_shape != each.input_shape)
            listed = ", ".join(f"{each.name} {each.output_shape[0]}" for each in before)
            raise ValueError(
                f"`image_px` is too small: the sides of the feature maps are {listed}, and {shape.name} has none. "
                f"Received: {image_px=}"
            )
    return shapes
