"""The layers with columns against float64 NumPy."""

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf
from layer_calls import MODES, activations, call, sines

from alexnet_tf.layers import ColumnDense, ColumnWise, GroupedConv2D, column_dense


class TestGroupedConv2D:
    @pytest.mark.parametrize(
        "mode, groups, input_columns",
        [
            *(("eager", *case) for case in [(1, "own"), (2, "own"), (2, "all"), (3, "own")]),
            *((mode, 2, input_columns) for mode in ("graph", "xla") for input_columns in ("own", "all")),
        ],
    )
    @pytest.mark.parametrize("strides, padding", [(1, ((1, 1), (1, 1))), (2, ((0, 3), (0, 2)))])
    def test_forward_and_gradients_equal_float64(self, mode, groups, input_columns, strides, padding):
        x = activations((2, 9, 8, 6), scale=1)
        layer = GroupedConv2D(
            12, 3, strides, padding, groups=groups, input_columns=input_columns, bias_initializer="normal"
        )
        output, (d_x, *d_variables) = call(layer, tf.constant(x), mode)
        kernels = [np.float64(kernel) for kernel in layer.kernels]
        biases = [np.float64(bias) for bias in layer.biases]
        expected = reference.grouped_conv2d(np.float64(x), kernels, biases, strides, padding, input_columns)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
        assert layer.compute_output_shape(x.shape) == output.shape
        e_x, e_kernels, e_biases = reference.grouped_conv2d_gradients(
            sines(output.shape), np.float64(x), kernels, strides, padding, input_columns
        )
        np.testing.assert_allclose(d_x, e_x, rtol=1e-5, atol=1e-4)
        for ours, expected in zip(
            d_variables, [g for pair in zip(e_kernels, e_biases, strict=True) for g in pair], strict=True
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)

    def test_same_padding_equals_explicit_zeros(self):
        x = activations((2, 7, 7, 4), scale=1)
        same = GroupedConv2D(8, 5, padding="same")
        explicit = GroupedConv2D(8, 5, padding=((2, 2), (2, 2)))
        same(x), explicit(x)
        explicit.set_weights(same.get_weights())
        np.testing.assert_allclose(same(x), explicit(x), rtol=1e-5, atol=1e-5)
        assert same.compute_output_shape((None, 7, None, 4)) == (None, 7, None, 8)
        strided = GroupedConv2D(8, 5, strides=2, padding="same")
        assert strided.compute_output_shape(x.shape) == strided(x).shape == (2, 4, 4, 8)

    @pytest.mark.parametrize("input_columns", ["own", "all"])
    def test_separate_tensors_equal_one_tensor(self, input_columns):
        x = activations((2, 6, 6, 4), scale=1)
        merged = GroupedConv2D(8, 3, input_columns=input_columns)
        apart = GroupedConv2D(8, 3, input_columns=input_columns, output_per_group=True)
        merged(x), apart([x[..., :2], x[..., 2:]])
        apart.set_weights(merged.get_weights())
        outputs = apart([x[..., :2], x[..., 2:]])
        assert [tuple(output.shape) for output in outputs] == [(2, 4, 4, 4)] * 2
        assert apart.compute_output_shape([(2, 6, 6, 2)] * 2) == [(2, 4, 4, 4)] * 2
        np.testing.assert_array_equal(np.concatenate(outputs, -1), merged(x))

    def test_use_bias(self):
        x = activations((2, 6, 6, 4), scale=1)
        layer = GroupedConv2D(8, 3, use_bias=False)
        output = layer(x)
        assert len(layer.weights) == 2
        with_bias = GroupedConv2D(8, 3)
        with_bias(x)
        for kernel, value in zip(with_bias.kernels, layer.kernels, strict=True):
            kernel.assign(value)
        np.testing.assert_array_equal(output, with_bias(x))

    def test_initial_weights_do_not_depend_on_the_groups(self):
        uniform = keras.initializers.RandomUniform(-1, 1, seed=1)
        one, two = (
            GroupedConv2D(8, 3, 1, "valid", groups, "all", kernel_initializer=uniform, bias_initializer=uniform)
            for groups in (1, 2)
        )
        for layer in (one, two):
            layer.build((None, 8, 8, 3))
        for whole, parts in ((one.kernels, two.kernels), (one.biases, two.biases)):
            np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole[0])
            assert not np.array_equal(*parts)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"filters": 7, "groups": 2}, "filters=7, groups=2"),
            ({"filters": 8, "input_columns": "both"}, "input_columns='both'"),
            ({"filters": 8, "padding": "full"}, "padding='full'"),
            ({"filters": 8, "padding": ((1, 2), 3)}, "padding="),
            ({"filters": 8, "devices": ["CPU:0"]}, "one device for each of the 2 groups"),
            ({"filters": 8, "groups": 0}, "filters=8, groups=0"),
        ],
    )
    def test_invalid_arguments_raise(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            GroupedConv2D(kernel_size=3, **arguments)

    @pytest.mark.parametrize("shape", [(None, 8, 8, 3), [(None, 8, 8, 2)] * 3, [(None, 8, 8, 2), (None, 8, 8, 4)]])
    def test_invalid_channels_raise(self, shape):
        with pytest.raises(ValueError, match="input_shape="):
            GroupedConv2D(8, 3).build(shape)


class TestColumnDense:
    @pytest.mark.parametrize("mode, groups", [("eager", 1), ("eager", 4), *((mode, 2) for mode in MODES)])
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
    def test_own_columns_equal_float64(self, mode):
        x = activations((3, 2, 2, 4), scale=1)
        layer = ColumnDense(6, groups=2, input_columns="own", bias_initializer="normal")
        output, (d_x, *d_variables) = call(layer, tf.constant(x), mode)
        upstream = sines(output.shape)
        expected_d_x = np.zeros_like(x)
        for column in range(2):
            channels, units = slice(2 * column, 2 * column + 2), slice(3 * column, 3 * column + 3)
            flat = np.float64(x[..., channels]).reshape(3, 8)  # rows, columns, channels of the column
            kernel, bias = np.float64(layer.kernels[column]), np.float64(layer.biases[column])
            np.testing.assert_allclose(output[:, units], flat @ kernel + bias, rtol=1e-5, atol=1e-5)
            expected_d_x[..., channels] = (upstream[:, units] @ kernel.T).reshape(3, 2, 2, 2)
            np.testing.assert_allclose(d_variables[2 * column], flat.T @ upstream[:, units], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(d_x, expected_d_x, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("input_columns", ["own", "all"])
    def test_separate_tensors_equal_one_tensor(self, input_columns):
        x = activations((3, 2, 2, 4), scale=1)
        layer = ColumnDense(6, input_columns=input_columns)
        merged = layer(x)
        assert layer.compute_output_shape(x.shape) == (3, 6)
        np.testing.assert_array_equal(layer([x[..., :2], x[..., 2:]]), merged)
        apart = ColumnDense(6, input_columns=input_columns, output_per_group=True)
        apart(x)
        apart.set_weights(layer.get_weights())
        np.testing.assert_array_equal(np.concatenate(apart([x[..., :2], x[..., 2:]]), axis=1), merged)
        assert apart.compute_output_shape([(3, 2, 2, 2)] * 2) == [(3, 3)] * 2

    def test_flattens_like_keras(self):
        x = activations((3, 2, 2, 4), scale=1)
        layer = ColumnDense(6)
        np.testing.assert_array_equal(layer(x), layer(keras.layers.Flatten()(x)))

    def test_invalid_units_raise(self):
        with pytest.raises(ValueError, match="units=7, groups=2"):
            ColumnDense(7)


class TestColumnWise:
    def test_layer_is_applied_to_each_column(self):
        columns = [activations((1, 5, 5, 2), seed) for seed in (0, 1)]
        layer = ColumnWise(keras.layers.MaxPooling2D(3, 2), devices=["CPU:0", "CPU:0"])
        for output, x in zip(layer(columns), columns, strict=True):
            np.testing.assert_array_equal(output, keras.layers.MaxPooling2D(3, 2)(x))
        assert layer.compute_output_shape([(None, 5, 5, 2)] * 2) == [(None, 2, 2, 2)] * 2

    def test_layer_with_weights_raises(self):
        with pytest.raises(ValueError, match="must have no weights"):
            ColumnWise(keras.layers.Dense(3))([np.ones((1, 2)), np.ones((1, 2))])


@pytest.mark.parametrize(
    "images, dtype", [(column_dense._FEW_IMAGES, "float32"), (column_dense._FEW_IMAGES + 1, "bfloat16")]
)
def test_gradient_of_few_images_is_computed_in_float32(images, dtype):
    assert column_dense._gradient_dtype(keras.ops.zeros((images, 2), "bfloat16")) == dtype
    assert column_dense._gradient_dtype(keras.ops.zeros((images, 2), "float32")) == "float32"
