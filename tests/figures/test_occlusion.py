"""Occlusion maps of networks that depend on one pixel."""

import keras
import numpy as np
import pytest

from alexnet_tf.figures import occlusion
from alexnet_tf.layers import GroupedConv2D
from alexnet_tf.model import build_alexnet


def _depends_on(row: int, column: int, side: int = 24) -> keras.Model:
    """A network whose prediction depends on the red of one pixel: class 1 if it is above 128."""
    image = keras.Input((side, side, 3))
    conv = GroupedConv2D(2, 1, groups=1, input_columns="all", name="conv")
    logit = conv(keras.ops.cast(image, "float32"))[:, row, column, 0:1] / 10
    model = keras.Model(image, keras.ops.concatenate([1 - keras.ops.sigmoid(logit), keras.ops.sigmoid(logit)], axis=1))
    conv.set_weights([np.array([[[[1, -1], [0, 0], [0, 0]]]], "float32"), np.array([-129, 129], "float32")])
    return model


IMAGE = np.full((24, 24, 3), 250, "uint8")


@pytest.fixture(scope="module")
def own_head():
    """A network with a user's own classifier of five classes on top."""
    base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=0.01)
    return keras.Sequential([base, keras.layers.Dense(5, activation="softmax", name="head")])


class TestOcclude:
    @pytest.mark.parametrize("row, column", [(6, 15), (0, 20), (21, 1)])
    def test_probability_falls_where_the_square_covers_the_pixel(self, row, column):
        found = occlusion.occlude(_depends_on(row, column), IMAGE, "conv", square_px=5, step_px=1)
        assert found.label == 1 and found.probability.shape == (24, 24)
        assert found.probability_without > 0.99
        rows, columns = np.mgrid[:24, :24]  # centers of the squares, which reach over the edges
        covers = (abs(rows - row) <= 2) & (abs(columns - column) <= 2)
        np.testing.assert_array_equal(found.probability < 0.5, covers)
        np.testing.assert_array_equal(found.predicted, np.where(covers, 0, 1))
        assert (IMAGE == 250).all()

    def test_strength_is_the_sum_of_the_strongest_map(self):
        found = occlusion.occlude(_depends_on(6, 15), IMAGE, "conv", square_px=5, step_px=12)
        assert found.feature_map == 0
        np.testing.assert_allclose(found.strength_without, 24 * 24 * (250 - 129), rtol=1e-5)
        # Centers at 6 and 18: a whole square of 25 pixels is gray.
        np.testing.assert_allclose(found.strength, found.strength_without - 25 * (250 - 128), rtol=1e-5)

    @pytest.mark.parametrize("square_px", [5, 8])
    def test_squares_at_each_edge_have_the_same_size(self, square_px):
        found = occlusion.occlude(_depends_on(6, 15), IMAGE, "conv", square_px=square_px, step_px=1)
        low, high = np.arange(24) - square_px // 2, np.arange(24) - square_px // 2 + square_px
        inside = np.minimum(high, 24) - np.maximum(low, 0)
        expected = found.strength_without - np.outer(inside, inside) * (250 - 128)
        np.testing.assert_allclose(found.strength, expected, rtol=1e-5)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"square_px": 25}, "`square_px` must be from 1"),
            ({"step_px": -1}, "`step_px` must be from 1"),
            ({"layer": "dense"}, "Layers must be among"),
        ],
    )
    def test_impossible_arguments(self, changes, message):
        with pytest.raises(ValueError, match=message):
            occlusion.occlude(_depends_on(3, 3), IMAGE, **{"layer": "conv"} | changes)


def test_doubtful_images_have_probabilities_near_50_percent():
    reds = np.array([250, 129, 138, 60, 137, 120])  # sigmoid((red - 129) / 10), or 1 minus it
    images = np.zeros((6, 24, 24, 3), "uint8")
    images[..., 0] = reds[:, None, None]
    chosen = occlusion.doubtful_images(_depends_on(3, 3), images, 3)
    assert chosen[:, 0, 0, 0].tolist() == [129, 138, 137]


class TestDrawOcclusion:
    def test_own_head(self, own_head, figures):
        images = np.random.default_rng(0).integers(0, 256, (1, 56, 56, 3)).astype("uint8")
        occlusion.draw_occlusion(own_head, images, list("abcde"))
        titles = [axes.get_title() for axes in figures[0].axes]
        label = own_head.predict(images, verbose=0)[0].argmax()
        assert titles[0].startswith("abcde"[label]) and titles[1].startswith("sum of relu5's feature map")
