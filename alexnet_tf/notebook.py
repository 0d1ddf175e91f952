"""Preprocessing and decoding of predictions for notebooks and scripts."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from PIL import ImageOps

from alexnet_tf.evaluation import metrics
from alexnet_tf.tfrecords import crops, ilsvrc, schema
from alexnet_tf.tfrecords import images as image_files

if TYPE_CHECKING:
    import keras

_ANY_DATA = schema.DatasetDescription((), 256, False, "jpeg", {}, {"exif_orientation": True})  # section 2
Image = str | os.PathLike | bytes | PIL.Image.Image | np.ndarray | Any  # the last: a tensor of any framework


def preprocess(
    images: Image | Sequence[Image],
    model: "keras.Model | None" = None,
    *,
    crop_px: int | None = None,
    image_px: int | None = None,
    exif_orientation: bool | None = None,
    resize: str | None = None,
) -> np.ndarray:
    """Resizes images as those of a data set are, and takes the center crop.

    The mean is not subtracted here: the network's first layer does that.

    Args:
        images: one image or a list of them, of any sizes: paths, bytes of encoded files, images of Pillow, or arrays or
            tensors (rows, columns) or (rows, columns, channels), RGB from 0 to 255; or a batch of these.
        model: None, or the network that the images are for. One of `load_model`, or of `build_alexnet` with published
            weights, knows the arguments below by the data that it was trained on.
        crop_px: side of the network's input, in pixels; None for the model's, or 224 without one.
        image_px: what the shorter side is resized to first, in pixels; None for the model's, or 256.
        exif_orientation: whether files and Pillow's images are turned upright, as their EXIF tag Orientation says; None
            for the model's, or True.
        resize: "crop" for the central square, "warp" to resize both sides; None for the model's, or "crop".

    Returns: uint8 (n, crop_px, crop_px, 3), RGB.

    Raises:
        ValueError: if `crop_px` is larger than `image_px`, an image can't be read, or its pixels are from 0 to 1.

    Source: section 2.
    """
    if crop_px is None:
        crop_px = 224 if model is None else int(model.input_shape[1])
    known: schema.DatasetDescription = getattr(model, "description", None) or _ANY_DATA
    stored_px = image_px or known.image_px
    upright = bool(known.exif_orientation) if exif_orientation is None else exif_orientation
    crops.check_crop_px(crop_px, stored_px)
    if isinstance(images, str | os.PathLike | bytes | PIL.Image.Image) or getattr(images, "ndim", 4) != 4:
        images = [images]
    squares = []
    for number, image in enumerate(images):
        try:
            encoded = isinstance(image, str | os.PathLike | bytes)
            pixels: Any = image if encoded else _as_array(image, upright)
            squares.append(
                image_files.prepare_image(pixels, stored_px, exif_orientation=upright, resize=resize or known.resize)
            )
        except Exception as error:  # Pillow raises many kinds
            received = image if isinstance(image, str) else type(image).__name__
            raise ValueError(
                f"`images` must be images that Pillow can read. Received at {number}: {received}: {error}"
            ) from error
    return crops.center_crop(np.stack(squares), crop_px)


def _as_array(image, exif_orientation: bool) -> np.ndarray:
    """The pixels of an image of Pillow, uint8 or of 16 or 32 bits; those of an array or tensor, uint8."""
    if isinstance(image, PIL.Image.Image):
        upright = ImageOps.exif_transpose(image) if exif_orientation else image
        if not upright.mode.startswith(("I", "F")):  # of more bits, which `prepare_image` scales
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        return np.asarray(upright)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4)):
        raise ValueError(f"an array must be (rows, columns) or (rows, columns, 3), not {pixels.shape}")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255) or 0 < high <= 1:
        raise ValueError(f"pixels must be from 0 to 255, not from {low} to {high}")
    return np.round(pixels).astype("uint8")


def decode_predictions(
    predictions: np.ndarray, model: "keras.Model | Sequence[str] | None" = None, top: int = 5
) -> list[list[tuple[str, float]]]:
    """Names the most probable classes.

    Args:
        predictions: float (n, classes), the output of `model.predict`.
        model: the network, which knows its classes if it is of `load_model`, or of `build_alexnet` with published
            weights; or their names in the order of the labels; None for ImageNet's 1,000, such as "n01440764 tench,
            Tinca tinca".
        top: how many classes; all if there are fewer.

    Returns: for each image a list of (name, probability), the most probable first.

    Raises:
        ValueError: if the network does not know its classes, or there are not as many names as classes.
    """
    predictions = np.asarray(predictions)
    names: Any = model
    if model is None:
        names = [f"{class_id} {words}" for class_id, words in ilsvrc.read_classes().items()]
    elif hasattr(model, "layers"):
        known = getattr(model, "description", None)
        if known is None:
            raise ValueError(
                "`model` must be of `load_model`, or have published weights, to know its classes; or give their names. "
                f"Received: {model}"
            )
        names = known.class_names
    if predictions.ndim != 2 or predictions.shape[1] != len(names):
        raise ValueError(f"`predictions` must be (n, {len(names)}), as many as names. Received: {predictions.shape}")
    order = metrics.top_k(predictions, top)
    return [[(names[int(c)], float(row[c])) for c in best] for row, best in zip(predictions, order, strict=True)]
