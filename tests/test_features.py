"""alexnet-features and alexnet-neighbours: the vectors are the layer's, and the nearest are the nearest."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import run, run_well

from alexnet_tf import features, neighbours
from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import reader, schema

pytestmark = pytest.mark.slow  # a model is trained, and asked about all images


@pytest.fixture(scope="module")
def features_dir(run_dir, data_dir, tmp_path_factory):
    """relu7's features of both splits."""
    folder = tmp_path_factory.mktemp("features")
    for split in schema.SPLITS:
        output = f"--output={folder / split}.npz"
        run_well("features", f"--model={run_dir}", f"--data_dir={data_dir}", f"--split={split}", output)
    return folder


class TestFeatures:
    def test_vectors_are_what_the_classifier_sees(self, features_dir, run_dir, data_dir):
        found = features.Features.load(features_dir / "validation.npz")
        model, description = load_model(run_dir)
        assert found.class_names == description.class_names
        dataset = reader.make_evaluation_dataset(data_dir, 100, model.input_shape[1])
        pixels, labels = next(iter(dataset))
        np.testing.assert_array_equal(found.labels[:100], labels)
        # By hand from there on: dropout's half at test time, fc8, softmax.
        (kernel,), (bias,) = model.get_layer("fc8").kernels, model.get_layer("fc8").biases
        logits = 0.5 * found.vectors[:100] @ kernel.numpy() + bias.numpy()
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = model.predict(pixels, verbose=0)
        np.testing.assert_allclose(exponents / exponents.sum(axis=1, keepdims=True), expected, rtol=1e-4, atol=1e-6)

    def test_tfrecord_holds_the_same(self, features_dir, run_dir, data_dir, tmp_path):
        path = tmp_path / "validation.tfrecord"
        run_well("features", f"--model={run_dir}", f"--data_dir={data_dir}", f"--output={path}")
        found = features.Features.load(features_dir / "validation.npz")
        examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        assert len(examples) == 1000
        vectors = np.float32([example.features.feature["features"].float_list.value for example in examples])
        np.testing.assert_array_equal(vectors, found.vectors)
        labels = [example.features.feature[schema.LABEL].int64_list.value[0] for example in examples]
        np.testing.assert_array_equal(labels, found.labels)

    @pytest.mark.parametrize(
        "flags, message",
        [(["--layer=fc9"], "`layer` must be one of image, "), (["--output=a.csv"], "`output` must end in .npz or")],
    )
    def test_flags_that_can_not_be_are_refused(self, flags, message, run_dir, data_dir, tmp_path):
        output = f"--output={tmp_path / 'a.npz'}"
        result = run("features", f"--model={run_dir}", f"--data_dir={data_dir}", output, *flags)
        assert result.returncode != 0
        assert message in result.stderr


class TestNearest:
    def test_equals_all_differences_in_float64(self, monkeypatch):
        monkeypatch.setattr(neighbours, "_BLOCK", 64)  # so that there are several, the last short
        random = np.random.default_rng(0)
        vectors, queries = (random.normal(size=(size, 20)).astype("float32") for size in (500, 30))
        numbers, distances = neighbours.nearest(queries, vectors, 7)
        expected = np.sqrt(((queries[:, None].astype("float64") - vectors[None]) ** 2).sum(axis=2))
        np.testing.assert_array_equal(numbers, np.argsort(expected, axis=1)[:, :7])
        np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :7], rtol=1e-6)

    def test_vector_is_its_own_nearest_and_twins_come_in_order(self):
        vectors = np.float32(np.random.default_rng(1).normal(size=(50, 8))) * 1000
        vectors[40] = vectors[3]
        numbers, distances = neighbours.nearest(vectors[[3, 20]], vectors, 2)
        assert numbers[0].tolist() == [3, 40]
        assert numbers[1, 0] == 20
        assert np.all(distances[:, 0] < 1e-2)

    @pytest.mark.parametrize("units, count, message", [(7, 1, "one length"), (8, 0, "`count`"), (8, 51, "`count`")])
    def test_what_can_not_be_is_refused(self, units, count, message):
        with pytest.raises(ValueError, match=message):
            neighbours.nearest(np.zeros((1, units), "float32"), np.zeros((50, 8), "float32"), count)


@pytest.fixture(scope="module")
def vectors():
    """12,000 that lie about a surface of 16 dimensions in 96, as features do."""
    random = np.random.default_rng(0)
    surface = random.normal(size=(16, 96))
    return np.float32(np.maximum(random.normal(size=(12_000, 16)) @ surface, 0))


class TestNearestOfMany:
    def test_nearly_all_of_the_nearest_are_found_and_distances_are_exact(self, vectors):
        queries = vectors[::200] + np.float32(0.01)
        numbers, distances = neighbours.nearest_of_many(queries, vectors, 6)
        expected, expected_distances = neighbours.nearest(queries, vectors, 6)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(numbers, expected, strict=True)]) > 5.7
        np.testing.assert_array_equal(numbers[:, 0], np.arange(0, 12_000, 200))
        found = numbers == expected
        np.testing.assert_allclose(distances[found], expected_distances[found], rtol=1e-6)
        assert np.all(np.diff(distances, axis=1) >= 0)

    def test_too_few_to_learn_from_are_refused(self, vectors):
        with pytest.raises(ValueError, match=r"must have 10,000 vectors .* Received: 9,999"):
            neighbours.nearest_of_many(vectors[:1], vectors[:9_999], 6)


class TestNeighbours:
    def test_picture_and_table_are_of_the_nearest(self, features_dir, data_dir, tmp_path):
        flags = [f"--features={features_dir / 'train.npz'}", f"--queries={features_dir / 'validation.npz'}"]
        output = run_well("neighbours", *flags, f"--data_dir={data_dir}", f"--output={tmp_path / 'n.png'}")
        searched, queries = (features.Features.load(features_dir / f"{split}.npz") for split in schema.SPLITS)
        with np.load(tmp_path / "n.npz") as table:
            assert table["numbers"].shape == table["distances"].shape == (1000, 6)
            agree = np.mean(searched.labels[table["numbers"][:, 0]] == queries.labels)
            differences = searched.vectors[table["numbers"][7]] - queries.vectors[7]
            np.testing.assert_allclose(table["distances"][7], np.linalg.norm(differences, axis=1), rtol=1e-4)
        assert f"of the same class for {agree:.1%} of 1,000 images" in output
        assert agree > 0.3  # chance is 0.1
        assert np.asarray(Image.open(tmp_path / "n.png")).std() > 10

    def test_features_of_other_images_are_refused(self, features_dir, tiny_data_dir, tmp_path):
        flags = [f"--features={features_dir / 'train.npz'}", f"--queries={features_dir / 'validation.npz'}"]
        result = run("neighbours", *flags, f"--data_dir={tiny_data_dir}", f"--output={tmp_path / 'n.png'}")
        assert result.returncode != 0
        assert "It holds those of others" in result.stderr
