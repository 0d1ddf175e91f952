"""The search of nearest neighbors, beside all differences in float64."""

import numpy as np
import pytest

from alexnet_tf.evaluation import nearest_neighbors


class TestExactSearch:
    def test_equals_all_differences_in_float64(self, monkeypatch):
        monkeypatch.setattr(nearest_neighbors, "_BLOCK", 64)  # so that there are several, the last short
        random = np.random.default_rng(0)
        vectors, queries = (random.normal(size=(size, 20)).astype("float32") for size in (500, 30))
        indices, distances = nearest_neighbors.exact_search(queries, vectors, 7)
        expected = np.sqrt(((queries[:, None].astype("float64") - vectors[None]) ** 2).sum(axis=2))
        np.testing.assert_array_equal(indices, np.argsort(expected, axis=1)[:, :7])
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :7], rtol=1e-6)

    def test_vector_is_nearest_to_itself_and_equal_vectors_come_in_order(self):
        vectors = np.float32(np.random.default_rng(1).normal(size=(50, 8))) * 1000
        vectors[40] = vectors[3]
        indices, distances = nearest_neighbors.exact_search(vectors[[3, 20]], vectors, 2)
        assert indices[0].tolist() == [3, 40]
        assert indices[1, 0] == 20
        assert np.all(distances[:, 0] < 1e-2)

    @pytest.mark.parametrize("units, count, message", [(7, 1, "one length"), (8, 0, "`count`"), (8, 51, "`count`")])
    def test_vectors_of_another_length_and_impossible_counts_are_refused(self, units, count, message):
        with pytest.raises(ValueError, match=message):
            nearest_neighbors.exact_search(np.zeros((1, units), "float32"), np.zeros((50, 8), "float32"), count)


@pytest.fixture(scope="module")
def vectors():
    """12,000 vectors near a surface of 16 dimensions in 96, as features are."""
    random = np.random.default_rng(0)
    surface = random.normal(size=(16, 96))
    return np.float32(np.maximum(random.normal(size=(12_000, 16)) @ surface, 0))


class TestApproximateSearch:
    def test_nearly_all_of_the_nearest_are_found_and_distances_are_exact(self, vectors):
        queries = vectors[::200] + np.float32(0.01)
        indices, distances = nearest_neighbors.approximate_search(queries, vectors, 6)
        expected, expected_distances = nearest_neighbors.exact_search(queries, vectors, 6)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(indices, expected, strict=True)]) > 5.7
        np.testing.assert_array_equal(indices[:, 0], np.arange(0, 12_000, 200))
        found = indices == expected
        np.testing.assert_allclose(distances[found], expected_distances[found], rtol=1e-6)
        assert np.all(np.diff(distances, axis=1) >= 0)

    @pytest.mark.slow
    def test_candidates_make_up_for_what_principal_components_lose(self):
        vectors = np.random.default_rng(0).normal(size=(10_000, 256)).astype("float32")  # as wide in all directions
        queries = vectors[:50] + np.float32(0.3)
        expected, _ = nearest_neighbors.exact_search(queries, vectors, 6)
        found = [
            np.mean([len(set(a) & set(b)) for a, b in zip(expected, indices, strict=True)])
            for indices, _ in (
                nearest_neighbors.approximate_search(queries, vectors, 6, 200, **candidates)
                for candidates in ({}, {"candidates": 6})
            )
        ]
        assert found[0] > found[1] + 1

    def test_too_few_vectors_to_train_on_are_refused(self, vectors):
        with pytest.raises(ValueError, match=r"must have 10,000 vectors .* Received: 9,999"):
            nearest_neighbors.approximate_search(vectors[:1], vectors[:9_999], 6)
