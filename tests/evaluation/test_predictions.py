"""Saved predictions."""

import numpy as np
import pytest

from alexnet_tf.evaluation import predictions


class TestPredictions:
    def test_saved_predictions_load_equal(self, tmp_path):
        random = np.random.default_rng(1)
        labels = random.integers(0, 7, 400)
        probabilities = random.dirichlet(np.ones(7), 400).astype("float32")
        saved = predictions.Predictions(
            "a/b", tuple("abcdefg"), "train", "12ab", labels, {"center_crop": probabilities}
        )
        saved.save(tmp_path / "a.npz")
        loaded = predictions.Predictions.load(tmp_path / "a.npz")
        assert (loaded.name, loaded.class_names, loaded.split, loaded.images) == (
            "a/b",
            tuple("abcdefg"),
            "train",
            "12ab",
        )
        np.testing.assert_array_equal(loaded.labels, labels)
        np.testing.assert_array_equal(loaded.views["center_crop"], probabilities)
        assert loaded.views.keys() == {"center_crop"}

    def test_damaged_file_is_named(self, tmp_path):
        (tmp_path / "a.npz").write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"a\.npz must hold predictions"):
            predictions.Predictions.load(tmp_path / "a.npz")
