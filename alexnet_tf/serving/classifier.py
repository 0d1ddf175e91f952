"""Classification of encoded images by a trained or an exported model.

TensorFlow imports Keras, which takes a third to a half of that import's time. Only a `.keras` file needs it, so an
exported model is opened without.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from alexnet_tf.evaluation import metrics
from alexnet_tf.serving import formats

# From one encoded image to (names, probabilities) of its most probable classes.
Classifier: TypeAlias = Callable[[bytes], tuple[list[str], np.ndarray]]

_TOP = 5


def open_classifier(path: str | pathlib.Path) -> Classifier:
    """Opens a trained or an exported model.

    Args:
        path: a run's folder, a .keras file in one, or a numbered folder of `exporter.export_model`, in any format.

    Returns:
        A function from one encoded image (bytes) to (names, probabilities) of its five most probable classes, the most
        probable first. It raises `tf.errors.InvalidArgumentError` if the image can't be decoded.

    Raises:
        ValueError: if there is no model, or it is damaged.
    """
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        _import_tensorflow_without_keras()
        return _open_savedmodel(path)
    if (path / "assets" / "model_card.json").is_file():
        _import_tensorflow_without_keras()
        return _open_converted(path)
    return _open_trained(path)


def _import_tensorflow_without_keras() -> None:
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        return
    sys.modules["keras"] = None  # type: ignore[assignment] # TensorFlow does without a Keras that can't be imported
    try:
        import tensorflow  # noqa: F401
    finally:
        del sys.modules["keras"]


def _open_savedmodel(path: pathlib.Path) -> Classifier:
    """Opens the graph of a SavedModel in a session: `tf.saved_model.load` makes Python objects of all its functions,
    which takes three times as long."""
    import tensorflow as tf
    from google.protobuf import message
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        (graph_def,) = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
    except (message.DecodeError, ValueError) as error:
        raise ValueError(f"{path / 'saved_model.pb'} is not a complete SavedModel: {error}") from error
    with tf.Graph().as_default():
        session = tf.compat.v1.Session()
        tf.compat.v1.train.import_meta_graph(graph_def).restore(session, str(path / "variables" / "variables"))
    signature = graph_def.signature_def["serving_default"]
    image = signature.inputs["images"].name
    fetches = [signature.outputs[name].name for name in ("class_names", "probabilities", "valid")]

    def classify(encoded):
        (names,), (probabilities,), (valid,) = session.run(fetches, {image: [encoded]})
        if not valid:
            raise tf.errors.InvalidArgumentError(None, None, "the exported model can't decode it")
        return [name.decode() for name in names], probabilities

    return classify


def _open_converted(path: pathlib.Path) -> Classifier:
    card = json.loads((path / "assets" / "model_card.json").read_text(encoding="utf-8"))
    class_names = (path / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines()
    return _classifier_of_pixels(
        formats.open_predictor(path),
        class_names,
        card["data"]["image_px"],
        card["network"]["image_px"],
        card["data"].get("exif_orientation"),
        card["data"].get("resize", "crop"),
    )


def _open_trained(path: pathlib.Path) -> Classifier:
    from alexnet_tf.model import load_model

    model, description = load_model(path)
    return _classifier_of_pixels(
        model.predict_on_batch,
        description.class_names,
        description.image_px,
        model.input_shape[1],
        description.exif_orientation,
        description.resize,
    )


def _classifier_of_pixels(
    predict, class_names, image_px: int, crop_px: int, exif_orientation: bool | None, resize: str
) -> Classifier:
    import tensorflow as tf

    from alexnet_tf.serving import preprocessing
    from alexnet_tf.tfrecords import crops

    def classify(encoded):
        encoded = tf.constant(encoded)
        square = preprocessing.decode_square(encoded, image_px, exif_orientation=exif_orientation, resize=resize)
        probabilities = predict(np.float32(crops.center_crop(square[None], crop_px)))[0]
        best = metrics.top_k(probabilities, _TOP)
        return [class_names[c] for c in best], probabilities[best]

    return classify
