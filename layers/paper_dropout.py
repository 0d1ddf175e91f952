"""Dropout as in 2012, and as today; either with masks of its own on each replica of a distribution strategy."""

import keras
from keras import ops

from alexnet_tf.layers import columns


@keras.saving.register_keras_serializable(package="alexnet_tf")
class PaperDropout(keras.layers.Layer):
    """Dropout that does not rescale in training: the outputs are scaled at test time instead.

    In training a unit is zeroed with probability `rate` and otherwise passed on unchanged; at test time every
    output is multiplied by 1 - rate. `keras.layers.Dropout` divides by 1 - rate in training instead, so the two
    want weights of different size in the layer above.

    Call arguments:
        inputs: float tensor (batch, ..., units), or a list of one such tensor for each group.
        training: whether to drop.

    Args:
        rate: probability of zeroing, in [0, 1).
        seed: integer, or None for one drawn from Keras's global generator.
        groups: number of columns among which the units are split. Each draws its own masks, so that the masks of a
            seed are the same whether the columns come as one tensor or as several.
        devices: None, or one TensorFlow device name for each group, on which its masks are drawn and applied; no part
            of `get_config`.

    Raises:
        ValueError: where `rate` is outside [0, 1), or the devices are not one for each group.

    Source: section 4.2.
    """

    def __init__(self, rate=0.5, seed=None, groups=1, devices=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        columns.check_arguments(groups, "own", devices)
        self.rate = rate
        self.seed = seed
        self.groups = groups
        self.devices = devices
        self.seed_generators = []
        for group, device in enumerate(columns.devices_of(self)):
            with columns.device_scope(device):
                self.seed_generators.append(columns.ReplicaSeedGenerator(None if seed is None else seed + group))

    def call(self, inputs, training=False):
        split = isinstance(inputs, list | tuple)
        parts = inputs if split else ops.split(inputs, self.groups, axis=-1)
        outputs = []
        for device, x, seed_generator in zip(columns.devices_of(self), parts, self.seed_generators, strict=True):
            if training:
                with columns.device_scope(device):
                    kept = keras.random.uniform(ops.shape(x), seed=seed_generator) >= self.rate
                    factor = ops.cast(kept, x.dtype)
            else:
                factor = 1.0 - self.rate
            outputs.append(columns.run_on_device(device, lambda x, factor=factor: x * factor, x))
        if split:
            return outputs
        return ops.concatenate(outputs, axis=-1) if self.groups > 1 else outputs[0]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed, "groups": self.groups}


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ReplicaDropout(keras.layers.Layer):
    """`keras.layers.Dropout`, which rescales in training, with masks that differ between replicas.

    Keras's own draws the same mask on each replica of a distribution strategy: two halves of a batch that lose the same
    units. On one device this is Keras's layer, draw for draw.

    Call arguments:
        inputs: float tensor of any shape.
        training: whether to drop.

    Args:
        rate: probability of zeroing, in [0, 1).
        seed: integer, or None for one drawn from Keras's global generator.

    Raises:
        ValueError: where `rate` is outside [0, 1).
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = columns.ReplicaSeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        return keras.random.dropout(inputs, self.rate, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
