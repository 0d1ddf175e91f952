"""Convolution whose kernels are not shared between positions."""

from typing import Any

import keras
from keras import ops

from alexnet_tf.layers.column_layer import ColumnLayer
from alexnet_tf.layers.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="alexnet_tf")
class LocallyConnected2D(ColumnLayer):
    """Like a 2-D convolution with stride 1 and zero padding, but with own kernels and biases at each position.

    Call arguments:
        inputs: float tensor (batch, height, width, channels).

    Returns: float tensor (batch, height, width, filters).

    Args:
        filters: kernels at each position.
        kernel_size: side of the square kernel, in pixels.
        **kwargs: other arguments of `ColumnLayer` and `keras.layers.Layer`. There is one group.

    The kernel is of shape (kernel_size² * channels, height * width * filters).

    Source: the layers `local` of cuda-convnet, which the paper's footnote in section 3.3 refers to.
    """

    strides = 1
    padding = "same"

    def __init__(self, filters: int, kernel_size: int, groups: int = 1, input_columns: str = "all", **kwargs: Any):
        super().__init__(groups, input_columns, **kwargs)
        self.filters = self._per_group("filters", filters)
        self.kernel_size = kernel_size

    def column_kernel_shape(self, input_shape: Any) -> tuple[int, int]:
        _, height, width, channels = input_shape
        return (self.kernel_size**2 * channels, height * width * self.filters)

    def call_column(self, x: Tensor, kernel: Tensor, *bias: Tensor) -> Tensor:
        patches = ops.image.extract_patches(x, self.kernel_size, 1, padding="same", data_format="channels_last")
        outputs = (*patches.shape[1:3], self.filters)
        products = ops.einsum("brcp,prcf->brcf", patches, ops.reshape(kernel, (-1, *outputs)))
        return products + sum(ops.reshape(each, outputs) for each in bias)

    def column_output_shape(self, input_shape: Shape) -> tuple[Any, ...]:
        return (*input_shape[:3], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {"filters": self.filters, "kernel_size": self.kernel_size} | super().get_config()
