"""Synthetic inputs that activate units most, found by gradient ascent from noise."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from alexnet_tf.figures import image_grids
from alexnet_tf.networks import receptive_fields, structure

# Principal components of the RGB values of ImageNet's pixels, one per row, each times its standard deviation.
# Source: section 4.1 defines them; the numbers were published with soumith/imagenet-multiGPU.torch.
_COLORS = np.sqrt([[0.2175], [0.0188], [0.0045]]) * np.array(
    [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]]
)
_STEP, _MOMENTUM, _INITIAL_NOISE = 0.05, 0.9, 0.01
_SHORTEST_GRADIENT = 1e-30  # a gradient of zero is not divided by zero
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
        ValueError: if the layer or a feature map does not exist, or if Keras's backend is none of TensorFlow, JAX and
            PyTorch.

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
    field, side = receptive_fields.receptive_field(model, layer), model.input_shape[1]
    size = min(field.size, side)
    before = min(max(field.start + field.step * middle[0], 0), side - size) if middle else 0
    margins = [[0, 0], *[[before, side - size - before]] * 2, [0, 0]]
    random = np.random.default_rng(seed)
    spectrum = random.normal(0, _INITIAL_NOISE, (2, len(chosen), 3, size, size // 2 + 1)).astype("float32")
    velocity = np.zeros_like(spectrum)
    own = np.eye(output.shape[-1], dtype="float32")[chosen]

    def activations(images):
        return ops.sum(ops.multiply(units(ops.pad(images - _GRAY, margins) + _GRAY, training=False), own), axis=-1)

    def total(spectrum, transformation):
        return ops.sum(activations(_transform(_pixels(spectrum), transformation)))

    gradient_of_total = _gradient_function(total)
    quiet = not keras.config.is_interactive_logging_enabled()
    for _ in tqdm(range(steps), f"optimizing inputs of {layer}", unit=" steps", disable=quiet):
        transformation = _random_transformation(random, size, field.size / _SHIFTS_PER_FIELD)
        gradient = gradient_of_total(spectrum, transformation)
        length = np.sqrt(np.mean(np.square(gradient), axis=(0, 2, 3, 4), keepdims=True))
        velocity = _MOMENTUM * velocity + (1 - _MOMENTUM) * gradient / np.maximum(length, _SHORTEST_GRADIENT)
        spectrum = (1 - _STEP) * spectrum + _STEP * velocity
    images = np.round(ops.convert_to_numpy(_pixels(ops.convert_to_tensor(spectrum))))
    return images.astype("uint8"), ops.convert_to_numpy(activations(ops.convert_to_tensor(images)))


def _gradient_function(function: Callable[[Any, Any], Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Makes a function that returns the gradient of a scalar function with respect to its first argument."""
    if (backend := keras.backend.backend()) == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False)
        def gradient(variable, constant):
            with tf.GradientTape() as tape:
                tape.watch(variable)
                value = function(variable, constant)
            return tape.gradient(value, variable)
    elif backend == "jax":
        import jax

        gradient = jax.jit(jax.grad(function))
    elif backend == "torch":
        import torch

        def gradient(variable, constant):
            return torch.autograd.grad(function(variable.requires_grad_(), constant), variable)[0]
    else:
        raise ValueError(f"Optimized inputs need Keras's TensorFlow, JAX or PyTorch backend. Received: {backend!r}")
    return lambda *inputs: ops.convert_to_numpy(gradient(*(ops.convert_to_tensor(each, "float32") for each in inputs)))


def _pixels(spectrum: Any) -> Any:
    """Images from 0 to 255 from the amplitudes of their frequencies and principal colors.

    Args:
        spectrum: float32 (2, n, 3, side, side // 2 + 1), real and imaginary parts. Equal amplitudes give an image whose
            frequencies f have amplitudes of 1 / f, as those of photographs have.

    Returns: float32 (n, side, side, 3).
    """
    side = spectrum.shape[-2]
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    amplitudes = 1 / np.maximum(frequencies, 1 / side)
    amplitudes *= _CONTRAST / np.sqrt(2 * np.mean(amplitudes**2))  # contrast of noise with variance 1
    real, imaginary = ops.unstack(ops.swapaxes(ops.multiply(spectrum, amplitudes.astype("float32")), -1, -2))
    real, imaginary = ops.fft((real, -imaginary))  # its conjugate is the inverse transform
    colors = ops.irfft((ops.swapaxes(real, -1, -2), -ops.swapaxes(imaginary, -1, -2)), side)
    rgb = ops.tensordot(colors, (_COLORS / np.abs(_COLORS).max()).astype("float32"), axes=[[1], [0]])
    return 255 * ops.sigmoid(rgb)


def _random_transformation(random: np.random.Generator, side: int, max_shift_px: float) -> np.ndarray:
    """A random shift, rotation and scaling around the middle of an image, as `_transform` takes it."""
    angle, shift = random.uniform(-_MAX_ROTATION, _MAX_ROTATION), random.uniform(-max_shift_px, max_shift_px, 2)
    scale = random.uniform(1 - _MAX_SCALING, 1 + _MAX_SCALING)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (side - 1) / 2)
    offset = middle - matrix @ middle + shift
    return np.array([*matrix[0], offset[0], *matrix[1], offset[1], 0, 0])


def _transform(images: Any, transformation: Any) -> Any:
    """Transforms images (n, side, side, 3) by an affine transformation (8,), mirrored at the edges."""
    transformations = ops.tile(transformation[None], (images.shape[0], 1))  # JAX requires one for each image
    return ops.image.affine_transform(images, transformations, fill_mode="reflect", data_format="channels_last")


def draw_optimized_inputs(
    model: keras.Model, layers: Sequence[str], num_feature_maps: int, class_names: Sequence[str]
) -> np.ndarray:
    """Draws the inputs that activate feature maps most, one row per layer.

    Args:
        model: a network from `build_alexnet`, or a model that contains one.
        layers: names of its layers.
        num_feature_maps: number of feature maps, spread evenly over each layer; all if it has fewer.
        class_names: names of the classes, the titles of the classifier's units.

    Returns: uint8 (height, width, 3). For a convolution, only the receptive field of the unit in the middle is shown.

    Raises:
        ValueError: as `optimize_inputs`.
    """
    class_layers, rows = structure.class_layers(model), []
    outputs = structure.features(model, layers).output
    for layer in layers:
        feature_maps = image_grids.spread_evenly(outputs[layer].shape[-1], num_feature_maps)
        images, _ = optimize_inputs(model, layer, feature_maps)
        names = [class_names[index] if layer in class_layers else f"map {index}" for index in feature_maps]
        rows.append(list(zip(images, names, strict=True)))
    return image_grids.patch_rows(rows, layers)
