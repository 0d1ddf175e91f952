"""Receptive fields of networks, nested ones included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet
from alexnet_tf.networks.receptive_fields import receptive_field


def test_fields_of_the_paper():
    # Known from the literature, for the paper's kernels, strides and pools.
    model = build_alexnet("paper", 10, initializer="zeros")
    expected = {
        "conv1": (11, 4),
        "norm1": (11, 4),
        "pool1": (19, 8),
        "conv2": (51, 8),
        "conv3": (99, 16),
        "conv4": (131, 16),
        "relu5": (163, 16),
        "pool5": (195, 32),
        "fc6": (224, 1),
    }
    assert {layer: receptive_field(model, layer)[:2] for layer in expected} == expected


@pytest.mark.parametrize("variant", ["testing", "four_layer"])
def test_pixels_in_the_field_have_a_gradient(variant):
    # Without LRN, and with sums instead of maxima, so that each weight counts.
    model = build_alexnet(variant, 10, initializer="ones", input_scale=1e-3)
    pixels = tf.ones((1, *model.input_shape[1:]))
    row, units = 2, {}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(pixels)
        x = pixels
        for each in model.layers[1:]:
            if isinstance(each, keras.layers.MaxPooling2D):
                x = keras.ops.average_pool(x, each.pool_size, each.strides, each.padding)
            elif hasattr(each, "kernels"):
                x = each(x)
            units[each.name] = x[0, row, row, 0]
            if each.name == "conv3":
                break
    for layer in ("conv1", "pool1", "conv2", "pool2", "conv3"):
        size, step, start = receptive_field(model, layer)
        first = start + row * step
        inside = np.flatnonzero(np.abs(tape.gradient(units[layer], pixels)[0].numpy()).sum(axis=(1, 2)))
        assert inside[0] == max(first, 0), layer
        assert inside[-1] == min(first + size, pixels.shape[1]) - 1, layer


def test_nested_network():
    base = build_alexnet("testing", 10, include_top=False, pooling="avg")
    model = keras.Sequential([base, keras.layers.Dense(5, name="head")])
    assert receptive_field(model, "conv1").size == 7
    assert receptive_field(model, "head").size == 56
