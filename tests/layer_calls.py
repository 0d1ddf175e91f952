"""Calls a layer in each mode in which a network may run it, and makes its inputs."""

import numpy as np
import tensorflow as tf

MODES = ["eager", "graph", "xla"]


def call(layer, inputs, mode, **arguments):
    """Returns the output and the gradients of inputs and variables, for `sines` as the gradient of the output."""
    layer(inputs)  # creates the variables

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
    """Returns the gradient of the output that `call` uses, float64."""
    return np.sin(np.arange(np.prod(shape))).reshape(shape)


def activations(shape, seed=0, scale=30.0):
    """Returns normally distributed inputs, float32."""
    return np.float32(np.random.default_rng(seed).normal(scale=scale, size=shape))
