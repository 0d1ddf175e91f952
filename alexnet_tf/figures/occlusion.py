"""Which part of an image a network depends on: its predictions while a gray square covers one part after another."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from tqdm import tqdm

from alexnet_tf.figures import plots
from alexnet_tf.figures.image_grids import shorten
from alexnet_tf.layers import GroupedConv2D
from alexnet_tf.networks import structure

_GRAY = 128
_DOUBTFUL = 0.5
_COLORS = ("#9ecae1", "#fdae6b", "#a1d99b", "#bcbddc", "#fa9fb5", "#d9d9d9")  # the last: all other classes


@dataclasses.dataclass(frozen=True)
class OcclusionMaps:
    """A network's predictions with a square at each position of a grid.

    Attributes:
        label: the most probable class of the uncovered image.
        feature_map: index of the feature map with the largest sum of activations for the uncovered image.
        probability: float32 (height, width), the probability of `label`.
        strength: float32 (height, width), the sum of activations of `feature_map`.
        predicted: int (height, width), the most probable class.
        probability_without, strength_without: `probability` and `strength` of the uncovered image.
    """

    label: int
    feature_map: int
    probability: np.ndarray
    strength: np.ndarray
    predicted: np.ndarray
    probability_without: float
    strength_without: float


def occlude(
    model: keras.Model,
    image: np.ndarray,
    layer: str,
    square_px: int | None = None,
    step_px: int | None = None,
) -> OcclusionMaps:
    """Covers one part of an image after another with a gray square, and predicts its class each time.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        image: uint8 (side, side, 3), from `preprocess`.
        layer: name of a layer with feature maps; in the source, the activations of the last convolution.
        square_px: side of the square; None for a quarter of the image's side.
        step_px: distance between two positions; None for a quarter of the square's side. The squares are centered on
            a grid and may reach over the image's edges.

    Returns: `OcclusionMaps`.

    Raises:
        ValueError: if the layer has no feature maps, or `square_px` or `step_px` is not from 1 to the image's side.

    Source: M. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", 2013, section 4.2 and
    figure 7.

    Deviation: the source shows the probability of the correct class. Here it is that of the predicted class, which is
    known for any photograph. The source does not give the sizes of its square and step.
    """
    side = int(image.shape[0])
    square_px = square_px or max(side // 4, 1)
    step_px = step_px or max(square_px // 4, 1)
    sizes: dict[str, int] = {"square_px": square_px, "step_px": step_px}
    for name, value in sizes.items():
        if not 1 <= value <= side:
            raise ValueError(f"`{name}` must be from 1 to the image's side, {side}. Received: {name}={value}")
    network = structure.features(model, [layer], output="probabilities")
    output = network.output[layer]
    if len(output.shape) != 4:
        raise ValueError(f"`layer` must have feature maps. Received: layer={layer!r}, whose output is {output.shape}")
    sums = keras.ops.sum(output, axis=(1, 2))
    both = keras.Model(network.input, [network.output["probabilities"], sums])
    (probabilities,), (strengths,) = both.predict_on_batch(image[None])
    label, feature_map = int(probabilities.argmax()), int(strengths.argmax())

    centers = np.arange(step_px // 2, side, step_px)
    lows, highs = np.maximum(centers - square_px // 2, 0), centers - square_px // 2 + square_px
    covered = np.repeat(image[None], len(centers), axis=0)  # one row of positions
    answers = []
    quiet = not keras.config.is_interactive_logging_enabled()
    for top, bottom in tqdm(list(zip(lows, highs, strict=True)), "covering the image", unit=" rows", disable=quiet):
        covered[:] = image
        for picture, left, right in zip(covered, lows, highs, strict=True):
            picture[top:bottom, left:right] = _GRAY
        answers.append(both.predict_on_batch(covered))
    chances, maps = (np.stack(arrays) for arrays in zip(*answers, strict=True))
    return OcclusionMaps(
        label,
        feature_map,
        chances[:, :, label],
        maps[:, :, feature_map],
        chances.argmax(axis=-1),
        float(probabilities[label]),
        float(strengths[feature_map]),
    )


def doubtful_images(model: keras.Model, images: np.ndarray, count: int) -> np.ndarray:
    """Chooses the images of whose class a network is neither sure nor ignorant: occlusion changes these predictions.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        images: uint8 (n, side, side, 3).
        count: number of images.

    Returns: uint8 (count, side, side, 3), the images whose largest probability is nearest to 50%, in their order.
    """
    confidences = model.predict(images, verbose=0).max(axis=1)
    return images[np.sort(np.argsort(np.abs(confidences - _DOUBTFUL), kind="stable")[:count])]


def draw_occlusion(
    model: keras.Model, images: Sequence[np.ndarray] | np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """Draws a row for each image: the image; then, for each position of a square that covers it, the sum of the last
    convolution's strongest feature map, the probability of the predicted class, and the class predicted instead.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        images: uint8 (side, side, 3) each, from `preprocess`.
        class_names: names in the order of the labels.

    Returns: uint8 (height, width, 3).

    Source: figure 7 of Zeiler and Fergus, 2013.
    """
    convolutions = (keras.layers.Conv2D, GroupedConv2D)
    *_, layer = (stage.activation for stage in structure.stages(model) if isinstance(stage.layer, convolutions))
    figure = Figure(figsize=(13, 3.3 * len(images)), layout="constrained")
    panels = figure.subplots(len(images), 4, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for (picture, strength, probability, answer), image in zip(panels, images, strict=True):
        found, side = occlude(model, image, layer), image.shape[0]
        extent = (0, side, side, 0)
        answered = shorten(class_names[found.label])
        picture.imshow(image, extent=extent)
        picture.add_patch(Rectangle((0, 0), side // 4, side // 4, facecolor="#808080", edgecolor="white"))
        picture.set_title(f"{answered}: {found.probability_without:.0%}", fontsize=10)
        drawn = strength.imshow(found.strength, extent=extent, cmap="inferno", vmin=0)
        strength.set_title(f"sum of {layer}'s feature map {found.feature_map}", fontsize=10)
        figure.colorbar(drawn, ax=strength, shrink=0.8)
        drawn = probability.imshow(found.probability, extent=extent, cmap="inferno", vmin=0, vmax=1)
        probability.set_title(f"probability of {answered}", fontsize=10)
        figure.colorbar(drawn, ax=probability, shrink=0.8)
        _draw_answers(answer, found.predicted, extent, class_names)
    return plots.pixels_of(figure)


def _draw_answers(axes, predicted, extent, class_names):
    """Draws the most probable class at each position, with a legend of the most frequent classes."""
    labels, counts = np.unique(predicted, return_counts=True)
    order = labels[np.argsort(-counts, kind="stable")]
    ranks = np.empty(len(class_names), int)
    ranks[order] = np.minimum(np.arange(len(order)), len(_COLORS) - 1)
    axes.imshow(ranks[predicted], extent=extent, cmap=ListedColormap(_COLORS), vmin=-0.5, vmax=len(_COLORS) - 0.5)
    axes.set_title("the network's answer", fontsize=10)
    names = [shorten(class_names[label]) for label in order[: len(_COLORS) - 1]]
    names += ["others"] if len(order) >= len(_COLORS) else []
    handles = [Patch(color=color, label=name) for color, name in zip(_COLORS, names, strict=False)]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8, frameon=False)
