"""Nearest neighbors, compared with all differences in float64."""

import numpy as np
import pytest

from alexnet_tf.evaluation import nearest_neighbors


class TestExactSearch:
    def test_equals_brute_force(self, monkeypatch):
        monkeypatch.setattr(nearest_neighbors, "_BLOCK", 64)  # so that there are several, the last short
        random = np.random.default_rng(0)
        vectors, queries = (random.normal(size=(size, 20)).astype("float32") for size in (500, 30))
        indices, distances = nearest_neighbors.exact_search(queries, vectors, 7, "euclidean")
        expected = np.sqrt(((queries[:, None].astype("float64") - vectors[None]) ** 2).sum(axis=2))
        np.testing.assert_array_equal(indices, np.argsort(expected, axis=1)[:, :7])
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :7], rtol=1e-6)

    def test_cosine_is_the_default_and_skips_the_query_itself(self, monkeypatch):
        monkeypatch.setattr(nearest_neighbors, "_BLOCK", 16)
        vectors = np.random.default_rng(0).normal(size=(40, 20)).astype("float32")
        vectors[7], vectors[30] = 0, 100 * vectors[20]  # lengths don't count
        indices, distances = nearest_neighbors.exact_search(vectors, vectors, 3, skip_itself=True)
        lengths = np.linalg.norm(vectors, axis=1)[:, None]
        expected = 1 - (vectors @ vectors.T) / np.maximum(lengths * lengths.T, 1e-9)
        np.fill_diagonal(expected, np.inf)
        np.testing.assert_allclose(np.take_along_axis(expected, indices, axis=1), distances, atol=1e-6)
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :3], atol=1e-6)
        assert indices[20, 0] == 30 and indices[30, 0] == 20 and (distances[7] == 1).all()

    def test_ties_are_in_order(self):
        vectors = np.float32(np.random.default_rng(1).normal(size=(50, 8))) * 1000
        vectors[40] = vectors[3]
        indices, distances = nearest_neighbors.exact_search(vectors[[3, 20]], vectors, 2, "euclidean")
        assert indices[0].tolist() == [3, 40]
        assert indices[1, 0] == 20
        assert np.all(distances[:, 0] < 1e-2)

    @pytest.mark.parametrize(
        "units, count, metric, message",
        [
            (7, 1, "cosine", "same length"),
            (8, 0, "cosine", "`count`"),
            (8, 51, "cosine", "`count`"),
            (8, 1, "l1", r"`metric` must be one of cosine, euclidean\. Received: metric='l1'"),
        ],
    )
    def test_impossible_arguments(self, units, count, metric, message):
        with pytest.raises(ValueError, match=message):
            nearest_neighbors.exact_search(np.zeros((1, units), "float32"), np.zeros((50, 8), "float32"), count, metric)
