"""Every variant against an independent PyTorch implementation in float64; and a hundred training steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch_reference
from torch_weights import copy_to_torch, torch_parameters

from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.training.optimizers import PaperMomentum

CLASSES = 1000


def give_random_weights(model, network):
    """Sets weights large enough that every layer's signal and gradient can be compared."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            else:
                parameter.uniform_(0.1, 0.6)
    for variable, parameter, convert in torch_parameters(model, network):
        variable.assign(convert(parameter.detach().numpy()))


def relative_error(ours, expected):
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def test_every_variant_but_testing_has_a_reference():
    assert set(torch_reference.NAMES) == VARIANTS.keys() - {"testing"}


@pytest.fixture
def float64():
    """In float32 the implementations choose different maxima where two are equal to seven digits, about once per image,
    and their gradients then differ by a percent."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


# Together they have every kind of layer and every number of columns.
REPRESENTATIVES = ("batch_norm", "caffe_224", "cifar_11pct", "original")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.long)
        for name in sorted(torch_reference.NAMES)
    ],
)
def test_logits_and_gradients_equal_pytorch(name, float64):
    model = build_alexnet(name, CLASSES, initializer="zeros", input_scale=1.0)
    network = torch_reference.build(name, CLASSES).double().eval()
    give_random_weights(model, network)
    side = VARIANTS[name].image_px
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, side, side, 3)).astype("uint8")
    mean = random.integers(100, 140, 3).astype("float32")  # exact in float32, as MeanImage computes
    model.get_layer("mean_image").mean.assign(np.broadcast_to(mean, (side, side, 3)))
    labels = np.array([3, 997])

    logits_model = keras.Model(model.input, model.layers[-2].output)
    with tf.GradientTape() as tape:
        logits = logits_model(pixels, training=False)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))  # Keras's is float32
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    gradients = {id(w): g.numpy() for w, g in zip(model.trainable_weights, gradients, strict=True)}

    centered = torch.tensor((np.float64(pixels) - np.float64(mean)).transpose(0, 3, 1, 2))
    expected_logits = network(centered)
    torch.nn.functional.cross_entropy(expected_logits, torch.tensor(labels)).backward()

    assert sum(p.numel() for p in network.parameters()) == sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    expected_logits = expected_logits.detach().numpy()
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-9 * np.abs(expected_logits).max())
    compared = 0
    for variable, parameter, convert in torch_parameters(model, network):
        error = relative_error(gradients[id(variable)], convert(parameter.grad.numpy()))
        assert error < 1e-9, f"{variable.path}: {error:.2e}"
        compared += 1
    assert compared == len(gradients)


@pytest.mark.slow
@pytest.mark.long
def test_hundred_steps_of_the_paper(float64):
    # In float32 the first maximum that is chosen differently grows to a tenth of the training's effect in ten steps.
    steps, rate, momentum, decay = 100, 0.001, 0.9, 0.0005
    keras.utils.set_random_seed(0)
    model = build_alexnet("paper", 10, initializer="he_normal", input_scale=1 / 64)
    for name in ("drop6", "drop7"):
        model.get_layer(name).rate = 0.0
    network = torch_reference.build("no_dropout", 10).double()
    random = np.random.default_rng(0)
    pixels = random.integers(64, 192, (4, 28, 28, 3)).repeat(8, axis=1).repeat(8, axis=2).astype("uint8")
    labels = np.array([0, 3, 3, 9], "int32")
    first = {id(weight): np.array(weight) for weight in model.weights}
    copy_to_torch(model, network)
    velocities = {parameter: torch.zeros_like(parameter) for parameter in network.parameters()}
    centered = torch.tensor(np.float64(pixels).transpose(0, 3, 1, 2) / 64)
    losses = []
    for _ in range(steps):
        network.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(centered), torch.tensor(labels).long())
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter, velocity in velocities.items():
                decayed = decay if parameter.ndim > 1 else 0.0
                velocity.mul_(momentum).sub_(decayed * rate * parameter).sub_(rate * parameter.grad)
                parameter.add_(velocity)

    training_model = with_color_offset(model)
    # Not training.compile_model: TensorFlow can't count the five best of float64 probabilities.
    training_model.compile(PaperMomentum(rate, momentum, decay), "sparse_categorical_crossentropy", jit_compile=False)
    data = tf.data.Dataset.from_tensors(({"image": pixels, "color_offset": np.zeros((4, 3), "float32")}, labels))
    training_model.fit(data.repeat(), steps_per_epoch=steps, verbose=0)

    assert losses[-1] < 0.1 * losses[0]  # it learns these images
    for variable, parameter, convert in torch_parameters(model, network):
        ours, expected = np.asarray(variable), convert(parameter.detach().numpy())
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3 * np.abs(expected).max(), err_msg=variable.path)
        # Stricter than the weights, most of which hardly move: their change in training.
        error = relative_error(ours - first[id(variable)], expected - first[id(variable)])
        assert error < 1e-3, f"{variable.path}: {error:.2e}"
