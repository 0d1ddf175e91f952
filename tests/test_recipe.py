"""The paper's update rule against float64 NumPy, and the learning rate's schedules."""

import itertools
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from alexnet_tf import callbacks, recipe, training
from alexnet_tf.model import build_alexnet, with_color_offset
from alexnet_tf.recipe import Lars, PaperMomentum, make_learning_rate, original_phase, scale_learning_rate


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

    def test_is_not_keras_own_weight_decay(self):
        # The difference that the class exists for: if this fails, keras.optimizers.SGD will do.
        ours, keras_own = (keras.Variable(np.ones((3, 3), "float32")) for _ in range(2))
        gradient = tf.ones((3, 3))
        a, b = PaperMomentum(0.1, decay=0.05), keras.optimizers.SGD(0.1, 0.9, weight_decay=0.05)
        for _ in range(12):
            a.apply([gradient], [ours])
            b.apply([gradient], [keras_own])
        assert np.abs(np.asarray(ours) - np.asarray(keras_own)).max() > 1e-3

    def test_goes_on_from_saved_variables(self):
        gradient = tf.constant([[1.0, -2.0]])
        whole = keras.Variable([[1.0, 2.0]])
        optimizer = PaperMomentum(0.1)
        for _ in range(4):
            optimizer.apply([gradient], [whole])
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
        np.testing.assert_array_equal(half, whole)

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

    def test_multipliers_survive_saving_and_loading_of_the_model(self, tmp_path):
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

    def test_multipliers_hold_under_a_mirrored_strategy(self):
        # In a process of its own: the number of a machine's logical devices is fixed when TensorFlow first looks.
        program = textwrap.dedent("""
            import keras, numpy as np, tensorflow as tf
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
            )
            from alexnet_tf.recipe import PaperMomentum
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
            ({"conv9": 1.0}, r"a layer that learns \(a\).*Received: 'conv9'"),
            ({"a/gamma": 1.0}, "Received: 'a/gamma'"),
            ({"a": -1.0}, "Received: 'a': -1.0"),
            ({"a": float("nan")}, "Received: 'a': nan"),
        ],
    )
    def test_multipliers_that_fit_nothing_are_refused(self, multipliers, message):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
        optimizer = PaperMomentum()
        with pytest.raises(ValueError, match="must be built"):
            optimizer.set_rate_multipliers({})
        optimizer.build(model.trainable_variables)
        with pytest.raises(ValueError, match=message):
            optimizer.set_rate_multipliers(multipliers)

    @pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"decay": -1.0}])
    def test_values_outside_their_range_are_refused(self, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"Received: {name}={value}"):
            PaperMomentum(**arguments)


class TestLars:
    @pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
    def test_hundred_steps_equal_its_formula_in_float64(self, mode):
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
            Lars(1.0, decay=0.0).apply([tf.fill((3, 3), size)], [variable])
            ends.append(np.asarray(variable))
        np.testing.assert_allclose(*ends, rtol=1e-6)
        np.testing.assert_allclose(ends[0], 1 - 0.001, rtol=1e-6)

    def test_trust_must_be_positive_and_is_saved(self):
        assert Lars.from_config(Lars(trust=0.02).get_config()).trust == 0.02
        with pytest.raises(ValueError, match="trust=0"):
            Lars(trust=0)


class TestScaleLearningRate:
    def test_linear_and_square_root(self):
        assert [scale_learning_rate(0.01, how, 512) for how in ("none", "linear", "sqrt")] == [0.01, 0.04, 0.02]
        with pytest.raises(ValueError, match="how='cube'"):
            scale_learning_rate(0.01, "cube", 512)


class TestMakeLearningRate:
    def test_poly_rises_to_the_rate_and_falls_to_zero_along_a_parabola(self):
        schedule = make_learning_rate("poly", 0.2, total_steps=110, warmup_steps=10)
        loaded = type(schedule).from_config(schedule.get_config())
        for each in (schedule, loaded):
            rates = [float(each(step)) for step in (0, 5, 10, 60, 110)]
            np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.05, 0], atol=1e-7)

    def test_cosine_rises_to_the_rate_and_falls_to_zero(self):
        schedule = make_learning_rate("cosine", 0.2, total_steps=100, warmup_steps=10)
        rates = np.array([float(schedule(step)) for step in range(101)])
        assert rates[0] == 0
        assert rates.argmax() == 10
        np.testing.assert_allclose(rates[10], 0.2, rtol=1e-6)
        np.testing.assert_allclose(rates[55], 0.1, rtol=1e-5)
        assert np.all(np.diff(rates[10:]) <= 0)
        assert abs(rates[100]) < 1e-8

    def test_step_divides_by_ten(self):
        schedule = make_learning_rate("step", 0.01, total_steps=100, steps_per_division=20)
        np.testing.assert_allclose([schedule(step) for step in (0, 19, 20, 39, 40)], [0.01, 0.01, 1e-3, 1e-3, 1e-4])

    @pytest.mark.parametrize("schedule, steps", [("step", None), ("constant", 5)])
    def test_step_without_its_length_and_length_without_step_are_refused(self, schedule, steps):
        with pytest.raises(ValueError, match=f"steps_per_division={steps}"):
            make_learning_rate(schedule, 0.01, 100, steps_per_division=steps)

    @pytest.mark.parametrize("schedule", ["plateau", "constant", "original"])
    def test_others_begin_with_the_rate_itself(self, schedule):
        assert make_learning_rate(schedule, 0.01, 100) == 0.01

    def test_unknown_schedule_is_refused(self):
        with pytest.raises(ValueError, match="schedule='stairs'"):
            make_learning_rate("stairs", 0.01, 100)

    def test_warm_up_without_cosine_is_refused(self):
        with pytest.raises(ValueError, match="warmup_steps"):
            make_learning_rate("plateau", 0.01, 100, warmup_steps=5)


def small_training(schedule_callbacks, optimizer, first_epoch, epochs, validation=None):
    """Trains the testing variant for some epochs of one step; returns its weights after each."""
    keras.utils.set_random_seed(0)
    model = build_alexnet("testing", 3, initializer="he_normal", input_scale=0.01)
    training_model = with_color_offset(model)
    training.compile_model(training_model, optimizer, jit=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3)).astype("uint8")
    labels = np.array([0, 1, 2, 0], "int32")
    batch = ({"image": images, "color_offset": np.zeros((4, 3), "float32")}, labels)
    history = []
    training.fit(
        training_model,
        lambda step, share: tf.data.Dataset.from_tensors(batch).repeat(),
        lambda share: tf.data.Dataset.from_tensors((images, labels)),
        first_epoch,
        1,
        epochs,
        [
            *schedule_callbacks,
            keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: history.append(model.get_weights())),
        ],
    )
    return [w.path for w in model.weights], history


class TestOriginalSchedule:
    def test_rates_are_those_of_the_notes(self):
        rates = {}
        for epoch in range(1, 91):
            phase = original_phase(epoch - 1)
            rates[epoch] = [
                0.01 * rate for rate in (phase.weights, phase.biases, phase.conv1_weights, phase.conv1_biases)
            ]
        changes = [epoch for epoch in range(2, 91) if rates[epoch] != rates[epoch - 1]]
        assert changes == [25, 51, 67, 72, 79]
        np.testing.assert_allclose(rates[1], [0.01, 0.02, 0.01, 0.02])
        np.testing.assert_allclose(rates[25], [1e-3, 0.02, 1e-3, 0.02])
        np.testing.assert_allclose(rates[66], [1e-4, 0.02, 1e-4, 0.02])
        np.testing.assert_allclose(rates[67], [1e-4, 0.02, 1e-5, 0.02])
        np.testing.assert_allclose(rates[72], [1e-4, 0.02, 0, 0])
        np.testing.assert_allclose(rates[90], [1e-5, 0.02, 0, 0])
        assert recipe.ORIGINAL_COLOR_NOISE_EPOCHS == 66

    def test_rates_are_set_wherever_the_run_begins(self):
        for first_epoch, weights, bias, conv1, conv1_bias in (
            (0, 0.01, 2, 1, 2),
            (66, 1e-4, 200, 0.1, 200),
            (78, 1e-5, 2000, 0, 0),
        ):
            optimizer = PaperMomentum(0.01)
            schedule = callbacks.FollowOriginalSchedule(optimizer, 0.01)
            paths, _ = small_training([schedule], optimizer, first_epoch, first_epoch + 1)
            np.testing.assert_allclose(optimizer.learning_rate, weights, rtol=1e-6)
            multipliers = dict(zip(paths[1:], np.asarray(optimizer.rate_multipliers), strict=True))
            for path, expected in (
                ("conv1/kernel_1", conv1),
                ("conv1/bias_2", conv1_bias),
                ("conv3/kernel_2", 1),
                ("fc6/bias_1", bias),
                ("fc8/bias", bias),
            ):
                np.testing.assert_allclose(multipliers[path], expected, rtol=1e-5, err_msg=path)

    def test_conv1_is_frozen_from_epoch_72(self):
        optimizer = PaperMomentum(0.01)
        paths, history = small_training([callbacks.FollowOriginalSchedule(optimizer, 0.01)], optimizer, 69, 73)
        conv1 = [[w for path, w in zip(paths, weights, strict=True) if "conv1" in path] for weights in history]
        changed = [not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(conv1)]
        assert changed == [True, False, False]  # epochs 71, 72, 73
        fc8 = [weights[-1] for weights in history]
        assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(fc8))


class TestDivideRateOnPlateau:
    def test_divides_by_ten_three_times_at_most(self):
        optimizer = PaperMomentum(0.01)
        plateau = callbacks.DivideRateOnPlateau(patience=2)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        plateau.set_model(model)
        rates = []
        for epoch, top1 in enumerate([0.1, 0.2, 0.2, 0.15, 0.3] + [0.3] * 8):
            plateau.on_epoch_end(epoch, {"val_top1": top1})
            rates.append(float(optimizer.learning_rate))
        expected = [0.01] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 5
        np.testing.assert_allclose(rates, expected, rtol=1e-5)


class TestCompileModel:
    def test_label_smoothing_equals_its_formula(self):
        model = with_color_offset(build_alexnet("testing", 4, initializer="he_normal", input_scale=0.01))
        training.compile_model(model, PaperMomentum(), jit=False, label_smoothing=0.1)
        images = np.random.default_rng(0).integers(0, 256, (5, 56, 56, 3)).astype("uint8")
        labels = np.array([0, 1, 2, 3, 1], "int32")
        inputs = {"image": images, "color_offset": np.zeros((5, 3), "float32")}
        loss = model.evaluate(inputs, labels, verbose=0, return_dict=True)["loss"]
        wanted = 0.9 * np.eye(4)[labels] + 0.1 / 4
        expected = -np.mean(np.sum(wanted * np.log(np.float64(model.predict(inputs, verbose=0))), axis=1))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    @pytest.mark.parametrize("label_smoothing", [-0.1, 1.0])
    def test_label_smoothing_outside_its_range_is_refused(self, label_smoothing):
        with pytest.raises(ValueError, match=f"label_smoothing={label_smoothing}"):
            training.compile_model(None, None, jit=False, label_smoothing=label_smoothing)
