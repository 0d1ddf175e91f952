"""Calls of a layer in every mode in which a network may run it, and what it is called with."""

import numpy as np
import tensorflow as tf

MODES = ["eager", "graph", "xla"]


def call(layer, inputs, mode, **arguments):
    """The layer's output and its gradients, where the output's own gradient is the output's size in sines."""
    layer(inputs)  # makes the variables

    def forward_and_backward(*tensors):
        tensors = list(tensors)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = layer(tensors if isinstance(inputs, list) else tensors[0], **arguments)
            merged = tf.concat(output, -1) if isinstance(output, list) else output
            upstream = tf.cast(tf.sin(tf.range(tf.size(merged), dtype=tf.float32)), merged.dtype)
            total = tf.reduce_sum(merged * tf.reshape(upstream, tf.shape(merged)))
        return merged, tape.gradient(total, [*tensors, *(v.value for v in layer.trainable_variables)])

    if mode != "eager":
        forward_and_backward = tf.function(forward_and_backward, jit_compile=mode == "xla")
    output, gradients = forward_and_backward(*(inputs if isinstance(inputs, list) else [inputs]))
    return output.numpy(), [gradient.numpy() for gradient in gradients]


def sines(shape):
    return np.sin(np.arange(np.prod(shape))).reshape(shape)


def activations(shape, seed=0, scale=30.0):
    return np.float32(np.random.default_rng(seed).normal(scale=scale, size=shape))
