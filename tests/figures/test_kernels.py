"""The initial kernels of a run, and what training added to them."""

import numpy as np

from alexnet_tf.figures import image_grids, kernels
from alexnet_tf.training import initial_kernels


def _noise(seed, columns=2):
    random = np.random.default_rng(seed)
    return [random.normal(0, 0.07, (11, 11, 3, 4)).astype("float32") for _ in range(columns)]


class TestInitialKernels:
    def test_first_start_is_kept_for_checkpoints_and_files(self, tmp_path):
        first = _noise(0)
        initial_kernels.save_initial_kernels(tmp_path, first)
        initial_kernels.save_initial_kernels(tmp_path, _noise(1))
        for model in (tmp_path, tmp_path / "model.keras", tmp_path / "checkpoints" / "00000007"):
            for found, expected in zip(initial_kernels.load_initial_kernels(model), first, strict=True):
                np.testing.assert_array_equal(found, expected)
        assert initial_kernels.load_initial_kernels(tmp_path / "another" / "checkpoints" / "1") is None


class TestLearnedPart:
    def test_only_the_added_part_remains_when_initial_values_shrink(self):
        initial = _noise(0)
        edge = np.zeros((11, 11, 3, 1), "float32")
        edge[:, :5], edge[:, 6:] = -0.01, 0.01
        shrunk = [each * [0.9, 0.6, 0.4, 0.1] for each in initial]  # each filter differently
        trained = [each + edge for each in shrunk]
        for found in kernels.learned_part(trained, initial):
            for index in range(4):
                assert np.corrcoef(found[..., index].ravel(), edge[..., 0].ravel())[0, 1] > 0.99
        for column in kernels.learned_part(shrunk, initial):
            np.testing.assert_allclose(column, 0, atol=1e-7)

    def test_kernels_that_started_at_zero_are_unchanged(self):
        trained = _noise(0)
        for found, whole in zip(kernels.learned_part(trained, [0 * each for each in trained]), trained, strict=True):
            np.testing.assert_array_equal(found, whole)


class TestDrawKernels:
    def test_learned_part_is_beside_the_kernels(self):
        initial = _noise(0)
        trained = [each + 0.02 for each in initial]
        picture = kernels.draw_kernels(trained, initial)
        sheet = image_grids.kernel_sheet(trained)
        assert picture.shape[1] > 2 * sheet.shape[1] and picture.shape[0] > sheet.shape[0]
        middle = picture.shape[1] // 2
        left, right = picture[25:, :middle].astype(int), picture[25:, middle:].astype(int)
        # Noise at the left, and areas of one color, all brighter than gray, at the right.
        assert np.abs(np.diff(left, axis=1)).mean() > 5 * np.abs(np.diff(right, axis=1)).mean()

    def test_only_the_kernels_without_initial_values(self):
        trained = _noise(0)
        np.testing.assert_array_equal(kernels.draw_kernels(trained), image_grids.kernel_sheet(trained, 8))
