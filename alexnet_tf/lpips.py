"""LPIPS: the perceptual distance of two images, measured in AlexNet's features."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_tf.layers.tensor_types import Tensor
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS

_NETWORK = VARIANTS["one_weird_trick"]
_COMPARED = ("relu1", "relu2", "relu3", "relu4", "relu5")  # lpips/pretrained_networks.py, class alexnet
# The same as the original's "scaling layer": pixels of -1 to 1, minus a shift, divided by a scale.
_MEAN_COLOR = (123.675, 116.28, 103.53)
_EPSILON = 1e-10  # lpips/__init__.py, normalize_tensor
_MIN_SIDE_PX = 31  # the smallest image that leaves a unit in every layer


@keras.saving.register_keras_serializable(package="alexnet_tf")
class LPIPS(keras.Model):
    """Learned perceptual image patch similarity, version 0.1, with AlexNet.

    The features of both images after each of the five convolutions are divided by their norm over channels. Their
    squared differences are weighted by a learned factor for each channel, averaged over positions, and summed over
    layers. The larger the distance, the more different two images look to people; it is 0 for equal images.

    Its weights are not trained, and gradients pass to the images. So it is a loss as it is:

    ```python
    distances = alexnet_tf.LPIPS()(images, others)  # float32 (batch,)
    model.compile("adam", loss=alexnet_tf.LPIPS())
    ```

    Call arguments:
        images, others: uint8 or float tensors (batch, height, width, 3), RGB pixels from 0 to 255, of equal shapes and
            at least 31 pixels high and wide. `images` may also be a list of both, as `predict` passes it.

    Returns: float32 (batch,), or with `spatial` (batch, height, width).

    Args:
        weights: "torchvision_features", the published weights, which are downloaded once; a file with them; or None for
            a network whose weights are loaded later, as by `keras.models.load_model`.
        spatial: whether to return a distance for each pixel, instead of their average.

    Raises:
        ValueError: if the weights can't be downloaded or read, or the images have other shapes.

    Source: Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric, CVPR 2018; github.com/richzhang/PerceptualSimilarity.
    Deviation: where all features of a position are 0, the gradient is 0 instead of NaN.

    Example:

    >>> distance = alexnet_tf.LPIPS(weights=None)  # without weights, all distances are 0
    >>> images, others = np.zeros((2, 64, 64, 3), "uint8"), np.full((2, 64, 64, 3), 255, "uint8")
    >>> distance(images, others).shape
    TensorShape([2])
    """

    def __init__(
        self, weights: str | pathlib.Path | None = "torchvision_features", spatial: bool = False, **kwargs: Any
    ):
        # Not with the module, which is imported before the layers are: registration.py.
        from alexnet_tf.networks import keras_layers

        super().__init__(trainable=False, **kwargs)
        self.spatial = spatial
        shapes = list(rows.trace(_NETWORK, num_classes=1000))
        last = [shape.name for shape in shapes].index(_COMPARED[-1])
        self.stages = [
            keras_layers.make_layer(shape, num_columns=1, merged=True, devices=None, initializer="zeros")
            for shape in shapes[: last + 1]
        ]
        self.heads = []
        for layer, shape in zip(self.stages, shapes, strict=False):
            layer.build((None, None, None, shape.input_shape[-1]))
            if layer.name in _COMPARED:
                head = self.add_weight(
                    shape=(shape.output_shape[-1],), initializer="zeros", name=f"head{len(self.heads) + 1}"
                )
                self.heads.append(head)
        self.built = True
        if weights is not None:
            from alexnet_tf.weights import lpips_files

            self.set_published_weights(*lpips_files.read(weights))

    def set_published_weights(
        self, convolutions: Mapping[str, tuple[np.ndarray, np.ndarray]], heads: list[np.ndarray]
    ) -> None:
        """Sets the weights.

        Args:
            convolutions: names conv1 to conv5 to (kernel, bias), for pixels from 0 to 255 minus the mean color, divided
                by torchvision's standard deviations.
            heads: the five layers' factors, float (channels,).
        """
        for layer in self.stages:
            if layer.name in convolutions:
                layer.set_weights(list(convolutions[layer.name]))
        for variable, values in zip(self.heads, heads, strict=True):
            variable.assign(values)

    def call(self, images: Tensor, others: Tensor | None = None) -> Tensor:
        first, second = images if others is None else (images, others)  # pyright: ignore[reportGeneralTypeIssues]
        self._check(first, second)
        total: Any = 0.0
        for head, a, b in zip(self.heads, self._features(first), self._features(second), strict=True):
            difference = ops.sum(ops.square(a - b) * head, axis=-1, keepdims=True)
            if self.spatial:
                size = ops.shape(first)[1:3]
                total = total + ops.image.resize(difference, size, "bilinear", data_format="channels_last")[..., 0]
            else:
                total = total + ops.mean(difference, axis=(1, 2, 3))
        return total

    def _features(self, images):
        """The features that are compared, each divided by its norm over channels, layer by layer."""
        x = (ops.cast(images, "float32") - ops.array(_MEAN_COLOR, "float32")) * ops.array(
            _NETWORK.input_scale, "float32"
        )
        compared = []
        for layer in self.stages:
            x = layer(x)
            if layer.name in _COMPARED:
                features = ops.cast(x, "float32")
                squares = ops.sum(ops.square(features), axis=-1, keepdims=True)
                norm = ops.sqrt(ops.where(squares > 0, squares, 1.0))  # the root's gradient at 0 is infinite
                compared.append(features / (norm + _EPSILON))
        return compared

    def _check(self, first, second):
        shapes = [tuple(each.shape) for each in (first, second)]
        known = [side for shape in shapes for side in shape[1:3] if side is not None]
        same = all(None in pair or pair[0] == pair[1] for pair in itertools.zip_longest(*shapes))
        if not same or len(shapes[0]) != 4 or shapes[0][3] != 3 or min(known, default=_MIN_SIDE_PX) < _MIN_SIDE_PX:
            raise ValueError(
                "Both batches of images must have the same shape, (batch, height, width, 3), with sides of at least "
                f"{_MIN_SIDE_PX} pixels. Received: {shapes[0]} and {shapes[1]}"
            )

    def compute_output_shape(self, images_shape: Any, others_shape: Any = None) -> tuple[int | None, ...]:
        shape = images_shape[0] if others_shape is None else images_shape
        return tuple(shape[:3]) if self.spatial else (shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "spatial": self.spatial, "weights": None}
