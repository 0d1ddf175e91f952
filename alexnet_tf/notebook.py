"""Preprocessing and decoding of predictions for notebooks and scripts."""

import os
import re
import sys
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

_IMAGE_PX = 256  # section 2
_WORDNET_ID = re.compile(r"n\d{8} ")
Image = str | os.PathLike | bytes | PIL.Image.Image | np.ndarray | Any  # Any: a tensor of any framework


def preprocess(
    images: Image | Sequence[Image],
    model: "keras.Model | None" = None,
    *,
    crop_px: int | None = None,
    image_px: int | None = None,
    exif_orientation: bool | None = None,
    resize: str | None = None,
) -> np.ndarray:
    """Prepares images for a network: resizes them as in its data set, and takes the center crop.

    It does not subtract the mean: the network's first layer does.

    Args:
        images: an image or a list of images, of any sizes: paths, bytes of encoded files, Pillow images, arrays or
            tensors (height, width) or (height, width, channels), RGB from 0 to 255; or a batch of arrays.
        model: None, or the network that the images are for. Trained and published networks know the arguments below
            from the data that they were trained on.
        crop_px: side of the network's input, in pixels. Default: the model's, or 224.
        image_px: length to which the shorter side is resized first, in pixels. Default: the model's, or 256, or
            `crop_px` if that is larger. If it is not given, arrays of `crop_px` x `crop_px` pixels count as prepared
            and are returned as they are.
        exif_orientation: whether files and Pillow images are rotated according to their EXIF orientation. Default: the
            model's, or True.
        resize: "crop" for the central square, "warp" to resize both sides. Default: the model's, or "crop".

    Returns: uint8 (n, crop_px, crop_px, 3), RGB. In a graph, as in `tf.data.Dataset.map` or a Keras model, the result
        is a tensor, whose pixels differ by at most 1; a single image has no batch dimension; and a string scalar is the
        content of a file.

    Raises:
        ValueError: if `crop_px` is larger than `image_px`, the network takes other images than squares, an image can't
            be read, or its pixels are not from 0 to 255.

    Source: section 2.

    Example:

    >>> photo = PIL.Image.new("RGB", (500, 375))
    >>> alexnet_tf.preprocess([photo, np.zeros((300, 400, 3), "uint8")]).shape
    (2, 224, 224, 3)
    >>> dataset = tf.data.Dataset.from_tensor_slices(np.zeros((4, 300, 400, 3), "uint8"))
    >>> dataset.map(alexnet_tf.preprocess).batch(4).element_spec.shape
    TensorShape([None, 224, 224, 3])
    """
    if crop_px is None:
        rows, columns = (None, None) if model is None else model.input_shape[1:3]
        if rows != columns:
            raise ValueError(f"`model` must take squares. Received: {rows} x {columns} pixels. Give `crop_px`.")
        crop_px = rows or 224
    known = _find_description(model)
    stored_px = image_px or (known.image_px if known else max(_IMAGE_PX, crop_px))
    crops.check_crop_px(crop_px, stored_px)
    if exif_orientation is None:
        exif_orientation = known is None or bool(known.exif_orientation)
    resize = resize or (known.resize if known else "crop")
    if _is_symbolic(images):
        return _in_graph(images, crop_px, stored_px, exif_orientation, resize)
    if isinstance(images, str | os.PathLike | bytes | PIL.Image.Image) or getattr(images, "ndim", 4) != 4:
        images = [images]
    prepared = []
    for number, image in enumerate(images):
        try:
            encoded = isinstance(image, str | os.PathLike | bytes)
            pixels: Any = image if encoded else _as_array(image, exif_orientation)
            is_array = not encoded and not isinstance(image, PIL.Image.Image)
            if is_array and image_px is None and pixels.shape == (crop_px, crop_px, 3):
                prepared.append(pixels)
                continue
            square = image_files.prepare_image(pixels, stored_px, exif_orientation=exif_orientation, resize=resize)
            prepared.append(crops.center_crop(square[None], crop_px)[0])
        except Exception as error:  # Pillow raises many kinds
            received = image if isinstance(image, str) else type(image).__name__
            raise ValueError(
                f"`images` must be images that Pillow can read. Received at {number}: {received}: {error}"
            ) from error
    return np.stack(prepared)


