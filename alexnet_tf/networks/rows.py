"""The rows of a variant, one small class for each kind of layer, and the shapes that follow from them.

This module does not import TensorFlow. variants.py explains [paper] and [code].
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution. The defaults are the paper's.

    Attributes:
        filters: kernels in all columns together.
        kernel_size: side of the square kernels, in pixels.
        strides: step of the kernels, in pixels.
        padding: "valid", "same", or zeros as ((top, bottom), (left, right)).
        input_columns: "own": kernels are connected only to the feature maps of their own column; "all": to those of
            every column.
        bias: initial value of the biases; None for a layer without biases.
        std: standard deviation of the normal distribution of the initial weights; None if weights and biases are
            uniform within ±1 / √fan-in, PyTorch's default.
    """

    name: str
    filters: int
    kernel_size: int
    strides: int = 1
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "same"
    input_columns: str = "own"
    std: float | None = 0.01  # [paper] section 5
    bias: float | None = 0.0


@dataclasses.dataclass(frozen=True)
class Local:
    """A locally-connected layer: a convolution with stride 1 and zero padding whose kernels and biases are not shared
    between positions. Only for networks with one column. The attributes are those of `Conv`."""

    name: str
    filters: int
    kernel_size: int
    input_columns: str = "own"
    std: float | None = 0.01
    bias: float | None = 0.0


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully-connected layer: `units` in all columns together, None for one unit per class; the rest as in `Conv`."""

    name: str
    units: int | None
    input_columns: str = "all"
    std: float | None = 0.01  # [paper] section 5
    bias: float | None = 0.0


@dataclasses.dataclass(frozen=True)
class Activation:
    name: str
    function: str = "relu"  # or "tanh"


@dataclasses.dataclass(frozen=True)
class LRN:
    """Local response normalization, with the hyper-parameters of [paper] section 3.3.

    Attributes:
        alpha_divided_by_n: whether alpha multiplies the mean over n feature maps (True) or their sum (False).
        input_columns: "own": a feature map's neighbors are in its column, as in [code]; "all": in the whole layer.
    """

    name: str
    k: float = 2.0
    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    alpha_divided_by_n: bool = False
    input_columns: str = "own"


@dataclasses.dataclass(frozen=True)
class WithinMapNorm:
    """Normalization over a neighborhood within a feature map: [code] net 145, layers `rnorm`."""

    name: str
    k: float = 1.0
    n: int = 5
    alpha: float = 1e-3
    beta: float = 0.75


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Batch normalization. scaled: whether it has a trained scale and shift."""

    name: str
    momentum: float = 0.9  # of the moving averages
    epsilon: float = 1e-4
    scaled: bool = True


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Max-pooling, overlapping as in [paper] section 3.4. With padding "same", windows may extend over the right and
    bottom edges, as in the original program."""

    name: str
    pool_size: int = 3
    strides: int = 2
    padding: str = "valid"


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Dropout of [paper] section 4.2. rescaled: whether outputs are divided by 1 - rate in training, as in
    Keras (inverted dropout), instead of multiplied by it at test time, as in the paper."""

    name: str
    rate: float = 0.5
    rescaled: bool = False


Layer = Conv | Local | Dense | Activation | LRN | WithinMapNorm | BatchNorm | MaxPool | Dropout


