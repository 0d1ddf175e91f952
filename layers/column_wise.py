"""A layer without weights, applied to each column's tensor on the column's own device."""

import keras

from alexnet_tf.layers import columns


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ColumnWise(keras.layers.Layer):
    """Applies a layer without weights, such as ReLU or pooling, to each column's tensor.

    Call arguments:
        inputs: a list of one tensor for each column.

    Returns: a list of one tensor for each column.

    Args:
        layer: a Keras layer that has no weights and no state, and treats training and test time alike.
        devices: None, or one TensorFlow device name for each column, on which its forward and backward operations
            run; no part of `get_config`.

    Source: section 3.2: each GPU normalizes and pools the maps of its own column.
    """

    def __init__(self, layer, devices=None, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer
        self.devices = devices

    def build(self, input_shape):
        self.layer.build(input_shape[0])
        if self.layer.variables:
            raise ValueError(f"`layer` must have no weights and no state. Received: {self.layer}")

    def call(self, inputs):
        devices = self.devices or [None] * len(inputs)
        return [columns.run_on_device(device, self.layer, x) for device, x in zip(devices, inputs, strict=True)]

    def compute_output_shape(self, input_shape):
        return [self.layer.compute_output_shape(shape) for shape in input_shape]

    def get_config(self):
        return super().get_config() | {"layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)
