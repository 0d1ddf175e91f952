"""Occlusion: each place is covered once, and the maps say what the network says."""

import keras
import numpy as np
import pytest

from alexnet_tf.figures import occlusion
from alexnet_tf.layers import GroupedConv2D


def _looks_at(row: int, column: int, side: int = 24) -> keras.Model:
    """A network whose answer depends on the red of one pixel: class 1 if it is above 128."""
    image = keras.Input((side, side, 3))
    x = GroupedConv2D(2, 1, groups=1, input_columns="all", name="conv")(keras.ops.cast(image, "float32"))
    logit = x[:, row, column, 0:1] / 10
    probabilities = keras.ops.concatenate([1 - keras.ops.sigmoid(logit), keras.ops.sigmoid(logit)], axis=1)
    model = keras.Model(image, probabilities)
    model.get_layer("conv").set_weights(
        [np.array([[[[1, -1], [0, 0], [0, 0]]]], "float32"), np.array([-129, 129], "float32")]
    )
    return model


class TestOcclude:
    def test_probability_falls_exactly_where_the_square_covers_what_matters(self):
        image = np.full((24, 24, 3), 250, "uint8")
        found = occlusion.occlude(_looks_at(6, 15), image, "conv", square_px=5, step_px=1)
        assert found.label == 1 and found.probability.shape == (24, 24)
        assert found.probability_without > 0.99
        covers = np.zeros((24, 24), bool)
        covers[4:9, 13:18] = True  # the centers from which a square of 5 x 5 covers row 6, column 15
        np.testing.assert_array_equal(found.probability < 0.5, covers)
        np.testing.assert_array_equal(found.predicted, np.where(covers, 0, 1))

    def test_strength_is_the_sum_of_the_strongest_map(self):
        image = np.full((24, 24, 3), 250, "uint8")
        found = occlusion.occlude(_looks_at(6, 15), image, "conv", square_px=5, step_px=12)
        assert found.feature_map == 0
        np.testing.assert_allclose(found.strength_without, 24 * 24 * (250 - 129), rtol=1e-5)
        # Centers at 6 and 18: a whole square of 25 pixels is gray.
        np.testing.assert_allclose(found.strength, found.strength_without - 25 * (250 - 128), rtol=1e-5)

    def test_squares_reach_over_the_edges_and_the_image_stays_as_it_is(self):
        image = np.full((24, 24, 3), 250, "uint8")
        found = occlusion.occlude(_looks_at(0, 0), image, "conv", square_px=8, step_px=1)
        assert (found.probability[:5, :5] < 0.5).all() and (found.probability[5:] > 0.5).all()
        assert (image == 250).all()

    @pytest.mark.parametrize("wrong", [{"square_px": 25}, {"step_px": -1}, {"layer": "dense"}])
    def test_impossible_arguments_are_refused(self, wrong):
        model = _looks_at(3, 3)
        with pytest.raises(ValueError, match=rf"`{next(iter(wrong))}` must be.*Received|No such layer"):
            occlusion.occlude(model, np.zeros((24, 24, 3), "uint8"), **{"layer": "conv"} | wrong)
