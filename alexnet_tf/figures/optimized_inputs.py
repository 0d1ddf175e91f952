"""Synthetic inputs that activate units most, found by gradient ascent from noise."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from alexnet_tf.figures import plots
from alexnet_tf.figures.image_grids import shorten
from alexnet_tf.networks import structure

# Principal components of the RGB values of ImageNet's pixels, one per row, each times its standard deviation.
# Source: section 4.1 defines them; the numbers were published with soumith/imagenet-multiGPU.torch.
_COLORS = np.sqrt([[0.2175], [0.0188], [0.0045]]) * np.array(
    [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]]
)
_LEARNING_RATE, _INITIAL_NOISE, _CONTRAST = 0.05, 0.01, 2.0  # as in Lucid, whose contrast follows from the image's size
_DECAY = 0.05  # share of each amplitude that is lost in a step, for colors that are not only 0 and 255
_MAX_ROTATION = np.deg2rad(5)
_MAX_SCALING = 0.1
_SHIFTS_PER_FIELD = 16  # a 16th of a receptive field is the largest shift


def optimize_inputs(
    model: keras.Model, layer: str, feature_maps: Sequence[int] | np.ndarray, steps: int = 128, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Finds inputs that activate units of a layer most: in each feature map the unit in the middle.

    Adam maximizes the activation from noise. It changes the amplitudes of an image's frequencies and principal colors,
    weighted as in photographs, because changes of single pixels end in high frequencies that no photograph contains.
    Each step shifts, rotates and scales the image randomly, which removes patterns that only work at one position.

    Args:
        model: a network from `build_alexnet`, or a model that contains one.
        layer: name of one of its layers. Choose one before the nonlinearity: fc8 instead of softmax, and conv5 instead
            of relu5, whose gradient is zero for silent units.
        feature_maps: indices of its feature maps, or of its units if it is fully connected.
        steps: number of steps.
        seed: of the noise and the transformations.

    Returns:
        (images, activations): uint8 (feature maps, side, side, 3), and float32 (feature maps,), the unit's activation
        for each image.

    Raises:
        ValueError: if the layer or a feature map does not exist.

    Source: C. Olah, A. Mordvintsev and L. Schubert, "Feature Visualization", 2017, and their program Lucid.
    Deviation: Lucid's colors are those of the paper's section 4.1 here, and shifts are smaller for small receptive
    fields: shifts of 8 pixels would blur the kernels of conv1.
    """
    extractor = structure.features(model, [layer])
    output = extractor.output[layer]
    chosen = np.array(feature_maps)
    if not all(0 <= index < output.shape[-1] for index in chosen):
        raise ValueError(f"`feature_maps` must be from 0 to {output.shape[-1] - 1}. Received: {list(feature_maps)}")
    middle = tuple(length // 2 for length in output.shape[1:-1])
    units = keras.Model(extractor.input, output[(slice(None), *middle)])
    own = tf.stack([tf.range(len(chosen)), tf.constant(chosen, tf.int32)], axis=1)
    side = model.input_shape[1]
    max_shift_px = structure.receptive_field(model, layer).size / _SHIFTS_PER_FIELD
    random = np.random.default_rng(seed)
    spectrum = keras.Variable(
        random.normal(0, _INITIAL_NOISE, (2, len(chosen), 3, side, side // 2 + 1)), dtype="float32"
    )
    optimizer = keras.optimizers.Adam(_LEARNING_RATE)
    optimizer.build([spectrum])

    @tf.function
    def step(transformation):
        with tf.GradientTape() as tape:
            images = _transform(_pixels(spectrum.value), transformation)
            loss = -tf.reduce_sum(tf.gather_nd(units(images, training=False), own))
        optimizer.apply([tape.gradient(loss, spectrum.value)], [spectrum])
        spectrum.assign((1 - _DECAY) * spectrum)

    for _ in range(steps):
        step(tf.constant(_random_transformation(random, side, max_shift_px), tf.float32))
    images = np.round(_pixels(spectrum.value).numpy()).astype("uint8")
    return images, tf.gather_nd(units(images, training=False), own).numpy()


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
    model: keras.Model, layer: str, num_feature_maps: int, class_names: Sequence[str]
) -> np.ndarray:
    """Draws the inputs that activate feature maps most.

    Args:
        model: a network from `build_alexnet`, or a model that contains one.
        layer: name of one of its layers.
        num_feature_maps: number of feature maps, spread evenly over the layer; all if it has fewer.
        class_names: names of the classes, the titles of the classifier's units.

    Returns: uint8 (rows, columns, 3). For a convolution, only the receptive field of the unit in the middle is shown.

    Raises:
        ValueError: as `optimize_inputs`.
    """
    field, side = structure.receptive_field(model, layer), model.input_shape[1]
    output = structure.features(model, [layer]).output[layer]
    feature_maps = np.unique(np.linspace(0, output.shape[-1] - 1, num_feature_maps).round().astype(int))
    images, _ = optimize_inputs(model, layer, feature_maps)
    first = field.start + field.step * (output.shape[1] // 2) if len(output.shape) == 4 else 0
    first, end = max(first, 0), min(first + field.size, side)
    per_row = min(4, len(images))
    rows = -(-len(images) // per_row)
    figure = Figure(figsize=(2.4 * per_row, 2.65 * rows), layout="constrained")
    panels = figure.subplots(rows, per_row, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, image, index in zip(panels.flat, images[:, first:end, first:end], feature_maps, strict=False):
        panel.imshow(image, interpolation="nearest")
        title = class_names[int(index)] if layer in structure.class_layers(model) else f"{layer}, feature map {index}"
        panel.set_title(shorten(title, 30), fontsize=9)
    return plots.pixels_of(figure)