def _is_symbolic(images) -> bool:
    """Whether it is a tensor without values: in a graph of TensorFlow, or in a Keras model that is being made."""
    tensorflow, keras = sys.modules.get("tensorflow"), sys.modules.get("keras")
    in_graph = tensorflow is not None and tensorflow.is_symbolic_tensor(images)
    return in_graph or (keras is not None and keras.utils.is_keras_tensor(images))


def _in_graph(images, crop_px, image_px, exif_orientation, resize) -> Any:
    if images.dtype == "string":
        from alexnet_tf.serving import preprocessing  # imports TensorFlow

        square = preprocessing.decode_square(images, image_px, exif_orientation, resize)
        return crops.center_crop(square, crop_px)
    from alexnet_tf import layers  # imports Keras

    return layers.Preprocess(crop_px, image_px, resize)(images)


def _as_array(image, exif_orientation: bool) -> np.ndarray:
    """The pixels of a Pillow image, with 8, 16 or 32 bits; or of an array or tensor, as uint8."""
    if isinstance(image, PIL.Image.Image):
        upright = ImageOps.exif_transpose(image) if exif_orientation else image
        if not upright.mode.startswith(("I", "F")):  # 16 or 32 bits, which `prepare_image` scales
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        return np.asarray(upright)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4)):
        raise ValueError(f"an array must be (height, width) or (height, width, 3), not {pixels.shape}")
    low, high = pixels.min(), pixels.max()
    is_fraction = pixels.dtype.kind not in "iu" and 0 < high <= 1
    if not (low >= 0 and high <= 255) or is_fraction:
        raise ValueError(f"pixels must be from 0 to 255, not from {low} to {high}")
    return np.round(pixels).astype("uint8")


def _find_description(model: "keras.Model | None") -> schema.DatasetDescription | None:
    """The description of a network's training data, if it has one."""
    if not hasattr(model, "layers"):
        return getattr(model, "description", None)
    from alexnet_tf.networks import descriptions  # imports Keras

    return descriptions.find_description(model)


def decode_predictions(
    predictions: np.ndarray, model: "keras.Model | Sequence[str] | int | None" = None, top: int = 5
) -> list[list[tuple[str, float]]] | list[list[tuple[str, str, float]]]:
    """Returns the names and probabilities of the most probable classes.

    Args:
        predictions: float (n, classes), the output of `model.predict`.
        model: a trained or published network, which knows its classes; or the names of the classes in the order of the
            labels. Default: ImageNet's 1,000 classes. An integer is taken as `top`, as by `keras.applications`.
        top: number of classes; all if there are fewer.

    Returns: for each image a list of (name, probability), the most probable first. Names that begin with a WordNet ID,
        as ImageNet's do, give (ID, name, probability), such as ("n01440764", "tench, Tinca tinca", 0.9).

    Raises:
        ValueError: if the network does not know its classes, the number of names is not the number of classes, or a
            prediction is not finite.

    Example:

    >>> alexnet_tf.decode_predictions(np.array([[0.1, 0.6, 0.3]]), ["cat", "dog", "fox"], top=2)
    [[('dog', 0.6), ('fox', 0.3)]]
    >>> alexnet_tf.decode_predictions(np.eye(1000)[:1], top=1)
    [[('n01440764', 'tench, Tinca tinca', 1.0)]]
    """
    predictions = np.asarray(predictions)
    if isinstance(model, int):
        model, top = None, model
    names: Any = model
    if model is None:
        names = [f"{class_id} {words}" for class_id, words in ilsvrc.read_classes().items()]
    elif hasattr(model, "layers"):
        known = _find_description(model)
        if known is None:
            raise ValueError(
                "`model` must be a trained or published network to know its classes. Otherwise, give their names. "
                f"Received: {model}"
            )
        names = known.class_names
    if predictions.ndim != 2 or predictions.shape[1] != len(names):
        raise ValueError(f"`predictions` must be (n, {len(names)}), one per name. Received: {predictions.shape}")
    if not np.isfinite(predictions).all():
        raise ValueError("`predictions` must be finite numbers. Received: NaN or infinity")
    order = metrics.top_k(predictions, top)
    wordnet = all(_WORDNET_ID.match(name) for name in names)
    parts = [tuple(name.split(" ", 1)) if wordnet else (name,) for name in names]
    return [[(*parts[int(c)], float(row[c])) for c in best] for row, best in zip(predictions, order, strict=True)]
