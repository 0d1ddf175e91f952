"""The functions of a served model: what TF Serving calls signatures."""

import keras
import tensorflow as tf

from alexnet_tf.model import layer_output
from alexnet_tf.serving import preprocessing
from alexnet_tf.tfrecords import schema

_BEST = 5
CLASSIFY = "classify"


def feature_layer(model):
    """The name of the layer whose output the classifier sees, less dropout: relu7, of the paper's network."""
    before = model.layers[: [layer.name for layer in model.layers].index("softmax") - 1]  # the classifier is fc8
    return next(layer.name for layer in reversed(before) if not layer.name.startswith("drop"))


def _run(network, images):
    """The network's outputs for any number of images. For none at all TensorFlow's convolutions fail on a CPU."""
    count = tf.shape(images)[0]
    missing = tf.maximum(1 - count, 0)
    return network(tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]), training=False)[:count]


def make_signatures(model, class_names, image_px, max_pixels=preprocessing.MAX_PIXELS):
    """Makes the functions of a served model. Each takes any number of images, none at all too.

    Those that take encoded images (as `preprocessing.decode_square` takes them) are

        serving_default: `images`, string (batch,); to the most probable classes of the centre crop, five at most, the
            most probable first: `class_names` string (batch, 5), `class_ids` int32 (batch, 5), `probabilities` float32
            (batch, 5), and `valid`, bool (batch,).
        ten_view: the same of the paper's ten views, whose probabilities are averaged.
        features: `images`; to `features`, float32 (batch, units), of the last hidden layer (fc7, with its ReLU), and
            `valid`.
        classify: `inputs`, string (batch,): serialized `tf.train.Example`s with "image/encoded", as TF Serving's
            Classify sends them; to `classes` string (batch, 5) and `scores` float32 (batch, 5).

    An image that can't be read marks its own row alone: `valid` is False there, the names are empty, the ids -1 and the
    numbers 0. And those that take pixels are

        predict: `pixels`, float32 (batch, side, side, 3), RGB from 0 to 255; to `probabilities`, float32 (batch,
            classes), in the order of the labels.
        predict_uint8: the same of uint8 pixels, a quarter of the bytes.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        class_names: the names of the classes, in the order of the labels.
        image_px: side to which the shorter side of an encoded image is brought, in pixels.
        max_pixels: how many pixels an encoded image may have.

    Returns: a dict from the signature's name to a `tf.function`.

    Raises:
        ValueError: where the names are not as many as the model's classes.

    Source: section 4.1 (ten views), 6.1 (features of the last hidden layer).
    """
    classes, crop_px = model.output_shape[-1], model.input_shape[1]
    if len(class_names) != classes:
        raise ValueError(f"`class_names` must name the model's {classes} classes. Received: {len(class_names)} names")
    names = tf.constant(class_names)
    last_hidden = keras.Model(model.input, keras.layers.Flatten()(layer_output(model, feature_layer(model))))

    def decode(encoded):
        return preprocessing.decode_square(encoded, image_px, max_pixels)

    def decode_example(serialized):
        feature = {schema.ENCODED: tf.io.FixedLenFeature((), tf.string)}
        return decode(tf.io.parse_single_example(serialized, feature)[schema.ENCODED])

    def center_crop(squares):
        return _run(model, preprocessing.central_crop(squares, crop_px))

    def of_last_hidden(squares):
        return _run(last_hidden, preprocessing.central_crop(squares, crop_px))

    def mean_of_ten_views(squares):
        views = tf.reshape(preprocessing.ten_views(squares, crop_px), (-1, crop_px, crop_px, 3))
        return tf.reduce_mean(tf.reshape(_run(model, views), (-1, 10, classes)), axis=1)

    def of_each_row(encoded, decode, function):
        """The function's output for the images that can be read, zeros for the others, and which are which."""
        squares, rows = preprocessing.decode_readable(encoded, decode, image_px)
        outputs, count = function(squares), tf.size(encoded)
        valid = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count]) > 0
        return tf.scatter_nd(rows[:, None], outputs, [count, outputs.shape[1]]), valid

    def most_probable(encoded, decode, function):
        probabilities, valid = of_each_row(encoded, decode, function)
        best, ids = tf.math.top_k(probabilities, min(_BEST, classes))
        best_names = tf.where(valid[:, None], tf.gather(names, ids), "")
        return best_names, tf.where(valid[:, None], ids, -1), best, valid

    def named(encoded, function):
        outputs = most_probable(encoded, decode, function)
        return dict(zip(("class_names", "class_ids", "probabilities", "valid"), outputs, strict=True))

    def features(images):
        vectors, valid = of_each_row(images, decode, of_last_hidden)
        return {"features": vectors, "valid": valid}

    def classify(inputs):
        best_names, _, best, _ = most_probable(inputs, decode_example, center_crop)
        return {"classes": best_names, "scores": best}

    def predict(pixels):
        return {"probabilities": _run(model, pixels)}

    images = tf.TensorSpec((None,), tf.string, name="images")
    pixels = (None, crop_px, crop_px, 3)
    functions = {
        "serving_default": (lambda images: named(images, center_crop), images),
        "ten_view": (lambda images: named(images, mean_of_ten_views), images),
        "features": (features, images),
        CLASSIFY: (classify, tf.TensorSpec((None,), tf.string, name="inputs")),
        "predict": (predict, tf.TensorSpec(pixels, tf.float32, name="pixels")),
        "predict_uint8": (predict, tf.TensorSpec(pixels, tf.uint8, name="pixels")),
    }
    return {
        name: tf.function(function, input_signature=[spec], autograph=False)
        for name, (function, spec) in functions.items()
    }
