"""The update rules against float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.training.optimizers import Lars, PaperMomentum


def updated(w, v, g, rate, decay, momentum=0.9, trust=None):
    """A weight and its velocity after a step, in float64; `trust` is that of LARS."""
    local, norm = 1.0, np.linalg.norm
    if trust and norm(w) > 0:
        local = trust * norm(w) / (norm(g) + decay * norm(w))
    v = (momentum * v - rate * local * (g + decay * w)) * (rate > 0)
    return w + v, v


MULTIPLIERS = [  # of each of two layers' weights and biases
    ({}, [1, 1, 1, 1]),
    ({"bias": 2.0, "a": 0.1, "b/kernel": 3.0}, [0.1, 0.2, 3, 2]),
    ({"a": 0.0}, [0, 0, 1, 1]),
    ({"a": 1.0}, [1, 1, 1, 1]),
]


class TestRule:
    @pytest.mark.parametrize(
        "kind, options, mode, decays",
        [
            *((PaperMomentum, {}, mode, [0.0005, 0, 0.0005, 0]) for mode in ("eager", "graph", "xla")),
            *((Lars, {"trust": 0.01}, mode, [0.0005, 0, 0.0005, 0]) for mode in ("eager", "graph", "xla")),
            (PaperMomentum, {"weight_decay": 0.1, "decay_biases": True}, "graph", [0.1] * 4),
            (PaperMomentum, {"weight_decay": 0.1, "layer_decays": {"a": 0.0, "b": 0.5}}, "graph", [0, 0, 0.05, 0]),
            (PaperMomentum, {"weight_decay": 0.1, "momentum": 0.0}, "graph", [0.1, 0, 0.1, 0]),
            (PaperMomentum, {"weight_decay": None}, "graph", [0] * 4),
            (Lars, {"weight_decay": 0.1, "decay_biases": True, "scale_biases": True}, "graph", [0.1] * 4),
        ],
    )
    def test_steps_with_changing_multipliers_equal_float64(self, kind, options, mode, decays):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])
        random = np.random.default_rng(0)
        expected = [random.normal(scale=0.1, size=weight.shape) for weight in model.weights]
        expected[2] *= 0  # LARS gives weights of 0 a local rate of 1
        model.set_weights(expected)
        optimizer = kind.from_config(kind(**{"learning_rate": 0.1} | options).get_config())
        optimizer.build(model.trainable_variables)

        def step(*gradients):
            optimizer.apply(gradients, model.trainable_variables)

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "xla")
        velocities = [0.0] * 4
        for multipliers, per_variable in MULTIPLIERS:
            optimizer.set_rate_multipliers(multipliers)
            for _ in range(25):
                gradients = [random.normal(scale=0.1, size=w.shape) for w in expected]
                step(*(tf.constant(g, "float32") for g in gradients))
                for i, (w, v, g) in enumerate(zip(expected, velocities, gradients, strict=True)):
                    scaled = kind is Lars and (w.ndim > 1 or options.get("scale_biases"))
                    trust = options.get("trust", 0.001) if scaled else None
                    rate, momentum = 0.1 * per_variable[i], options.get("momentum", 0.9)
                    expected[i], velocities[i] = updated(w, v, g, rate, decays[i], momentum, trust)
            for weight, value in zip(model.get_weights(), expected, strict=True):
                np.testing.assert_allclose(weight, value, rtol=1e-6, atol=1e-6)
        assert int(optimizer.iterations) == 100

    @pytest.mark.parametrize("kind", [PaperMomentum, Lars])
    def test_excluded_weights_do_not_decay(self, kind):
        kernels = [keras.Variable(np.full((2, 3), 2.0), name=name) for name in ("kernel", "excluded")]
        optimizer = kind(0.1, weight_decay=0.05)
        optimizer.exclude_from_weight_decay(var_names=["excluded"])
        optimizer.apply([tf.ones((2, 3))] * 2, kernels)
        for kernel, decay in zip(kernels, (0.05, 0.0), strict=True):
            value, _ = updated(np.full((2, 3), 2.0), 0.0, np.ones((2, 3)), 0.1, decay, trust=0.001 * (kind is Lars))
            np.testing.assert_allclose(kernel, value, rtol=1e-6)


class TestMultipliers:
    def test_multipliers_are_saved_with_the_model(self, tmp_path):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
        model.compile(PaperMomentum(0.1), "mse")
        model.optimizer.build(model.trainable_variables)
        model.optimizer.set_rate_multipliers({"bias": 2.0, "a/kernel": 0.0})
        model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.optimizer.rate_multipliers, [0.0, 2.0])
        for each in (model, loaded):
            each.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
        for ours, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, expected)

    @pytest.mark.parametrize(
        "multipliers, message",
        [
            ({"conv9": 1.0}, r"a trainable layer \(a\).*Received: 'conv9'"),
            ({"a/gamma": 1.0}, "Received: 'a/gamma'"),
            ({"a": -1.0}, "Received: 'a': -1.0"),
            ({"a": float("nan")}, "Received: 'a': nan"),
        ],
    )
    def test_invalid_multipliers_are_refused(self, multipliers, message):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
        optimizer = PaperMomentum()
        with pytest.raises(ValueError, match="must be built"):
            optimizer.set_rate_multipliers({})
        optimizer.build(model.trainable_variables)
        with pytest.raises(ValueError, match=message):
            optimizer.set_rate_multipliers(multipliers)


@pytest.mark.parametrize(
    "kind, name, value",
    [
        (PaperMomentum, "momentum", 1.0),
        (PaperMomentum, "momentum", -0.1),
        (PaperMomentum, "weight_decay", -1.0),
        (PaperMomentum, "reduce_dtype", "int8"),
        (Lars, "trust", 0),
    ],
)
def test_values_out_of_range_are_refused(kind, name, value):
    with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
        kind(**{name: value})


def test_decay_must_be_of_trainable_layers():
    with pytest.raises(ValueError, match=r"must name trainable layers. Received: c"):
        PaperMomentum(layer_decays={"c": 1.0}).build([keras.Variable(np.ones((2, 3)), name="kernel")])
