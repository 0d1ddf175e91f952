"""The layers against float64 NumPy, in every mode in which a network may run them."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf

from alexnet_tf.layers import (
    ColumnDense,
    ColumnWise,
    GroupedConv2D,
    LocalResponseNormalization,
    MeanImage,
    PaperDropout,
    WithinMapNormalization,
)

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


class TestLocalResponseNormalization:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("maps, groups", [(1, 1), (3, 1), (7, 1), (96, 2), (12, 3)])
    def test_forward_and_gradient_equal_float64_for_any_number_of_maps(self, mode, maps, groups):
        x = activations((2, 3, 4, maps))
        output, (gradient,) = call(LocalResponseNormalization(groups=groups), tf.constant(x), mode)
        arguments = (2.0, 5, 1e-4, 0.75, groups)
        np.testing.assert_allclose(
            output, reference.local_response_normalization(np.float64(x), *arguments), rtol=1e-5, atol=1e-5
        )
        expected = reference.local_response_normalization_gradient(sines(x.shape), np.float64(x), *arguments)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)

    def test_other_hyperparameters_equal_float64(self):
        x = activations((2, 3, 4, 9))
        layer = LocalResponseNormalization(k=1.0, n=3, alpha=0.01, beta=0.6)
        output, (gradient,) = call(layer, tf.constant(x), "graph")
        arguments = (1.0, 3, 0.01, 0.6, 1)
        np.testing.assert_allclose(
            output, reference.local_response_normalization(np.float64(x), *arguments), rtol=1e-5, atol=1e-5
        )
        expected = reference.local_response_normalization_gradient(sines(x.shape), np.float64(x), *arguments)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)

    def test_alpha_divided_by_n_is_a_weaker_alpha(self):
        x = activations((1, 2, 2, 8), scale=300)
        divided = LocalResponseNormalization(alpha=1e-4, alpha_divided_by_n=True)(x)
        np.testing.assert_allclose(divided, LocalResponseNormalization(alpha=2e-5)(x), rtol=1e-6)
        assert not np.allclose(divided, LocalResponseNormalization(alpha=1e-4)(x), rtol=1e-2)

    def test_groups_do_not_see_each_other(self):
        x = activations((1, 1, 1, 8), scale=300)
        changed = x.copy()
        changed[..., 4:] *= 10
        layer = LocalResponseNormalization(groups=2)
        np.testing.assert_array_equal(layer(x)[..., :4], layer(changed)[..., :4])
        one_group = LocalResponseNormalization()
        assert not np.array_equal(one_group(x)[..., :4], one_group(changed)[..., :4])

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2)])
    def test_half_precision_computes_in_float32(self, mode, dtype, tolerance):
        # The square of 400 does not fit float16.
        x = tf.constant(np.full((1, 2, 2, 6), 400.0, "float32"), dtype)
        output, (gradient,) = call(LocalResponseNormalization(dtype=dtype), x, mode)
        assert output.dtype == x.dtype.as_numpy_dtype
        expected = reference.local_response_normalization(np.full(x.shape, 400.0), 2.0, 5, 1e-4, 0.75, 1)
        np.testing.assert_allclose(np.float64(output), expected, rtol=tolerance)
        assert np.all(np.isfinite(np.float64(gradient)))

    def test_agrees_with_tensorflows_kernel(self):
        x = activations((2, 5, 5, 16))
        expected = tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)
        np.testing.assert_allclose(LocalResponseNormalization()(x), expected, rtol=2e-6, atol=1e-6)

    @pytest.mark.parametrize("n", [0, 2, 4, -1])
    def test_even_or_empty_neighborhood_is_refused(self, n):
        with pytest.raises(ValueError, match=f"`n` must be odd.*n={n}"):
            LocalResponseNormalization(n=n)

    def test_maps_that_do_not_split_are_refused(self):
        with pytest.raises(ValueError, match=r"multiple of `groups`, 2.*7 maps"):
            LocalResponseNormalization(groups=2)(activations((1, 2, 2, 7)))


class TestWithinMapNormalization:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("shape, n", [((2, 7, 6, 3), 5), ((1, 2, 3, 1), 5), ((2, 4, 4, 2), 3), ((1, 3, 3, 2), 1)])
    def test_forward_and_gradient_equal_float64_at_the_edges_too(self, mode, shape, n):
        x = activations(shape)
        output, (gradient,) = call(WithinMapNormalization(n=n), tf.constant(x), mode)
        arguments = (1.0, n, 1e-3, 0.75)
        expected = reference.within_map_normalization(np.float64(x), *arguments)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
        expected = reference.within_map_normalization_gradient(sines(x.shape), np.float64(x), *arguments)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)

    def test_gradient_of_the_reference_is_that_of_its_differences(self):
        x, upstream, step = np.float64(activations((1, 4, 3, 2))), np.sin(np.arange(24.0)).reshape(1, 4, 3, 2), 1e-4
        gradient = reference.within_map_normalization_gradient(upstream, x, 1.0, 3, 1e-3, 0.75)
        for place in np.ndindex(x.shape):
            change = np.zeros_like(x)
            change[place] = step
            outputs = [reference.within_map_normalization(x + s * change, 1.0, 3, 1e-3, 0.75) for s in (1, -1)]
            assert abs(np.sum(upstream * (outputs[0] - outputs[1])) / (2 * step) - gradient[place]) < 1e-7

    def test_maps_do_not_see_each_other(self):
        x = activations((1, 4, 4, 2), scale=300)
        changed = x.copy()
        changed[..., 1] *= 10
        layer = WithinMapNormalization()
        np.testing.assert_array_equal(layer(x)[..., 0], layer(changed)[..., 0])

    @pytest.mark.parametrize("n", [0, 2])
    def test_even_or_empty_neighborhood_is_refused(self, n):
        with pytest.raises(ValueError, match=f"`n` must be odd.*n={n}"):
            WithinMapNormalization(n=n)


class TestGroupedConv2D:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("groups, sees", [(1, "own"), (2, "own"), (2, "all"), (3, "own")])
    @pytest.mark.parametrize("strides, padding", [(1, ((1, 1), (1, 1))), (2, ((0, 3), (0, 2)))])
    def test_forward_and_gradients_equal_float64(self, mode, groups, sees, strides, padding):
        x = activations((2, 9, 8, 6), scale=1)
        layer = GroupedConv2D(
            12, 3, strides=strides, padding=padding, groups=groups, sees=sees, bias_initializer="normal"
        )
        output, (d_x, *d_variables) = call(layer, tf.constant(x), mode)
        kernels = [np.float64(kernel) for kernel in layer.kernels]
        biases = [np.float64(bias) for bias in layer.biases]
        expected = reference.grouped_conv2d(np.float64(x), kernels, biases, strides, padding, sees)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
        assert layer.compute_output_shape(x.shape) == output.shape
        e_x, e_kernels, e_biases = reference.grouped_conv2d_gradients(
            sines(output.shape), np.float64(x), kernels, strides, padding, sees
        )
        np.testing.assert_allclose(d_x, e_x, rtol=1e-5, atol=1e-4)
        for ours, expected in zip(
            d_variables, [g for pair in zip(e_kernels, e_biases, strict=True) for g in pair], strict=True
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)

    def test_same_padding_equals_zeros_all_around(self):
        x = activations((2, 7, 7, 4), scale=1)
        same = GroupedConv2D(8, 5, padding="same")
        explicit = GroupedConv2D(8, 5, padding=((2, 2), (2, 2)))
        same(x), explicit(x)
        explicit.set_weights(same.get_weights())
        np.testing.assert_allclose(same(x), explicit(x), rtol=1e-5, atol=1e-5)
        assert same.compute_output_shape((None, 7, None, 4)) == (None, 7, None, 8)

    @pytest.mark.parametrize("sees", ["own", "all"])
    def test_one_tensor_for_each_group_equals_one_tensor(self, sees):
        x = activations((2, 6, 6, 4), scale=1)
        merged = GroupedConv2D(8, 3, sees=sees)
        apart = GroupedConv2D(8, 3, sees=sees, output_per_group=True)
        merged(x), apart([x[..., :2], x[..., 2:]])
        apart.set_weights(merged.get_weights())
        outputs = apart([x[..., :2], x[..., 2:]])
        assert [tuple(output.shape) for output in outputs] == [(2, 4, 4, 4)] * 2
        assert apart.compute_output_shape([(2, 6, 6, 2)] * 2) == [(2, 4, 4, 4)] * 2
        np.testing.assert_array_equal(np.concatenate(outputs, -1), merged(x))

    def test_without_bias_adds_none(self):
        x = activations((2, 6, 6, 4), scale=1)
        layer = GroupedConv2D(8, 3, use_bias=False)
        output = layer(x)
        assert len(layer.weights) == 2
        with_bias = GroupedConv2D(8, 3)
        with_bias(x)
        for kernel, value in zip(with_bias.kernels, layer.kernels, strict=True):
            kernel.assign(value)
        np.testing.assert_array_equal(output, with_bias(x))

    def test_groups_start_from_different_weights(self):
        layer = GroupedConv2D(8, 3, sees="all", kernel_initializer=keras.initializers.RandomNormal(seed=1))
        layer.build((None, 8, 8, 3))
        first, second = (np.asarray(kernel) for kernel in layer.kernels)
        assert not np.array_equal(first, second)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"filters": 7, "groups": 2}, "filters=7, groups=2"),
            ({"filters": 8, "sees": "both"}, "sees='both'"),
            ({"filters": 8, "padding": "full"}, "padding='full'"),
            ({"filters": 8, "padding": ((1, 2), 3)}, "padding="),
            ({"filters": 8, "devices": ["CPU:0"]}, "one device for each of the 2 groups"),
        ],
    )
    def test_arguments_that_do_not_fit_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            GroupedConv2D(kernel_size=3, **arguments)

    @pytest.mark.parametrize("shape", [(None, 8, 8, 3), [(None, 8, 8, 2)] * 3, [(None, 8, 8, 2), (None, 8, 8, 4)]])
    def test_channels_that_do_not_split_are_refused(self, shape):
        with pytest.raises(ValueError, match="input_shape="):
            GroupedConv2D(8, 3).build(shape)

    @pytest.mark.parametrize("layer", ["GroupedConv2D(8, 3, devices=devices)", "ColumnDense(8, devices=devices)"])
    def test_everything_of_a_group_runs_on_its_device(self, layer):
        # In a process of its own: the number of a machine's logical devices is fixed when TensorFlow first looks.
        program = textwrap.dedent(f"""
            import tensorflow as tf
            from tensorflow.core.protobuf import config_pb2
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
            )
            from alexnet_tf.layers import ColumnDense, GroupedConv2D
            devices = ["CPU:1", "CPU:2"]
            layer = {layer}
            x = tf.random.normal((2, 6, 6, 4)) if "Conv" in {layer!r} else tf.random.normal((2, 6))
            layer(x)
            for variable in layer.variables:
                print("variable", variable.name, variable.value.device[-1])
            @tf.function
            def step(x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    loss = tf.reduce_sum(layer(x) ** 2)
                return tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])
            options = config_pb2.RunOptions(output_partition_graphs=True)
            metadata = config_pb2.RunMetadata()
            concrete = step.get_concrete_function(x)
            from tensorflow.python.eager import context
            context.enable_run_metadata()
            concrete(x)
            for graph in context.export_run_metadata().partition_graphs:
                for node in graph.node:
                    if "Conv2D" in node.op or "MatMul" in node.op:
                        print("op", node.op, node.device[-1])
        """)
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        lines = [line.split() for line in result.stdout.splitlines()]
        variables = {(name, device) for kind, name, device in lines if kind == "variable"}
        assert variables == {("kernel_1", "1"), ("bias_1", "1"), ("kernel_2", "2"), ("bias_2", "2")}
        operations = [(name, device) for kind, name, device in lines if kind == "op"]
        on_first = sorted(name for name, device in operations if device == "1")
        on_second = sorted(name for name, device in operations if device == "2")
        assert len(on_first) >= 3, operations  # forward, gradient of the input, gradient of the kernel
        assert on_first == on_second
        assert len(on_first) + len(on_second) == len(operations)


class TestColumnDense:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_forward_and_gradients_equal_float64(self, mode, groups):
        x = activations((3, 5), scale=1)
        layer = ColumnDense(8, groups=groups, bias_initializer="normal")
        output, (d_x, *d_variables) = call(layer, tf.constant(x), mode)
        kernel = np.concatenate([np.float64(kernel) for kernel in layer.kernels], axis=1)
        bias = np.concatenate([np.float64(bias) for bias in layer.biases])
        np.testing.assert_allclose(output, x @ kernel + bias, rtol=1e-5, atol=1e-5)
        upstream = sines(output.shape)
        np.testing.assert_allclose(d_x, upstream @ kernel.T, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.concatenate(d_variables[0::2], 1), x.T @ upstream, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.concatenate(d_variables[1::2]), upstream.sum(0), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("mode", MODES)
    def test_column_that_sees_its_own_channels_equals_float64(self, mode):
        x = activations((3, 2, 2, 4), scale=1)
        layer = ColumnDense(6, groups=2, sees="own", bias_initializer="normal")
        output, (d_x, *d_variables) = call(layer, tf.constant(x), mode)
        upstream = sines(output.shape)
        expected_d_x = np.zeros_like(x)
        for column in range(2):
            mine, units = slice(2 * column, 2 * column + 2), slice(3 * column, 3 * column + 3)
            flat = np.float64(x[..., mine]).reshape(3, 8)  # rows, columns, channels of the column
            kernel, bias = np.float64(layer.kernels[column]), np.float64(layer.biases[column])
            np.testing.assert_allclose(output[:, units], flat @ kernel + bias, rtol=1e-5, atol=1e-5)
            expected_d_x[..., mine] = (upstream[:, units] @ kernel.T).reshape(3, 2, 2, 2)
            np.testing.assert_allclose(d_variables[2 * column], flat.T @ upstream[:, units], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(d_x, expected_d_x, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("sees", ["own", "all"])
    def test_one_tensor_for_each_group_equals_one_tensor(self, sees):
        x = activations((3, 2, 2, 4), scale=1)
        layer = ColumnDense(6, sees=sees)
        merged = layer(x)
        assert layer.compute_output_shape(x.shape) == (3, 6)
        np.testing.assert_array_equal(layer([x[..., :2], x[..., 2:]]), merged)
        apart = ColumnDense(6, sees=sees, output_per_group=True)
        apart(x)
        apart.set_weights(layer.get_weights())
        np.testing.assert_array_equal(np.concatenate(apart([x[..., :2], x[..., 2:]]), axis=1), merged)
        assert apart.compute_output_shape([(3, 2, 2, 2)] * 2) == [(3, 3)] * 2

    def test_flattens_as_keras_does(self):
        x = activations((3, 2, 2, 4), scale=1)
        layer = ColumnDense(6)
        np.testing.assert_array_equal(layer(x), layer(keras.layers.Flatten()(x)))

    def test_units_that_do_not_split_are_refused(self):
        with pytest.raises(ValueError, match="units=7, groups=2"):
            ColumnDense(7)


class TestPaperDropout:
    def test_training_zeroes_and_does_not_rescale(self):
        output = np.asarray(PaperDropout(0.3, seed=1)(np.full((200, 200), 3.0, "float32"), training=True))
        assert set(np.unique(output)) == {0.0, 3.0}
        assert abs(np.mean(output == 0) - 0.3) < 0.01

    def test_inference_multiplies_by_what_is_kept(self):
        np.testing.assert_allclose(PaperDropout(0.3)(np.full((2, 2), 3.0, "float32"), training=False), 2.1, rtol=1e-6)

    def test_masks_differ_from_step_to_step_and_follow_the_seed(self):
        x = np.ones((1, 1000), "float32")
        first, again = PaperDropout(seed=5), PaperDropout(seed=5)
        a, b = np.asarray(first(x, training=True)), np.asarray(first(x, training=True))
        assert not np.array_equal(a, b)
        np.testing.assert_array_equal(a, again(x, training=True))

    @pytest.mark.parametrize("mode", MODES)
    def test_gradient_passes_where_the_unit_was_kept(self, mode):
        x = tf.ones((4, 50))
        output, (gradient,) = call(PaperDropout(), x, mode, training=True)
        np.testing.assert_allclose(gradient, output * sines(output.shape), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
    def test_rate_outside_its_range_is_refused(self, rate):
        with pytest.raises(ValueError, match=f"rate={rate}"):
            PaperDropout(rate)

    def test_columns_draw_the_same_masks_together_and_apart(self):
        x = activations((4, 10))
        together, apart = PaperDropout(seed=3, groups=2), PaperDropout(seed=3, groups=2)
        expected = np.asarray(together(x, training=True))
        outputs = apart([x[:, :5], x[:, 5:]], training=True)
        np.testing.assert_array_equal(np.concatenate(outputs, axis=1), expected)
        assert not np.array_equal(expected[:, :5] == 0, expected[:, 5:] == 0)
        np.testing.assert_array_equal(np.concatenate(apart([x[:, :5], x[:, 5:]]), 1), together(x))


class TestColumnWise:
    def test_applies_the_layer_to_each_column(self):
        columns = [activations((1, 5, 5, 2), seed) for seed in (0, 1)]
        layer = ColumnWise(keras.layers.MaxPooling2D(3, 2), devices=["CPU:0", "CPU:0"])
        for output, x in zip(layer(columns), columns, strict=True):
            np.testing.assert_array_equal(output, keras.layers.MaxPooling2D(3, 2)(x))
        assert layer.compute_output_shape([(None, 5, 5, 2)] * 2) == [(None, 2, 2, 2)] * 2

    def test_layer_with_weights_is_refused(self):
        with pytest.raises(ValueError, match="must have no weights"):
            ColumnWise(keras.layers.Dense(3))([np.ones((1, 2)), np.ones((1, 2))])


class TestMeanImage:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_subtracts_the_middle_of_the_mean_image_and_scales(self, dtype):
        layer = MeanImage(scale=0.5)
        pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(dtype)
        mean = np.random.default_rng(1).uniform(0, 255, (8, 6, 3)).astype("float32")
        layer.build(pixels.shape)
        layer.set_mean_image(mean)
        np.testing.assert_allclose(layer(pixels), (np.float32(pixels) - mean[2:6, 1:5]) * 0.5, rtol=1e-6)

    def test_color_offset_is_added_in_training_only(self):
        layer = MeanImage()
        pixels = np.full((2, 4, 4, 3), 100, "uint8")
        offset = np.float32([[1, 2, 3], [-200, 0, 200]])
        training = np.asarray(layer(pixels, offset, training=True))
        np.testing.assert_array_equal(training[:, 0, 0], [[101, 102, 103], [-100, 100, 300]])
        np.testing.assert_array_equal(layer(pixels, offset, training=False), np.float32(pixels))

    def test_images_with_color_noise_are_divided_in_training_only(self):
        layer = MeanImage(noise_divisor=1.1)
        pixels = np.full((2, 4, 4, 3), 100, "uint8")
        offset = np.float32([[10, 0, -1], [0, 0, 0]])
        training = np.asarray(layer(pixels, offset, training=True))
        np.testing.assert_allclose(training[:, 0, 0], [[100, 100 / 1.1, 90], [100, 100, 100]], rtol=1e-6)
        np.testing.assert_array_equal(layer(pixels, offset, training=False), np.float32(pixels))
        np.testing.assert_array_equal(layer(pixels, training=True), np.float32(pixels))

    def test_scale_may_differ_between_red_green_and_blue(self):
        pixels = np.full((1, 2, 2, 3), 60, "uint8")
        np.testing.assert_allclose(MeanImage(scale=(0.5, 0.1, 1))(pixels)[0, 0, 0], [30, 6, 60], rtol=1e-6)

    def test_mean_is_no_trainable_weight(self):
        layer = MeanImage()
        layer.build((None, 4, 4, 3))
        assert not layer.trainable_variables
        assert len(layer.weights) == 1

    def test_half_precision_subtracts_in_float32(self):
        layer = MeanImage(dtype="mixed_bfloat16")
        pixels = np.full((1, 2, 2, 3), 254.75, "float32")  # bfloat16 would make 255 of it
        layer.build(pixels.shape)
        layer.set_mean_image(np.full((2, 2, 3), 254.25))
        output = layer(pixels)
        assert output.dtype == tf.bfloat16
        np.testing.assert_array_equal(np.float32(output), 0.5)

    @pytest.mark.parametrize("shape", [(3, 4, 3), (4, 4, 1), (4, 4)])
    def test_mean_image_that_does_not_cover_the_images_is_refused(self, shape):
        layer = MeanImage()
        layer.build((None, 4, 4, 3))
        with pytest.raises(ValueError, match=r"at least 4 x 4 x 3.*Received"):
            layer.set_mean_image(np.zeros(shape))


@pytest.mark.parametrize(
    "layer",
    [
        LocalResponseNormalization(k=1.0, n=3, alpha=0.1, beta=0.5, alpha_divided_by_n=True, groups=2),
        GroupedConv2D(8, 3, strides=2, padding=((0, 1), (0, 1)), sees="all", kernel_initializer="he_normal"),
        GroupedConv2D(8, 3, devices=["CPU:0", "CPU:0"]),
        GroupedConv2D(8, 3, use_bias=False),
        ColumnDense(8, sees="own"),
        PaperDropout(0.25),
        MeanImage(scale=0.1),
        WithinMapNormalization(k=2.0, n=3, alpha=0.1, beta=0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_saved_layer_gives_the_same_output_when_loaded(layer, tmp_path):
    x = np.random.default_rng(0).uniform(0, 255, (2, 9, 9, 6)).astype("float32")
    image = keras.Input((9, 9, 6))
    model = keras.Model(image, layer(image))
    model.set_weights([np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(model.get_weights())])
    model.save(tmp_path / "model.keras")
    # In a fresh process, which finds the layers by the names they are registered under.
    loading = (
        "import sys, keras, numpy as np, alexnet_tf.layers;"
        "model = keras.models.load_model(sys.argv[1]);"
        "np.save(sys.argv[2], model(np.load(sys.argv[3])));"
        "assert 'alexnet_tf>' in keras.saving.get_registered_name(type(model.layers[1]))"
    )
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", loading, *(str(tmp_path / name) for name in ("model.keras", "y.npy", "x.npy"))]
    subprocess.run(command, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x), rtol=1e-6, atol=1e-6)
