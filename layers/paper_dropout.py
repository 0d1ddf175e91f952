"""Dropout as in 2012."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="alexnet_tf")
class PaperDropout(keras.layers.Layer):
    """Dropout that does not rescale in training: the outputs are scaled at test time instead.

    In training a unit is zeroed with probability `rate` and otherwise passed on unchanged; at test time every
    output is multiplied by 1 - rate. `keras.layers.Dropout` divides by 1 - rate in training instead, so the two
    want weights of different size in the layer above.

    Call arguments:
        inputs: float tensor of any shape.
        training: whether to drop.

    Args:
        rate: probability of zeroing, in [0, 1).
        seed: integer, or None for one drawn from Keras's global generator.

    Raises:
        ValueError: where `rate` is outside [0, 1).

    Source: section 4.2.
    """

    def __init__(self, rate=0.5, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training:
            return inputs * (1.0 - self.rate)
        kept = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator) >= self.rate
        return inputs * ops.cast(kept, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