@dataclasses.dataclass(frozen=True)
class Variant:
    """One AlexNet: its preprocessing, and its layers from the image upwards.

    Attributes:
        title: one line that says what it is.
        source: where the numbers come from.
        layers: the rows of the table, in order. A softmax follows the last.
        image_px: side of the square input image, in pixels.
        mean: what is subtracted: "image" (the training set's mean image) or "color" (its mean red, green and blue).
        input_scale: factor of the centered pixels: a number, or one each for red, green and blue.
        noise_divisor: divisor of training images with color noise.
        columns: number of columns (the paper's GPUs) into which kernels and units are split.
        columns_merged: whether a layer that is connected to every column is one layer for all columns, as on one device
            (True), instead of one for each column (False). The function is the same; the weights are split differently.
    """

    title: str
    source: str
    layers: tuple[Layer, ...]
    image_px: int = 224
    mean: str = "image"  # [paper] section 2
    input_scale: float | tuple[float, float, float] = 1.0  # [paper] section 2
    noise_divisor: float = 1.0
    columns: int = 2  # [paper] section 3.2
    columns_merged: bool = False

    def replace(self, **changes) -> Variant:
        """Returns the variant with other attributes."""
        return dataclasses.replace(self, **changes)

    def without(self, *which: type | str) -> Variant:
        """Returns the variant without some layers, given as classes such as `LRN` or by name."""
        removed = [row for each in which for row in self.select(each)]
        return self.replace(layers=tuple(row for row in self.layers if row not in removed))

    def with_layers(self, which: type | str, **changes) -> Variant:
        """Returns the variant with changed layers: all of a class, or those named in a string such as "conv2 conv4"."""
        changed = self.select(which)
        layers = (dataclasses.replace(row, **changes) if row in changed else row for row in self.layers)
        return self.replace(layers=tuple(layers))

    def insert(self, *layers: Layer, after: str) -> Variant:
        """Returns the variant with more layers after the one of that name."""
        (row,) = self.select(after)
        position = self.layers.index(row) + 1
        return self.replace(layers=self.layers[:position] + layers + self.layers[position:])

    def move(self, name: str, *, after: str) -> Variant:
        """Returns the variant with a layer moved."""
        return self.without(name).insert(*self.select(name), after=after)

    def select(self, which: type | str) -> list[Layer]:
        """Returns the layers of a class, or those named in a string, in their order."""
        if isinstance(which, type):
            return [layer for layer in self.layers if isinstance(layer, which)]
        names = which.split()
        missing = set(names) - {layer.name for layer in self.layers}
        if missing:
            raise ValueError(f"`which` must name layers of the variant. Received: {', '.join(sorted(missing))}")
        return [layer for layer in self.layers if layer.name in names]


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """The shapes of a layer, which follow from its row and the rows before it.

    Attributes:
        row: the row, or None for the softmax, which follows the last.
        name: name of the layer.
        input_shape, output_shape: for one image, (height, width, feature maps) or (units,), of all of the network's
            columns together.
        fan_in: number of inputs of a unit; 0 for layers without weights.
        parameters: number of trainable parameters.
        multiply_adds: multiply-adds for one image: one for each weight of a kernel at each of its positions.
    """

    row: Layer | None
    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    fan_in: int = 0
    parameters: int = 0
    multiply_adds: int = 0


def trace(variant: Variant, num_classes: int) -> collections.abc.Iterator[LayerShape]:
    """Computes the shapes of a variant's layers.

    Args:
        variant: a value of the table of variants.
        num_classes: number of classes.

    Yields: the `LayerShape` of each layer, in order; the softmax is the last.
    """
    shape: tuple[int, ...] = (variant.image_px, variant.image_px, 3)
    for row in variant.layers:
        *sides, channels = shape
        output, fan_in, parameters = shape, 0, 0
        match row:
            case Conv():
                output = (*(_conv_side(side, row, axis) for axis, side in enumerate(sides)), row.filters)
                seen = channels // variant.columns if row.input_columns == "own" else channels
                fan_in = row.kernel_size**2 * seen
            case Local():
                output, fan_in = (*sides, row.filters), row.kernel_size**2 * channels
            case Dense():
                output = (num_classes if row.units is None else row.units,)
                seen = channels // variant.columns if row.input_columns == "own" else channels
                fan_in = math.prod(sides) * seen
            case BatchNorm():
                parameters = 2 * channels if row.scaled else 0
            case MaxPool():
                output = (*(_pool_side(side, row) for side in sides), channels)
        weights = fan_in * output[-1]
        positions = math.prod(output[:-1])
        if isinstance(row, Conv | Local | Dense):
            parameters = weights + (0 if row.bias is None else output[-1])
        if isinstance(row, Local):
            parameters *= positions
        yield LayerShape(row, row.name, shape, output, fan_in, parameters, weights * positions)
        shape = output
    yield LayerShape(None, "softmax", shape, shape)


def kernel_shapes(variant: Variant, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the kernels by layer name, with columns concatenated: (height, width, input feature maps,
    kernels) for convolutions, (inputs, units) for dense layers."""
    shapes = {}
    for shape in trace(variant, num_classes):
        if isinstance(shape.row, Conv):
            side = shape.row.kernel_size
            shapes[shape.name] = (side, side, shape.fan_in // side**2, shape.row.filters)
        elif isinstance(shape.row, Dense):
            shapes[shape.name] = (shape.fan_in, shape.output_shape[-1])
    return shapes


def connections(below: int, here: int, input_columns: str) -> list[tuple[int, int]]:
    """Returns the arrows of figure 2 between two layers: from which columns below each column takes its input.

    Args:
        below, here: numbers of columns of the two layers; 1 for the image and the classifier.
        input_columns: that of the upper layer, "own" or "all".

    Returns: pairs (index of a column below, index of a column here).
    """
    everywhere = input_columns == "all" or below != here
    return [(lower, upper) for upper in range(here) for lower in range(below) if everywhere or lower == upper]


def _conv_side(side: int, row: Conv, axis: int) -> int:
    if row.padding == "same":
        return -(-side // row.strides)
    zeros = 0 if isinstance(row.padding, str) else sum(row.padding[axis])
    return (side + zeros - row.kernel_size) // row.strides + 1


def _pool_side(side: int, row: MaxPool) -> int:
    return -(-side // row.strides) if row.padding == "same" else (side - row.pool_size) // row.strides + 1
