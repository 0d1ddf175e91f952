"""Synthetic inputs that activate units most, found by gradient ascent from noise."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from alexnet_tf.figures import image_grids
from alexnet_tf.networks import structure

# Principal components of the RGB values of ImageNet's pixels, one per row, each times its standard deviation.
# Source: section 4.1 defines them; the numbers were published with soumith/imagenet-multiGPU.torch.
_COLORS = np.sqrt([[0.2175], [0.0188], [0.0045]]) * np.array(
    [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]]
)
_STEP, _MOMENTUM, _INITIAL_NOISE = 0.05, 0.9, 0.01
_CONTRAST = 1.2  # standard deviation of an image's first color before the sigmoid
_MAX_ROTATION = np.deg2rad(5)
_MAX_SCALING = 0.1
_SHIFTS_PER_FIELD = 16  # a 16th of a receptive field is the largest shift
_GRAY = 127.5


def optimize_inputs(
    model: keras.Model, layer: str, feature_maps: Sequence[int] | np.ndarray, steps: int = 96, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Finds inputs that activate units of a layer most: in each feature map the unit in the middle.

    Gradient ascent maximizes the activation from noise. It changes the amplitudes of the frequencies and principal
    colors of the unit's receptive field, weighted as in photographs, because changes of single pixels end in high
    frequencies that no photograph contains. All steps are equally long and old ones fade, so that the contrast is the
    same for all units. Each step shifts, rotates and scales the image randomly, which removes patterns that only work
    at one position.

    Args:
        model: a network from `build_alexnet`, or a model that contains one.
        layer: name of one of its layers. Choose one before the nonlinearity: fc8 instead of softmax, and conv5 instead
            of relu5, whose gradient is zero for silent units.
        feature_maps: indices of its feature maps, or of its units if it is fully connected.
        steps: number of steps.
        seed: of the noise and the transformations.

    Returns:
        (images, activations): uint8 (feature maps, size, size, 3), the receptive field of the unit in the middle or, if
        it is larger, the whole image; and float32 (feature maps,), the unit's activation for each image on a gray
        background.

    Raises:
        ValueError: if the layer or a feature map does not exist.

    Source: C. Olah, A. Mordvintsev and L. Schubert, "Feature Visualization", 2017, and their program Lucid.
    Deviation: Lucid uses Adam, whose steps are equal for all amplitudes. With the published weights, this gave more
    high frequencies and, in conv1 and conv2, 14% to 71% less activation. Lucid's colors are those of the paper's
    section 4.1 here, and shifts are smaller for small receptive fields: shifts of 8 pixels would blur conv1's kernels.
    """
    extractor = structure.features(model, [layer])
    output = extractor.output[layer]
    chosen = np.array(feature_maps)
    if not all(0 <= index < output.shape[-1] for index in chosen):
        raise ValueError(f"`feature_maps` must be from 0 to {output.shape[-1] - 1}. Received: {list(feature_maps)}")
    middle = tuple(length // 2 for length in output.shape[1:-1])
    units = keras.Model(extractor.input, output[(slice(None), *middle)])
    own = tf.stack([tf.range(len(chosen)), tf.constant(chosen, tf.int32)], axis=1)
    field, side = structure.receptive_field(model, layer), model.input_shape[1]
    size = min(field.size, side)
    before = min(max(field.start + field.step * middle[0], 0), side - size) if middle else 0
    margins = [[0, 0], *[[before, side - size - before]] * 2, [0, 0]]
    random = np.random.default_rng(seed)
    noise = random.normal(0, _INITIAL_NOISE, (2, len(chosen), 3, size, size // 2 + 1))
    spectrum = tf.Variable(tf.constant(noise, tf.float32))
    velocity = tf.Variable(tf.zeros_like(spectrum))

    def activations(images):
        return tf.gather_nd(units(tf.pad(images - _GRAY, margins) + _GRAY, training=False), own)

    @tf.function
    def step(transformation):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(activations(_transform(_pixels(spectrum), transformation)))
        gradient: Any = tape.gradient(total, spectrum)
        length = tf.sqrt(tf.reduce_mean(tf.square(gradient), axis=(0, 2, 3, 4), keepdims=True))
        direction = tf.math.divide_no_nan(gradient, length)
        velocity.assign(_MOMENTUM * velocity + (1 - _MOMENTUM) * direction)
        spectrum.assign((1 - _STEP) * spectrum + _STEP * velocity)

    quiet = not keras.config.is_interactive_logging_enabled()
    for _ in tqdm(range(steps), f"optimizing inputs of {layer}", unit=" steps", disable=quiet):
        step(tf.constant(_random_transformation(random, size, field.size / _SHIFTS_PER_FIELD), tf.float32))
    images = np.round(_pixels(spectrum).numpy())
    return images.astype("uint8"), activations(tf.constant(images, tf.float32)).numpy()


def _pixels(spectrum: tf.Tensor) -> tf.Tensor:
    """Images from 0 to 255 from the amplitudes of their frequencies and principal colors.

    Args:
        spectrum: float32 (2, n, 3, side, side // 2 + 1), real and imaginary parts. Equal amplitudes give an image whose
            frequencies f have amplitudes of 1 / f, as those of photographs have.

    Returns: float32 (n, side, side, 3).
    """
    side = int(spectrum.shape[-2])  # pyright: ignore[reportArgumentType]
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    amplitudes = 1 / np.maximum(frequencies, 1 / side)
    amplitudes *= _CONTRAST / np.sqrt(2 * np.mean(amplitudes**2)) * side  # contrast of noise with variance 1
    colors = tf.signal.irfft2d(tf.complex(*tf.unstack(spectrum * amplitudes.astype("float32"))), [side, side])
    rgb = tf.einsum("ncxy,cd->nxyd", colors, tf.constant(_COLORS / np.abs(_COLORS).max(), tf.float32))
    return 255 * tf.sigmoid(rgb)


def _random_transformation(random: np.random.Generator, side: int, max_shift_px: float) -> np.ndarray:
    """A random shift, rotation and scaling around the middle of an image, as `_transform` takes it."""
    angle, shift = random.uniform(-_MAX_ROTATION, _MAX_ROTATION), random.uniform(-max_shift_px, max_shift_px, 2)
    scale = random.uniform(1 - _MAX_SCALING, 1 + _MAX_SCALING)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (side - 1) / 2)
    offset = middle - matrix @ middle + shift
    return np.array([*matrix[0], offset[0], *matrix[1], offset[1], 0, 0])


def _transform(images: tf.Tensor, transformation: tf.Tensor) -> tf.Tensor:
    """Transforms images (n, side, side, 3) by an affine transformation (8,), mirrored at the edges."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transformation[None],
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def draw_optimized_inputs(
    model: keras.Model, layers: Sequence[str], num_feature_maps: int, class_names: Sequence[str]
) -> np.ndarray:
    """Draws the inputs that activate feature maps most, one row per layer.

    Args:
        model: a network from `build_alexnet`, or a model that contains one.
        layers: names of its layers.
        num_feature_maps: number of feature maps, spread evenly over each layer; all if it has fewer.
        class_names: names of the classes, the titles of the classifier's units.

    Returns: uint8 (rows, columns, 3). For a convolution, only the receptive field of the unit in the middle is shown.

    Raises:
        ValueError: as `optimize_inputs`.
    """
    class_layers, rows = structure.class_layers(model), []
    outputs = structure.features(model, layers).output
    for layer in layers:
        feature_maps = np.unique(np.linspace(0, outputs[layer].shape[-1] - 1, num_feature_maps).round().astype(int))
        images, _ = optimize_inputs(model, layer, feature_maps)
        names = [class_names[index] if layer in class_layers else f"map {index}" for index in feature_maps]
        rows.append(list(zip(images, names, strict=True)))
    return image_grids.patch_rows(rows, layers)
