"""Statistics against NumPy in float64, and color noise."""

import numpy as np
import pytest
import tensorflow as tf
from made_records import stored_records

from alexnet_tf.tfrecords import schema, statistics


def statistics_of(images):
    sums = statistics.PixelSums(images.shape[1])
    for image in images:
        sums.add_image(image)
    return statistics.Statistics.of(sums)


@pytest.fixture
def images():
    """Images with correlated channels, like photographs."""
    random = np.random.default_rng(0)
    gray = random.integers(0, 200, (7, 9, 9, 1))
    return (gray + random.integers(0, [10, 30, 56], (7, 9, 9, 3))).astype("uint8")


class TestPixelSums:
    def test_sums_of_parts_equal_the_complete_sums(self, images):
        complete, first, second = (statistics.PixelSums(9) for _ in range(3))
        for index, image in enumerate(images):
            complete.add_image(image)
            (first if index % 3 else second).add_image(image)
        second.add(first)
        assert second.count == complete.count == 7
        np.testing.assert_array_equal(second.image, complete.image)
        np.testing.assert_array_equal(second.products, complete.products)

    def test_white_images_do_not_overflow(self):
        sums = statistics.PixelSums(64)
        for _ in range(50):
            sums.add_image(np.full((64, 64, 3), 255, "uint8"))
        assert (sums.image == 50 * 255).all()
        assert (sums.products == 50 * 64 * 64 * 255**2).all()


class TestStatistics:
    def test_fields_equal_numpy(self, images):
        result, pixels = statistics_of(images), images.reshape(-1, 3).astype("float64")
        covariance = np.cov(pixels.T, bias=True)
        np.testing.assert_allclose(result.mean_image, images.astype("float64").mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(result.rgb_mean, pixels.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(result.rgb_covariance, covariance, rtol=1e-10)
        np.testing.assert_allclose(result.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-9)
        np.testing.assert_allclose(
            result.eigenvectors @ np.diag(result.eigenvalues) @ result.eigenvectors.T, covariance, rtol=1e-9
        )
        assert result.mean_image.dtype == np.float32

    def test_largest_component_of_each_eigenvector_is_positive(self):
        random = np.random.default_rng(0)
        for _ in range(10):
            colors = random.integers(0, 256, (5, 4, 4, 3)) @ random.dirichlet(np.ones(3), 3)
            result = statistics_of(colors.astype("uint8"))
            for value, vector in zip(result.eigenvalues, result.eigenvectors.T, strict=True):
                assert vector[np.abs(vector).argmax()] > 0
                np.testing.assert_allclose(result.rgb_covariance @ vector, value * vector, atol=1e-9 * value + 1e-9)

    def test_built_data_set_has_the_statistics_of_its_pixels(self, tiny_data_dir):
        pngs = [content for *_, content in stored_records(tiny_data_dir, "train")]
        pixels = np.array([tf.io.decode_png(content).numpy() for content in pngs], "float64")
        result = statistics.Statistics.load(tiny_data_dir)
        assert len(pixels) == 46
        np.testing.assert_allclose(result.mean_image, pixels.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(result.rgb_covariance, np.cov(pixels.reshape(-1, 3).T, bias=True), rtol=0, atol=1e-6)

    def test_gray_images_have_two_zero_eigenvalues_and_no_nan(self):
        gray = np.repeat(np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1)), 3, axis=-1).astype("uint8")
        result = statistics_of(gray)
        assert result.eigenvalues[0] > 1000
        assert (result.eigenvalues >= 0).all()
        assert (result.eigenvalues[1:] < 1e-9).all()
        np.testing.assert_allclose(result.eigenvectors[:, 0], np.full(3, 3**-0.5), rtol=1e-9)
        assert np.isfinite(result.color_noise()).all()

    def test_save_and_load(self, images, tmp_path):
        saved = statistics_of(images)
        checksums = {"statistics.npz": saved.save(tmp_path)}
        schema.DatasetDescription(("a", "b"), 9, False, "png", {}, {}, checksums).save(tmp_path)
        loaded = statistics.Statistics.load(tmp_path)
        for name in ("mean_image", "rgb_mean", "rgb_covariance", "eigenvalues", "eigenvectors"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))

    def test_mean_image_and_mean_color(self, images):
        result = statistics_of(images)
        np.testing.assert_array_equal(result.mean("image"), result.mean_image)
        assert result.mean("color").shape == result.mean_image.shape
        np.testing.assert_allclose(result.mean("color"), np.broadcast_to(result.rgb_mean, result.mean_image.shape))
        with pytest.raises(ValueError, match="kind='colour'"):
            result.mean("colour")

    def test_missing_or_damaged_file(self, tmp_path):
        schema.DatasetDescription(("a", "b"), 9, False, "png", {}, {}).save(tmp_path)
        with pytest.raises(ValueError, match=r"statistics\.npz can't be read"):
            statistics.Statistics.load(tmp_path)
        (tmp_path / "statistics.npz").write_bytes(b"PK nonsense")
        with pytest.raises(ValueError, match=r"statistics\.npz can't be read"):
            statistics.Statistics.load(tmp_path)


class TestColorNoise:
    # Standard deviation of the offset along ImageNet's first component, in gray levels.
    @pytest.mark.parametrize(
        ("scale", "expected"),
        [("standard_deviation", 12.18), ("eigenvalue_unit_range", 5.818), ("eigenvalue", 1483.5), ("none", 0.0)],
    )
    def test_noise_along_imagenets_first_component(self, scale, expected):
        standard_deviations = np.array([121.8, 37.1, 19.7])  # of ImageNet's pixels
        vectors = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
        imagenet = statistics.Statistics(None, None, None, standard_deviations**2, vectors)
        matrix = imagenet.color_noise(scale)
        assert matrix.shape == (3, 3)
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(matrix[:, 0]), expected, rtol=1e-3)
        np.testing.assert_allclose(matrix[:, 0], expected * vectors[:, 0], rtol=1e-3, atol=1e-6)

    def test_covariance_of_the_noise(self, images):
        result = statistics_of(images)
        matrix = np.float64(result.color_noise())
        np.testing.assert_allclose(matrix @ matrix.T, 0.01 * result.rgb_covariance, rtol=1e-5)

    def test_unknown_scale(self, images):
        with pytest.raises(ValueError, match=r"`color_noise` must be one of .*Received: 'huge'"):
            statistics_of(images).color_noise("huge")
