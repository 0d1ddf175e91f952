"""Occlusion maps of networks that depend on one pixel."""

import types

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from alexnet_tf.figures import occlusion
from alexnet_tf.layers import GroupedConv2D
from alexnet_tf.model import build_alexnet


def _depends_on(row: int, column: int, side: int = 12) -> keras.Model:
    """A network whose prediction depends on the red of one pixel: class 1 if it is above 128."""
    image = keras.Input((side, side, 3))
    conv = GroupedConv2D(2, 1, groups=1, input_columns="all", name="conv")
    logit = conv(keras.ops.cast(image, "float32"))[:, row, column, 0:1] / 10
    model = keras.Model(image, keras.ops.concatenate([1 - keras.ops.sigmoid(logit), keras.ops.sigmoid(logit)], axis=1))
    conv.set_weights([np.array([[[[1, -1], [0, 0], [0, 0]]]], "float32"), np.array([-129, 129], "float32")])
    return model


IMAGE = np.full((12, 12, 3), 250, "uint8")


class TestOcclude:
    @pytest.mark.parametrize("row, column", [(3, 8), (0, 10)])
    def test_probability_falls_where_the_square_covers_the_pixel(self, row, column):
        found = occlusion.occlude(_depends_on(row, column), IMAGE, "conv", square_px=5, step_px=1)
        assert found.label == 1 and found.probability.shape == (12, 12)
        assert found.probability_without > 0.99
        rows, columns = np.mgrid[:12, :12]  # centers of the squares, which reach over the edges
        covers = (abs(rows - row) <= 2) & (abs(columns - column) <= 2)
        np.testing.assert_array_equal(found.probability < 0.5, covers)
        np.testing.assert_array_equal(found.predicted, np.where(covers, 0, 1))
        assert (IMAGE == 250).all()

    @pytest.mark.parametrize("square_px, step_px", [(5, 6), (8, 1)])
    def test_strength_is_the_sum_of_the_strongest_map_outside_the_square(self, square_px, step_px):
        found = occlusion.occlude(_depends_on(3, 8), IMAGE, "conv", square_px=square_px, step_px=step_px)
        assert found.feature_map == 0
        np.testing.assert_allclose(found.strength_without, 12 * 12 * (250 - 129), rtol=1e-5)
        low = np.arange(step_px // 2, 12, step_px) - square_px // 2
        inside = np.minimum(low + square_px, 12) - np.maximum(low, 0)
        expected = found.strength_without - np.outer(inside, inside) * (250 - 128)
        np.testing.assert_allclose(found.strength, expected, rtol=1e-5)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"square_px": 13}, "`square_px` must be from 1"),
            ({"step_px": -1}, "`step_px` must be from 1"),
            ({"layer": "dense"}, "`layers` must be among"),
        ],
    )
    def test_impossible_arguments(self, changes, message):
        with pytest.raises(ValueError, match=message):
            occlusion.occlude(_depends_on(3, 3), IMAGE, **{"layer": "conv"} | changes)


def test_doubtful_images_have_probabilities_near_50_percent():
    reds = np.array([250, 129, 138, 60, 137, 120])  # sigmoid((red - 129) / 10), or 1 minus it
    images = np.zeros((6, 12, 12, 3), "uint8")
    images[..., 0] = reds[:, None, None]
    chosen = occlusion.doubtful_images(_depends_on(3, 3), images, 3)
    assert chosen[:, 0, 0, 0].tolist() == [129, 138, 137]


def test_images_of_which_the_network_knows_nothing_are_not_doubtful():
    confidences = np.array([0.1, 0.45, 0.95, 0.6, 0.3])
    model = types.SimpleNamespace(predict=lambda images, verbose: np.stack([confidences, 0 * confidences], axis=1))
    images = np.arange(5)
    assert occlusion.doubtful_images(model, images, 3).tolist() == [1, 3, 4]


def test_picture_of_a_network_with_a_users_own_head(figures):
    base = build_alexnet("testing", include_top=False, pooling="avg", initializer="he_normal", input_scale=0.01)
    model = keras.Sequential([base, keras.layers.Dense(5, activation="softmax", name="head")])
    images = np.random.default_rng(0).integers(0, 256, (1, 56, 56, 3)).astype("uint8")
    occlusion.draw_occlusion(model, images, list("abcde"))
    titles = [axes.get_title() for axes in figures[0].axes]
    label = model.predict(images, verbose=0)[0].argmax()
    assert titles[0].startswith("abcde"[label]) and titles[1].startswith("sum of relu5's feature map")


def test_answers_have_the_colors_of_the_legend():
    names = [f"class {label}" for label in range(20)]
    predicted = np.repeat(np.arange(20), 20 - np.arange(20)).reshape(10, 21)  # class 0 is the most frequent
    axes = Figure().subplots()
    occlusion._draw_answers(axes, predicted, (0, 21, 10, 0), names)
    (image,), legend = axes.images, axes.get_legend()
    handles = dict(zip([text.get_text() for text in legend.get_texts()], legend.get_patches(), strict=True))
    shown = image.to_rgba(image.get_array())
    for label, color in zip(predicted.ravel(), shown.reshape(-1, 4), strict=True):
        patch = handles.get(names[label], handles["others"])
        np.testing.assert_allclose(color, patch.get_facecolor())
    assert len({tuple(patch.get_facecolor()) for patch in handles.values()}) == len(handles)
