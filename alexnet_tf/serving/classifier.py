"""Classifies encoded images with a trained or an exported model.

Importing TensorFlow imports Keras, which takes a third to half of the time. Only .keras files need it: exported models
are opened without.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from alexnet_tf.evaluation import metrics
from alexnet_tf.serving import formats
from alexnet_tf.weights import published

# From an encoded image to (names, probabilities) of classes.
Classifier: TypeAlias = Callable[[bytes], tuple[list[str], np.ndarray]]

_TOP = 5


def open_classifier(path: str | pathlib.Path, all_classes: bool = False) -> Classifier:
    """Opens a trained or an exported model.

    Args:
        path: what `model.load_model` takes, or a numbered folder of `exporter.export_model` in any format.
        all_classes: whether to return all classes in the order of the labels.

    Returns:
        A function from an encoded image (bytes) to (names, probabilities) of its five most probable classes, the most
        probable first, or of all classes. It raises `tf.errors.InvalidArgumentError` if the image can't be decoded.

    Raises:
        ValueError: if there is no model, or it is damaged.
    """
    folder = pathlib.Path(path)
    if (folder / "saved_model.pb").is_file() and not all_classes:
        _import_tensorflow_without_keras()
        return _open_savedmodel(folder)
    card_file = folder / "assets" / "model_card.json"
    if card_file.is_file():
        _import_tensorflow_without_keras()
        if not (folder / "assets" / "labels.txt").is_file():
            raise ValueError(f"The model must have a classifier. Received: {folder}, an export of features")
        class_names = (folder / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines()
        try:
            card = json.loads(card_file.read_text(encoding="utf-8"))
            data, crop_px = card["data"], card["network"]["image_px"]
            options = (data["image_px"], data["exif_orientation"], data["resize"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{card_file} is not a model card from alexnet-export: {error!r}") from error
        return _classify_pixels(formats.open_predictor(folder), class_names, crop_px, options, all_classes)
    published.check_model(str(path))
    from alexnet_tf.model import load_model
    from alexnet_tf.networks import structure

    model = load_model(path)
    description = model.description
    structure.check_classifier(model)
    options = (description.image_px, description.exif_orientation, description.resize)
    crop_px = model.input_shape[1]
    return _classify_pixels(model.predict_on_batch, description.class_names, crop_px, options, all_classes)


def _import_tensorflow_without_keras() -> None:
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        return
    sys.modules["keras"] = None  # type: ignore[assignment] # TensorFlow works without a Keras that can't be imported
    try:
        import tensorflow  # noqa: F401
    finally:
        del sys.modules["keras"]


def _open_savedmodel(folder: pathlib.Path) -> Classifier:
    """Opens a SavedModel's graph in a session: `tf.saved_model.load` takes three times as long."""
    formats.check_path(folder)
    import tensorflow as tf
    from google.protobuf import message
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        (graph_def,) = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    except (message.DecodeError, ValueError) as error:
        raise ValueError(f"{folder / 'saved_model.pb'} is not a complete SavedModel: {error}") from error
    with tf.Graph().as_default():
        session = tf.compat.v1.Session()
        tf.compat.v1.train.import_meta_graph(graph_def).restore(session, str(folder / "variables" / "variables"))
    signature = graph_def.signature_def["serving_default"]
    if "class_names" not in signature.outputs:
        raise ValueError(f"The model must have a classifier. Received: {folder}, an export of features")
    image = signature.inputs["images"].name
    fetches = [signature.outputs[name].name for name in ("class_names", "probabilities", "valid")]

    def classify(encoded):
        (names,), (probabilities,), (valid,) = session.run(fetches, {image: [encoded]})
        if not valid:
            raise tf.errors.InvalidArgumentError(None, None, "the exported model can't decode it")
        return [name.decode() for name in names], probabilities

    return classify


def _classify_pixels(
    predict: formats.Predictor, class_names, crop_px: int, decode_options: tuple[int, bool, str], all_classes: bool
) -> Classifier:
    import tensorflow as tf

    from alexnet_tf.serving import preprocessing
    from alexnet_tf.tfrecords import crops

    def classify(encoded):
        square = preprocessing.decode_square(tf.constant(encoded), *decode_options)
        probabilities = predict(np.asarray(crops.center_crop(square[None], crop_px), "float32"))[0]
        best = np.arange(len(class_names)) if all_classes else metrics.top_k(probabilities, _TOP)
        return [class_names[c] for c in best], probabilities[best]

    return classify
