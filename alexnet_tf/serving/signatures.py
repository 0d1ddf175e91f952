"""The functions of a served model, which TensorFlow Serving calls signatures."""

from collections.abc import Callable

import keras
import tensorflow as tf

from alexnet_tf.networks import structure
from alexnet_tf.serving import preprocessing
from alexnet_tf.tfrecords import crops, schema

CLASSIFY = "classify"
_TOP = 5
_IMAGES_IN_PASS = 32  # max_batch_size in deploy/serving/batching.config: ten views then take no more memory than one
_Network = Callable[[tf.Tensor], tf.Tensor]  # from squares (n, image_px, image_px, 3) to float32 (n, outputs)


def make_signatures(
    model: keras.Model, description: schema.DatasetDescription, max_pixels: int = preprocessing.MAX_PIXELS
) -> dict[str, Callable]:
    """Makes the functions of a served model. Each accepts any number of images, also none.

    These take encoded images (see `preprocessing.decode_square`):

        serving_default: `images`, string (batch,). Returns the five most probable classes of the center crop (fewer if
            the model has fewer), the most probable first: `class_names` string (batch, 5), `class_ids` int32
            (batch, 5), `probabilities` float32 (batch, 5), and `valid`, bool (batch,).
        ten_view: the same, with the probabilities averaged over the paper's ten views.
        features: `images`. Returns `features`, float32 (batch, units), of the last hidden layer (fc7, after its ReLU),
            and `valid`.
        classify: `inputs`, string (batch,): serialized `tf.train.Example`s with "image/encoded", the input of
            TensorFlow Serving's Classify. Returns `classes` string (batch, 5) and `scores` float32 (batch, 5).

    An image that can't be decoded affects only its own row: `valid` is False, the names are empty, the ids -1 and the
    numbers 0. `serving_default` of a network without its top returns the same as its `features`, which are its outputs,
    and it has no `ten_view` and `classify`. These take pixels:

        predict: `pixels`, float32 (batch, side, side, 3), RGB from 0 to 255. Returns `probabilities`, float32 (batch,
            classes), in the order of the labels; or `features` of a network without its top.
        predict_uint8: the same for uint8 pixels, a quarter of the bytes.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes); or a network without its top.
        description: the data it was trained on: class names and preprocessing.
        max_pixels: maximum number of pixels of an encoded image.

    Returns: a dict from the signature's name to a `tf.function`.

    Raises:
        ValueError: if the number of class names is not the model's number of classes.

    Source: section 4.1 (ten views), 6.1 (features of the last hidden layer).
    """
    names, classes = description.class_names, model.output_shape[-1]
    has_top = structure.classifier(model) is not None
    if has_top and len(names) != classes:
        raise ValueError(f"`class_names` must name the model's {classes} classes. Received: {len(names)} names")
    served = _ServedModel(model, description, max_pixels)
    side = model.input_shape[1]
    images = tf.TensorSpec((None,), tf.string, name="images")
    functions = {"serving_default": (served.features, images)}
    if has_top:
        functions = {
            "serving_default": (served.classify_center_crop, images),
            "ten_view": (served.classify_ten_views, images),
            CLASSIFY: (served.classify_examples, tf.TensorSpec((None,), tf.string, name="inputs")),
        }
    functions |= {
        "features": (served.features, images),
        "predict": (served.predict, tf.TensorSpec((None, side, side, 3), tf.float32, name="pixels")),
        "predict_uint8": (served.predict, tf.TensorSpec((None, side, side, 3), tf.uint8, name="pixels")),
    }
    return {
        name: tf.function(function, input_signature=[spec], autograph=False)
        for name, (function, spec) in functions.items()
    }


