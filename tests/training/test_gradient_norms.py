"""Gradient norms against those of a gradient tape."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.training import compilation
from alexnet_tf.training.gradient_norms import GradientNorms
from alexnet_tf.training.optimizers import PaperMomentum


class TestGradientNorms:
    @pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_norms_are_those_of_the_gradients(self, jit):
        keras.utils.set_random_seed(1)
        alexnet = build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
        for layer in ("drop6", "drop7"):
            alexnet.get_layer(layer).rate = 0.0
        model, optimizer = with_color_offset(alexnet), PaperMomentum(0.1)
        compilation.compile_model(model, optimizer, jit)
        norms = optimizer.gradient_norms = GradientNorms(model.trainable_variables, always=jit)
        rng = np.random.default_rng(0)
        inputs = {"image": rng.integers(0, 256, (20, 56, 56, 3), "uint8"), "color_offset": np.zeros((20, 3), "float32")}
        labels = np.arange(20) % 10
        kernels = [weight for weight in model.trainable_variables if len(weight.shape) > 1]
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(labels, model(inputs, training=True))
            loss = tf.reduce_mean(loss)
        expected = [np.linalg.norm(gradient) for gradient in tape.gradient(loss, [kernel.value for kernel in kernels])]
        lengths = [norms.weight_norm(kernel) for kernel in kernels]
        np.testing.assert_allclose(lengths, [np.linalg.norm(kernel) for kernel in kernels], rtol=1e-5)
        norms.enable(True)
        model.train_on_batch(inputs, labels)
        np.testing.assert_allclose([norms.norm(kernel) for kernel in kernels], expected, rtol=1e-4)
        if not jit:
            norms.enable(False)
            model.train_on_batch(inputs, labels)
            np.testing.assert_allclose([norms.norm(kernel) for kernel in kernels], expected, rtol=1e-4)
