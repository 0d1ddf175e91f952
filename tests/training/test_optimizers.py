"""The paper's update rule against float64 NumPy."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf.training.optimizers import Lars, PaperMomentum


class TestPaperMomentum:
    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_hundred_steps_equal_float64_with_decay_on_weights_only(self, mode):
        random = np.random.default_rng(0)
        kernel, bias = random.normal(scale=0.1, size=(7, 5)), random.normal(scale=0.1, size=5)
        variables = [keras.Variable(np.float32(kernel)), keras.Variable(np.float32(bias))]
        optimizer = PaperMomentum(learning_rate=0.01)
        optimizer.build(variables)

        def step(d_kernel, d_bias):
            optimizer.apply([d_kernel, d_bias], variables)

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "xla")
        expected = [kernel, bias]
        velocity = [np.zeros_like(kernel), np.zeros_like(bias)]
        for _ in range(100):
            gradients = [random.normal(scale=0.1, size=shape) for shape in ((7, 5), 5)]
            step(*(tf.constant(g, "float32") for g in gradients))
            for i, decay in enumerate((0.0005, 0.0)):
                velocity[i] = 0.9 * velocity[i] - decay * 0.01 * expected[i] - 0.01 * gradients[i]
                expected[i] = expected[i] + velocity[i]
        np.testing.assert_allclose(variables[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(variables[1], expected[1], atol=1e-6)
        assert int(optimizer.iterations) == 100

    def test_weight_decay_differs_from_keras_sgd(self):
        # If this fails, keras.optimizers.SGD can replace the class.
        ours, keras_own = (keras.Variable(np.ones((3, 3), "float32")) for _ in range(2))
        gradient = tf.ones((3, 3))
        a, b = PaperMomentum(0.1, weight_decay=0.05), keras.optimizers.SGD(0.1, 0.9, weight_decay=0.05)
        for _ in range(12):
            a.apply([gradient], [ours])
            b.apply([gradient], [keras_own])
        assert np.abs(np.asarray(ours) - np.asarray(keras_own)).max() > 1e-3

    @pytest.mark.parametrize("kind", [PaperMomentum, Lars])
    @pytest.mark.parametrize("decay", [0.05, None])
    def test_weight_decay_applies_once_and_only_to_weights(self, kind, decay):
        kernel, bias = keras.Variable(np.full((2, 3), 2.0), name="kernel"), keras.Variable(np.full(3, 2.0), name="bias")
        excluded = keras.Variable(np.full((2, 3), 2.0), name="excluded")
        optimizer = kind.from_config(kind(0.1, 0.9, decay).get_config())
        optimizer.exclude_from_weight_decay(var_names=["excluded"])
        for _ in range(3):
            optimizer.apply(
                [tf.ones(variable.shape) for variable in (kernel, bias, excluded)], [kernel, bias, excluded]
            )
        for variable, decayed in ((kernel, decay or 0.0), (bias, 0.0), (excluded, 0.0)):
            expected, velocity = np.full(variable.shape, 2.0), 0.0
            for _ in range(3):
                local = 1.0
                if kind is Lars and variable is not bias:
                    local = 0.001 * np.linalg.norm(expected) / (np.sqrt(6) + decayed * np.linalg.norm(expected))
                velocity = 0.9 * velocity - 0.1 * local * (1 + decayed * expected)
                expected = expected + velocity
            np.testing.assert_allclose(variable, expected, rtol=1e-6, err_msg=variable.name)

    def test_decay_of_biases_is_pytorchs_rule(self):
        torch = pytest.importorskip("torch")
        random = np.random.default_rng(0)
        start = [np.float32(random.normal(size=shape)) for shape in ((4, 3), 3)]
        ours = [keras.Variable(value) for value in start]
        theirs = [torch.tensor(value, requires_grad=True) for value in start]
        optimizer = PaperMomentum(0.01, weight_decay=0.1, decay_biases=True)
        optimizer = PaperMomentum.from_config(optimizer.get_config())
        reference = torch.optim.SGD(theirs, lr=0.01, momentum=0.9, weight_decay=0.1)
        for _ in range(30):
            gradients = [np.float32(random.normal(size=value.shape)) for value in start]
            optimizer.apply([tf.constant(each) for each in gradients], ours)
            for variable, gradient in zip(theirs, gradients, strict=True):
                variable.grad = torch.tensor(gradient)
            reference.step()
        for variable, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(variable, expected.detach(), rtol=1e-5, atol=1e-6)

    def test_layers_have_their_own_decay(self):
        layers = [keras.layers.Dense(2, name=name, kernel_initializer="ones") for name in ("a", "b")]
        for layer in layers:
            layer.build((None, 3))
        optimizer = PaperMomentum(1.0, weight_decay=0.5, layer_decays={"a": 0.0, "b": 0.5})
        variables = [variable for layer in layers for variable in layer.trainable_variables]
        optimizer.apply([tf.zeros(variable.shape) for variable in variables], variables)
        np.testing.assert_allclose(layers[0].kernel, 1)
        np.testing.assert_allclose(layers[1].kernel, 0.75)
        with pytest.raises(ValueError, match=r"must name trainable layers. Received: c"):
            PaperMomentum(layer_decays={"c": 1.0}).build(variables)

    def test_resumes_from_saved_variables(self):
        gradient = tf.constant([[1.0, -2.0]])
        uninterrupted = keras.Variable([[1.0, 2.0]])
        optimizer = PaperMomentum(0.1)
        for _ in range(4):
            optimizer.apply([gradient], [uninterrupted])
        half = keras.Variable([[1.0, 2.0]])
        first = PaperMomentum(0.1)
        for _ in range(2):
            first.apply([gradient], [half])
        second = PaperMomentum.from_config(first.get_config())
        second.build([half])
        for new, old in zip(second.variables, first.variables, strict=True):
            new.assign(old)
        for _ in range(2):
            second.apply([gradient], [half])
        np.testing.assert_array_equal(half, uninterrupted)

    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_multipliers_changed_in_the_middle_equal_float64_and_zero_freezes(self, mode):
        random = np.random.default_rng(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])
        optimizer = PaperMomentum(learning_rate=0.01)
        optimizer.build(model.trainable_variables)
        step = tf.function(lambda *gradients: optimizer.apply(gradients, model.trainable_variables))
        if mode != "graph":
            step = (
                tf.function(step, jit_compile=True) if mode == "xla" else lambda *gradients: optimizer.apply(gradients)
            )
        expected = [np.float64(w) for w in model.get_weights()]
        velocity = [np.zeros_like(w) for w in expected]
        phases = [
            ({}, [1, 1, 1, 1]),
            ({"bias": 2.0}, [1, 2, 1, 2]),
            ({"bias": 2.0, "a": 0.1, "b/kernel": 3.0}, [0.1, 0.2, 3, 2]),
            ({"a": 0.0}, [0, 0, 1, 1]),
            ({"a": 1.0}, [1, 1, 1, 1]),
        ]
        for multipliers, per_variable in phases:
            optimizer.set_rate_multipliers(multipliers)
            before = model.get_weights()
            for _ in range(20):
                gradients = [random.normal(scale=0.1, size=w.shape) for w in expected]
                step(*(tf.constant(g, "float32") for g in gradients))
                for i, multiplier in enumerate(per_variable):
                    decay, rate = (0.0005 if expected[i].ndim > 1 else 0.0), 0.01 * multiplier
                    velocity[i] = 0.9 * velocity[i] - decay * rate * expected[i] - rate * gradients[i]
                    velocity[i] *= multiplier > 0
                    expected[i] = expected[i] + velocity[i]
            for i, (weight, value) in enumerate(zip(model.get_weights(), expected, strict=True)):
                np.testing.assert_allclose(weight, value, atol=1e-6)
                assert np.array_equal(weight, before[i]) == (per_variable[i] == 0)

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

    @pytest.mark.slow
    def test_multipliers_work_with_a_mirrored_strategy(self):
        # In a new process, because TensorFlow fixes the number of logical devices when it starts.
        program = textwrap.dedent("""
            import keras, numpy as np, tensorflow as tf
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
            )
            from alexnet_tf.training.optimizers import PaperMomentum
            weights = []
            for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
                with strategy.scope():
                    keras.utils.set_random_seed(1)
                    layers = [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")]
                    model = keras.Sequential(layers)
                    model.compile(PaperMomentum(0.1), "mse")
                    model.optimizer.build(model.trainable_variables)
                first = model.get_weights()
                x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
                for multipliers in ({"bias": 2.0}, {"a": 0.0, "b/kernel": 0.5}):
                    model.optimizer.set_rate_multipliers(multipliers)
                    frozen = model.get_weights()[:2]
                    model.fit(x, x[:, :2], batch_size=8, shuffle=False, verbose=0)
                for now, before in zip(model.get_weights()[:2], frozen):
                    np.testing.assert_array_equal(now, before)
                weights.append(model.get_weights())
            for one, mirrored in zip(*weights):
                np.testing.assert_allclose(mirrored, one, atol=1e-6)
            print("equal")
        """)
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert result.stdout.split()[-1:] == ["equal"], result.stderr

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

    @pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}])
    def test_values_out_of_range_are_refused(self, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"Received: {name}={value}"):
            PaperMomentum(**arguments)


class TestLars:
    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_hundred_steps_equal_float64(self, mode):
        random = np.random.default_rng(0)
        expected = [random.normal(scale=0.1, size=(7, 5)), random.normal(scale=0.1, size=5), np.zeros((3, 4))]
        variables = [keras.Variable(np.float32(value)) for value in expected]
        optimizer = Lars(learning_rate=8.0, trust=0.01)
        optimizer.build(variables)

        def step(*gradients):
            optimizer.apply(gradients, variables)

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "xla")
        velocity = [np.zeros_like(value) for value in expected]
        for _ in range(100):
            gradients = [random.normal(scale=0.01, size=value.shape) for value in expected]
            step(*(tf.constant(g, "float32") for g in gradients))
            for i, (w, g) in enumerate(zip(expected, gradients, strict=True)):
                decay, local = (0.0005, 1.0) if w.ndim > 1 else (0.0, 1.0)
                if w.ndim > 1 and np.linalg.norm(w) > 0:
                    local = 0.01 * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
                velocity[i] = 0.9 * velocity[i] - 8.0 * local * (g + decay * w)
                expected[i] = w + velocity[i]
        for variable, value in zip(variables, expected, strict=True):
            np.testing.assert_allclose(variable, value, rtol=0, atol=2e-5 * np.abs(value).max())

    def test_step_does_not_depend_on_the_size_of_the_gradient(self):
        ends = []
        for size in (1e-3, 1e3):
            variable = keras.Variable(np.ones((3, 3), "float32"))
            Lars(1.0, weight_decay=0.0).apply([tf.fill((3, 3), size)], [variable])
            ends.append(np.asarray(variable))
        np.testing.assert_allclose(*ends, rtol=1e-6)
        np.testing.assert_allclose(ends[0], 1 - 0.001, rtol=1e-6)

    def test_biases_have_a_local_rate_if_they_are_scaled(self):
        for scale_biases, step in ((False, 3.0), (True, 0.001 * 2)):
            bias = keras.Variable(np.full(4, 2.0, "float32"))
            optimizer = Lars(1.0, 0.0, weight_decay=0.0, trust=0.001, scale_biases=scale_biases)
            optimizer.apply([tf.fill([4], 3.0)], [bias])
            np.testing.assert_allclose(bias, 2 - step, rtol=1e-6)

    def test_trust_is_positive_and_saved(self):
        assert Lars.from_config(Lars(trust=0.02).get_config()).trust == 0.02
        with pytest.raises(ValueError, match="trust=0"):
            Lars(trust=0)