class _ServedModel:
    """A model with a method for each signature."""

    def __init__(self, model: keras.Model, description: schema.DatasetDescription, max_pixels: int):
        self._model = model
        layer = structure.last_features(model)
        extractor = structure.features(model, [layer])
        self._last_hidden = keras.Model(extractor.input, keras.layers.Flatten()(extractor.output[layer]))
        self._class_names = tf.constant(description.class_names)
        self._image_px, self._crop_px = description.image_px, model.input_shape[1]
        options = (description.image_px, description.exif_orientation, description.resize, max_pixels)
        # A function in the graph, which all signatures call: tracing it takes most of the time of an export.
        self._decode = tf.function(
            lambda encoded: preprocessing.decode_square(encoded, *options),
            input_signature=[tf.TensorSpec((), tf.string)],
            autograph=False,
        )
        self._num_classes = model.output_shape[-1]

    def classify_center_crop(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._top(images, self._decode, self._center_crop_probabilities)

    def classify_ten_views(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._top(images, self._decode, self._ten_view_probabilities)

    def classify_examples(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        top = self._top(inputs, self._decode_example, self._center_crop_probabilities)
        return {"classes": top["class_names"], "scores": top["probabilities"]}

    def features(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        def network(squares):
            return _run(self._last_hidden, crops.center_crop(squares, self._crop_px))

        vectors, valid = self._run_on_readable(images, self._decode, network)
        return {"features": vectors, "valid": valid}

    def predict(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        if structure.classifier(self._model) is None:
            return {"features": _run(self._last_hidden, pixels)}
        return {"probabilities": _run(self._model, pixels)}

    def _decode_example(self, serialized):
        feature = {schema.ENCODED: tf.io.FixedLenFeature((), tf.string)}
        return self._decode(tf.io.parse_single_example(serialized, feature)[schema.ENCODED])

    def _center_crop_probabilities(self, squares):
        return _run(self._model, crops.center_crop(squares, self._crop_px))

    def _ten_view_probabilities(self, squares):
        views = tf.reshape(crops.ten_views(squares, self._crop_px), (-1, self._crop_px, self._crop_px, 3))
        return tf.reduce_mean(tf.reshape(_run_in_passes(self._model, views), (-1, 10, self._num_classes)), axis=1)

    def _run_on_readable(self, encoded, decode: Callable, network: _Network) -> tuple[tf.Tensor, tf.Tensor]:
        """The network's outputs, zeros for images that can't be decoded, and a bool for each image: whether it can."""
        squares, rows = preprocessing.decode_readable(encoded, decode, self._image_px)
        outputs, count = network(squares), tf.size(encoded)
        valid = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count]) > 0
        return tf.scatter_nd(rows[:, None], outputs, [count, outputs.shape[1]]), valid

    def _top(self, encoded, decode: Callable, network: _Network) -> dict[str, tf.Tensor]:
        probabilities, valid = self._run_on_readable(encoded, decode, network)
        best, ids = tf.math.top_k(probabilities, min(_TOP, self._num_classes))
        return {
            "class_names": tf.where(valid[:, None], tf.gather(self._class_names, ids), ""),
            "class_ids": tf.where(valid[:, None], ids, -1),
            "probabilities": best,
            "valid": valid,
        }


def _run(network: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """The network's outputs for any number of images. TensorFlow's convolutions fail for none on a CPU."""
    count = tf.shape(images)[0]
    missing = tf.maximum(1 - count, 0)
    return network(tf.pad(images, tf.stack([[0, missing], [0, 0], [0, 0], [0, 0]])), training=False)[:count]


def _run_in_passes(network: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """The network's outputs for any number of images, computed in batches of 32: 320 at once take 1.4 GB."""
    firsts = tf.range(0, tf.shape(images)[0], _IMAGES_IN_PASS)
    outputs = tf.map_fn(
        lambda first: network(images[first : first + _IMAGES_IN_PASS], training=False),
        firsts,
        parallel_iterations=1,
        fn_output_signature=tf.RaggedTensorSpec((None, network.output_shape[-1]), tf.float32, ragged_rank=0),
    )
    return outputs.values
