"""Types in the signatures of the layers."""

from collections.abc import Sequence
from typing import Any

Tensor = Any  # a tensor of Keras's backend, or a `keras.KerasTensor`
Shape = Sequence[int | None]
