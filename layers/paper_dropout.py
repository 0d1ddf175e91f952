"""The paper's dropout, and today's. Both draw different masks on each replica of a distribution strategy."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from alexnet_tf.layers import device_placement
from alexnet_tf.layers.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class PaperDropout(keras.layers.Layer):
    """Dropout that scales its outputs at test time instead of in training.

    In training a unit is zeroed with probability `rate` and otherwise unchanged; at test time every output is
    multiplied by 1 - rate. `keras.layers.Dropout` divides by 1 - rate in training instead: the weights of the layer
    above differ by that factor.

    Call arguments:
        inputs: float tensor (batch, ..., units), or a list of one such tensor for each group.
        training: whether to drop units.

    Args:
        rate: probability of zeroing, in [0, 1).
        seed: integer, or None for one drawn from Keras's global generator.
        groups: number of columns into which the units are split. Each draws its own masks, so that a seed gives the
            same masks whether the columns are one tensor or several.
        devices: None, or one TensorFlow device name for each group's masks; not part of `get_config`.

    Returns: float tensors of the inputs' shapes.

    Raises:
        ValueError: if `rate` is outside [0, 1), `devices` does not name one for each group, or the units can't be
            split into groups.

    Source: section 4.2.

    Example:

    >>> float(alexnet_tf.PaperDropout(0.5)(np.ones((1, 4), "float32"))[0, 0])  # at test time
    0.5
    """

    def __init__(
        self,
        rate: float = 0.5,
        seed: int | None = None,
        groups: int = 1,
        devices: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.groups = groups
        self.devices = devices
        self.seed_generators = []
        for group, device in enumerate(device_placement.device_of_each_group(devices, groups)):
            with device_placement.device_scope(device):
                generator = device_placement.ReplicaSeedGenerator(None if seed is None else seed + group)
            self.seed_generators.append(generator)

    def build(self, input_shape: Shape | Sequence[Shape]) -> None:
        """Checks that the units of one tensor can be split into groups."""
        units: Any = input_shape[-1]
        if not isinstance(units, Sequence) and units % self.groups:
            raise ValueError(
                f"The number of units must be divisible by `groups`. Received: input_shape={input_shape}, "
                f"groups={self.groups}"
            )

    def call(self, inputs: Tensor | Sequence[Tensor], training: bool = False) -> Tensor | list[Tensor]:
        devices = device_placement.device_of_each_group(self.devices, self.groups)
        split = isinstance(inputs, list | tuple)
        parts: Sequence[Tensor] = inputs
        if not split:
            parts = ops.split(inputs, self.groups, axis=-1)  # pyright: ignore[reportAssignmentType]
        outputs = []
        for device, x, seed_generator in zip(devices, parts, self.seed_generators, strict=True):
            if training:
                with device_placement.device_scope(device):
                    kept = keras.random.uniform(ops.shape(x), seed=seed_generator) >= self.rate
                    factor = ops.cast(kept, x.dtype)
            else:
                factor = 1.0 - self.rate
            outputs.append(device_placement.run_on_device(device, lambda x, factor=factor: x * factor, x))
        if split:
            return outputs
        return ops.concatenate(outputs, axis=-1) if self.groups > 1 else outputs[0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed, "groups": self.groups}


@keras.saving.register_keras_serializable(package="alexnet_tf")
class ReplicaDropout(keras.layers.Layer):
    """`keras.layers.Dropout`, with masks that differ between replicas.

    Keras's own layer draws the same mask on each replica of a distribution strategy: two halves of a batch lose the
    same units. On one device both layers draw the same masks.

    Call arguments:
        inputs: float tensor of any shape, or a list of tensors, one for each column.
        training: whether to drop units.

    Args:
        rate: probability of zeroing, in [0, 1).
        seed: integer, or None for one drawn from Keras's global generator.

    Raises:
        ValueError: if `rate` is outside [0, 1).

    Example:

    >>> float(alexnet_tf.ReplicaDropout(0.5)(np.ones((1, 4), "float32"))[0, 0])  # at test time
    1.0
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = device_placement.ReplicaSeedGenerator(seed)

    def call(self, inputs: Tensor | Sequence[Tensor], training: bool = False) -> Tensor | list[Tensor]:
        if isinstance(inputs, list | tuple):
            return [self.call(x, training) for x in inputs]
        if not training or self.rate == 0:
            return inputs
        return keras.random.dropout(inputs, self.rate, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
