"""A layer without weights that is applied to each column's tensor, on the column's device."""

from collections.abc import Sequence
from typing import Any

import keras

from alexnet_tf.layers.device_placement import device_of_each_group, run_on_device
from alexnet_tf.layers.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ColumnWise(keras.layers.Layer):
    """Applies a layer without weights, such as ReLU or pooling, to each column's tensor.

    Call arguments:
        inputs: a list of one tensor for each column.

    Returns: a list of one tensor for each column.

    Args:
        layer: a Keras layer without weights and state that computes the same in training and at test time.
        devices: None, or one TensorFlow device name for each column's forward and backward operations; not part of
            `get_config`.

    Raises:
        ValueError: if `layer` has weights or state.

    Source: section 3.2: each GPU normalizes and pools the feature maps of its own column.

    Example:

    >>> layer = alexnet_tf.ColumnWise(keras.layers.MaxPooling2D(3, 2))
    >>> [column.shape for column in layer([np.zeros((1, 55, 55, 48), "float32")] * 2)]
    [TensorShape([1, 27, 27, 48]), TensorShape([1, 27, 27, 48])]
    """

    def __init__(self, layer: keras.layers.Layer, devices: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.layer = layer
        self.devices = devices

    def build(self, input_shape: Sequence[Any]) -> None:
        self.layer.build(input_shape[0])
        if self.layer.variables:
            raise ValueError(f"`layer` must have no weights and no state. Received: {self.layer}")

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        devices = device_of_each_group(self.devices, len(inputs))
        return [run_on_device(device, self.layer, x) for device, x in zip(devices, inputs, strict=True)]

    def compute_output_shape(self, input_shape: Sequence[Any]) -> list[Any]:
        return [self.layer.compute_output_shape(shape) for shape in input_shape]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ColumnWise":
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)
