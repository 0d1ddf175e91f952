"""Synthetic inputs that excite feature maps most, found by gradient ascent from noise."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from alexnet_tf.figures import plots
from alexnet_tf.figures.image_grids import shorten
from alexnet_tf.networks import structure

_GRAY = 127.5


def optimize_inputs(
    model: keras.Model,
    layer: str,
    feature_maps: Sequence[int] | np.ndarray,
    steps: int = 256,
    step_size: float = 4.0,
    decay: float = 0.02,
    jitter_px: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds inputs that excite feature maps most.

    Each step moves an image, starting from noise, by a random shift, so that no pixel's place is favored, goes up the
    gradient of the mean over the feature map, and draws the pixels towards gray.

    Args:
        model: from `model.build_alexnet`.
        layer: name of one of its layers, better before the nonlinearity than after: fc8 rather than softmax, conv5
            rather than relu5, whose gradient is zero where a map is silent.
        feature_maps: indices of its feature maps, or of its units if it is fully-connected.
        steps: number of steps.
        step_size: root mean square of a step, in gray levels.
        decay: share of a pixel's distance to gray that is lost in a step.
        jitter_px: largest shift in each direction, in pixels; None for a 28th of the image's side.
        seed: of the noise and the shifts.

    Returns:
        (images, values): uint8 (feature maps, side, side, 3), and float32 (feature maps), the mean over the map that
        each reaches.

    Raises:
        ValueError: if the layer or a feature map does not exist.

    Source: K. Simonyan, A. Vedaldi and A. Zisserman, "Deep Inside Convolutional Networks", 2013, section 2; the random
    shifts are from A. Mordvintsev and others, "Inceptionism", 2015.
    """
    network = structure.feature_extractor(model, [layer])
    output = network.output[layer]
    chosen = np.array(feature_maps)
    if not all(0 <= index < output.shape[-1] for index in chosen):
        raise ValueError(f"`feature_maps` must be from 0 to {output.shape[-1] - 1}. Received: {list(feature_maps)}")
    means = keras.ops.mean(output, axis=tuple(range(1, len(output.shape) - 1)))
    excitation = keras.Model(network.input, means)
    side = model.input_shape[1]
    jitter_px = side // 28 if jitter_px is None else jitter_px
    random = np.random.default_rng(seed)
    own = tf.stack([tf.range(len(chosen)), tf.constant(chosen, tf.int32)], axis=1)

    @tf.function
    def step(images, shift):
        with tf.GradientTape() as tape:
            tape.watch(images)
            values = tf.gather_nd(excitation(tf.roll(images, shift, (1, 2)), training=False), own)
        gradient = tape.gradient(values, images)
        gradient /= tf.sqrt(tf.reduce_mean(gradient**2, axis=(1, 2, 3), keepdims=True)) + 1e-20
        images = _GRAY + (1 - decay) * (images + step_size * gradient - _GRAY)
        return tf.clip_by_value(images, 0.0, 255.0)

    noise = random.normal(_GRAY, 10.0, (len(chosen), side, side, 3))
    images = tf.constant(noise, tf.float32)
    for _ in range(steps):
        shift = random.integers(-jitter_px, jitter_px, 2, endpoint=True)
        images = step(images, tf.constant(shift, tf.int32))
    pixels = np.round(images.numpy()).astype("uint8")
    values = tf.gather_nd(excitation(tf.constant(pixels, tf.float32), training=False), own)
    return pixels, np.asarray(values, "float32")


def draw_optimized_inputs(
    model: keras.Model, layer: str, num_feature_maps: int, class_names: Sequence[str]
) -> np.ndarray:
    """Draws the inputs that excite feature maps most, of maps spread evenly over a layer.

    Args:
        model: from `model.build_alexnet`.
        layer: name of one of its layers.
        num_feature_maps: number of feature maps; all if the layer has fewer.
        class_names: names of the classes, which are the titles of the classifier's units.

    Returns: uint8 (rows, columns, 3). Of a convolution the middle of each input is drawn, two receptive fields wide.

    Raises:
        ValueError: as `optimize_inputs`.
    """
    size = structure.receptive_field(model, layer).size
    units, side = structure.feature_extractor(model, [layer]).output[layer].shape[-1], model.input_shape[1]
    feature_maps = np.unique(np.linspace(0, units - 1, num_feature_maps).round().astype(int))
    images, _ = optimize_inputs(model, layer, feature_maps)
    shown = min(2 * size, side)
    first = (side - shown) // 2
    images = images[:, first : first + shown, first : first + shown]
    per_row = min(4, len(images))
    rows = -(-len(images) // per_row)
    figure = Figure(figsize=(2.4 * per_row, 2.65 * rows), layout="constrained")
    panels = figure.subplots(rows, per_row, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, image, index in zip(panels.flat, images, feature_maps, strict=False):
        panel.imshow(image, interpolation="nearest")
        title = class_names[int(index)] if layer in structure.class_layers(model) else f"{layer}, feature map {index}"
        panel.set_title(shorten(title, 30), fontsize=9)
    return plots.pixels_of(figure)
