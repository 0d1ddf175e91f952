"""LPIPS against an independent version in PyTorch, as a model and as a loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch.nn import functional

import alexnet_tf
from alexnet_tf.networks import rows
from alexnet_tf.networks.variants import VARIANTS

CHANNELS = (64, 192, 384, 256, 256)


def random_weights(seed):
    random = np.random.default_rng(seed)
    shapes = rows.kernel_shapes(VARIANTS["one_weird_trick"], 1000)
    convolutions = {}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        *inputs, filters = shapes[name]
        kernel = random.normal(0, (2 / np.prod(inputs)) ** 0.5, (*inputs, filters)).astype("float32")
        convolutions[name] = kernel, random.normal(0, 0.1, filters).astype("float32")
    return convolutions, [random.uniform(0, 1, channels).astype("float32") for channels in CHANNELS]


@pytest.fixture(scope="module")
def weights():
    return random_weights(0)


@pytest.fixture(scope="module")
def model(weights):
    model = alexnet_tf.LPIPS(weights=None)
    model.set_published_weights(*weights)
    return model


def images(seed, side=(64, 80), count=2):
    return np.random.default_rng(seed).integers(0, 256, (count, *side, 3)).astype("uint8")


def torch_distance(weights, first, second, spatial=False):
    """LPIPS in PyTorch, written from the paper; float32 (batch,) or (batch, height, width)."""
    convolutions, heads = weights
    settings = {"conv1": (4, 2), "conv2": (1, 2), "conv3": (1, 1), "conv4": (1, 1), "conv5": (1, 1)}

    def features(pixels):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((pixels / 127.5 - 1 - shift) / scale).permute(0, 3, 1, 2)
        for name, (stride, padding) in settings.items():
            if name in ("conv2", "conv3"):
                x = functional.max_pool2d(x, 3, 2)
            kernel, bias = convolutions[name]
            x = functional.conv2d(
                x, torch.tensor(kernel.transpose(3, 2, 0, 1)), torch.tensor(bias), stride, padding
            ).relu()
            yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    total = 0
    for head, a, b in zip(heads, features(first), features(second), strict=True):
        weighted = ((a - b) ** 2 * torch.tensor(head)[:, None, None]).sum(1, keepdim=True)
        if spatial:
            total += functional.interpolate(weighted, first.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
        else:
            total += weighted.mean((1, 2, 3))
    return total


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_distances_equal_pytorch(model, weights, dtype):
    first, second = images(1).astype(dtype), images(2).astype(dtype)
    expected = torch_distance(weights, *(torch.tensor(each.astype("float32")) for each in (first, second))).numpy()
    for found in (model(first, second), model([first, second]), model.predict([first, second], verbose=0)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_map_equals_pytorch_and_has_the_distance_as_its_mean(model, weights):
    first, second = images(1), images(2)
    spatial = alexnet_tf.LPIPS(weights=None, spatial=True)
    spatial.set_weights(model.get_weights())
    found = keras.ops.convert_to_numpy(spatial(first, second))
    tensors = (torch.tensor(each.astype("float32")) for each in (first, second))
    np.testing.assert_allclose(found, torch_distance(weights, *tensors, spatial=True).numpy(), rtol=1e-4)
    assert found.shape == (2, 64, 80)
    np.testing.assert_array_equal(model(first, first), 0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradient_equals_pytorch_in_graphs_and_xla(model, weights, jit_compile):
    first, second = images(1).astype("float32"), images(2).astype("float32")
    expected = torch.tensor(second, requires_grad=True)
    torch_distance(weights, torch.tensor(first), expected).sum().backward()

    @tf.function(jit_compile=jit_compile)
    def gradient(first, second):
        with tf.GradientTape() as tape:
            tape.watch(second)
            distance = model(first, second)
        return tape.gradient(distance, second)

    scale = np.abs(expected.grad.numpy()).max()
    np.testing.assert_allclose(
        gradient(tf.constant(first), tf.constant(second)) / scale, expected.grad.numpy() / scale, atol=1e-5
    )


def test_gradient_is_finite_where_no_feature_is_active(weights):
    convolutions = {name: (0 * kernel, 0 * bias - 1) for name, (kernel, bias) in weights[0].items()}
    silent = alexnet_tf.LPIPS(weights=None)
    silent.set_published_weights(convolutions, weights[1])
    pixels = tf.constant(images(1).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        distance = silent(images(2), pixels)
    np.testing.assert_array_equal(tape.gradient(distance, pixels), 0)


def test_loss_trains_another_model_and_not_itself(model):
    before = model.get_weights()
    inputs = keras.Input((32, 32, 3))
    network = keras.Model(inputs, 255 * keras.layers.Conv2D(3, 1, activation="sigmoid")(inputs))
    network.compile(keras.optimizers.SGD(1.0), loss=model)
    pixels = images(1, (32, 32), 8)
    history = network.fit(pixels / 255, pixels, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert not model.trainable_weights
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_saved_model_returns_the_same_distances(model, tmp_path):
    model.save(tmp_path / "lpips.keras")
    opened = keras.models.load_model(tmp_path / "lpips.keras")
    np.testing.assert_array_equal(opened(images(1), images(2)), model(images(1), images(2)))
    spatial = alexnet_tf.LPIPS(weights=None, spatial=True)
    assert spatial.from_config(spatial.get_config())(images(1), images(2)).shape == (2, 64, 80)


@pytest.mark.parametrize(
    "first, second",
    [((2, 64, 64, 3), (2, 64, 65, 3)), ((2, 30, 64, 3),) * 2, ((64, 64, 3),) * 2, ((2, 64, 64, 1),) * 2],
)
def test_images_of_other_shapes_are_refused(model, first, second):
    with pytest.raises(ValueError, match="Both batches of images must have the same shape"):
        model(np.zeros(first), np.zeros(second))
