"""Nearest neighbors, compared with all differences in float64."""

import numpy as np
import pytest

from alexnet_tf.evaluation import nearest_neighbors


class TestExactSearch:
    def test_equals_brute_force(self, monkeypatch):
        monkeypatch.setattr(nearest_neighbors, "_BLOCK", 64)  # so that there are several, the last short
        random = np.random.default_rng(0)
        vectors, queries = (random.normal(size=(size, 20)).astype("float32") for size in (500, 30))
        indices, distances = nearest_neighbors.exact_search(queries, vectors, 7)
        expected = np.sqrt(((queries[:, None].astype("float64") - vectors[None]) ** 2).sum(axis=2))
        np.testing.assert_array_equal(indices, np.argsort(expected, axis=1)[:, :7])
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :7], rtol=1e-6)

    def test_ties_are_in_order(self):
        vectors = np.float32(np.random.default_rng(1).normal(size=(50, 8))) * 1000
        vectors[40] = vectors[3]
        indices, distances = nearest_neighbors.exact_search(vectors[[3, 20]], vectors, 2)
        assert indices[0].tolist() == [3, 40]
        assert indices[1, 0] == 20
        assert np.all(distances[:, 0] < 1e-2)

    @pytest.mark.parametrize("units, count, message", [(7, 1, "same length"), (8, 0, "`count`"), (8, 51, "`count`")])
    def test_impossible_arguments(self, units, count, message):
        with pytest.raises(ValueError, match=message):
            nearest_neighbors.exact_search(np.zeros((1, units), "float32"), np.zeros((50, 8), "float32"), count)
