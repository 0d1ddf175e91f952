"""Local response normalization, across and within feature maps, against float64 NumPy."""

import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf
from layer_calls import MODES, activations, call, sines

from alexnet_tf.layers import LocalResponseNormalization, WithinMapNormalization


class TestLocalResponseNormalization:
    @pytest.mark.parametrize(
        "mode, maps, arguments",
        [
            *(("eager", maps, (2.0, 5, 1e-4, 0.75, groups)) for maps, groups in [(1, 1), (3, 1), (7, 1), (12, 3)]),
            *((mode, 96, (2.0, 5, 1e-4, 0.75, 2)) for mode in MODES),
            *((mode, 9, (1.0, 3, 0.01, 0.6, 1)) for mode in MODES),
        ],
    )
    def test_forward_and_gradient_equal_float64(self, mode, maps, arguments):
        x = activations((2, 3, 4, maps))
        k, n, alpha, beta, groups = arguments
        layer = LocalResponseNormalization(k, n, alpha, beta, groups=groups)
        output, (gradient,) = call(layer, tf.constant(x), mode)
        expected = reference.local_response_normalization(np.float64(x), *arguments)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
        expected = reference.local_response_normalization_gradient(sines(x.shape), np.float64(x), *arguments)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)

    def test_alpha_divided_by_n_is_a_weaker_alpha(self):
        x = activations((1, 2, 2, 8), scale=300)
        divided = LocalResponseNormalization(alpha=1e-4, alpha_divided_by_n=True)(x)
        np.testing.assert_allclose(divided, LocalResponseNormalization(alpha=2e-5)(x), rtol=1e-6)
        assert not np.allclose(divided, LocalResponseNormalization(alpha=1e-4)(x), rtol=1e-2)

    def test_groups_do_not_affect_each_other(self):
        x = activations((1, 1, 1, 8), scale=300)
        changed = x.copy()
        changed[..., 4:] *= 10
        layer = LocalResponseNormalization(groups=2)
        np.testing.assert_array_equal(layer(x)[..., :4], layer(changed)[..., :4])
        one_group = LocalResponseNormalization()
        assert not np.array_equal(one_group(x)[..., :4], one_group(changed)[..., :4])

    def test_separate_tensors_equal_one_tensor(self):
        x = activations((2, 3, 3, 8), scale=300)
        layer = LocalResponseNormalization()
        np.testing.assert_array_equal(np.concatenate(layer([x[..., :4], x[..., 4:]]), axis=-1), layer(x))

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

    def test_equals_tensorflows_kernel(self):
        x = activations((2, 5, 5, 16))
        expected = tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)
        np.testing.assert_allclose(LocalResponseNormalization()(x), expected, rtol=2e-6, atol=1e-6)

    @pytest.mark.parametrize("n", [0, 2, 4, -1])
    def test_invalid_n_raises(self, n):
        with pytest.raises(ValueError, match=f"`n` must be odd.*n={n}"):
            LocalResponseNormalization(n=n)

    def test_invalid_groups_raise(self):
        with pytest.raises(ValueError, match=r"multiple of `groups`, 2.*7 maps"):
            LocalResponseNormalization(groups=2)(activations((1, 2, 2, 7)))


class TestWithinMapNormalization:
    @pytest.mark.parametrize(
        "mode, shape, n",
        [
            *(("eager", shape, n) for shape, n in [((1, 2, 3, 1), 5), ((2, 4, 4, 2), 3), ((1, 3, 3, 2), 1)]),
            *((mode, (2, 7, 6, 3), 5) for mode in MODES),
        ],
    )
    def test_forward_and_gradient_equal_float64(self, mode, shape, n):
        x = activations(shape)
        output, (gradient,) = call(WithinMapNormalization(n=n), tf.constant(x), mode)
        arguments = (1.0, n, 1e-3, 0.75)
        expected = reference.within_map_normalization(np.float64(x), *arguments)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
        expected = reference.within_map_normalization_gradient(sines(x.shape), np.float64(x), *arguments)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)

    def test_reference_gradient_equals_finite_differences(self):
        x, upstream, step = np.float64(activations((1, 4, 3, 2))), np.sin(np.arange(24.0)).reshape(1, 4, 3, 2), 1e-4
        gradient = reference.within_map_normalization_gradient(upstream, x, 1.0, 3, 1e-3, 0.75)
        for position in np.ndindex(x.shape):
            change = np.zeros_like(x)
            change[position] = step
            outputs = [reference.within_map_normalization(x + s * change, 1.0, 3, 1e-3, 0.75) for s in (1, -1)]
            assert abs(np.sum(upstream * (outputs[0] - outputs[1])) / (2 * step) - gradient[position]) < 1e-7

    def test_maps_do_not_affect_each_other(self):
        x = activations((1, 4, 4, 2), scale=300)
        changed = x.copy()
        changed[..., 1] *= 10
        layer = WithinMapNormalization()
        np.testing.assert_array_equal(layer(x)[..., 0], layer(changed)[..., 0])

    @pytest.mark.parametrize("n", [0, 2])
    def test_invalid_n_raises(self, n):
        with pytest.raises(ValueError, match=f"`n` must be odd.*n={n}"):
            WithinMapNormalization(n=n)
