"""alexnet-features and alexnet-neighbours: the vectors are the layer's, and the nearest are the nearest."""

import csv
import dataclasses
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from programs import call

from alexnet_tf import activations, build_alexnet, preprocess
from alexnet_tf.evaluation import features, panels, predictions
from alexnet_tf.model import load_model
from alexnet_tf.networks import descriptions
from alexnet_tf.tfrecords import reader, schema


@pytest.fixture(scope="module")
def features_dir(untrained_dir, data_dir, tmp_path_factory):
    """Features of relu7 and pool5 for both splits."""
    folder = tmp_path_factory.mktemp("features")
    for split, count in (("train", 3000), ("validation", 1000)):
        flags = ["--layers=pool5,relu7", f"--split={split}", f"--output={folder / split}.npz"]
        output = call("extract_features", f"--model={untrained_dir}", f"--data_dir={data_dir}", *flags)
        assert f"relu7: {count:,} vectors of" in output
    return folder


@pytest.mark.slow  # a model is run on all images
class TestFeatures:
    def test_each_layer_has_a_file_of_its_outputs(self, features_dir, untrained, data_dir):
        model, _ = untrained
        pixels, labels = next(iter(reader.make_evaluation_dataset(data_dir, 100, model.input_shape[1])))
        for layer, columns in activations(model, pixels, ["pool5", "relu7"]).items():
            found = features.Features.load(features_dir / f"validation_{layer}.npz")
            assert (found.layer, found.class_names) == (layer, model.description.class_names)
            np.testing.assert_array_equal(found.labels[:100], labels)
            expected = np.concatenate(columns, axis=-1).reshape(100, -1)
            np.testing.assert_allclose(found.vectors[:100], expected, rtol=1e-4, atol=1e-5)

    def test_tfrecord(self, features_dir, untrained_dir, data_dir, tmp_path):
        path = tmp_path / "validation.tfrecord"  # of the last hidden layer
        call("extract_features", f"--model={untrained_dir}", f"--data_dir={data_dir}", f"--output={path}")
        found = features.Features.load(features_dir / "validation_relu7.npz")
        examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        vectors = np.float32([example.features.feature["features"].float_list.value for example in examples])
        np.testing.assert_array_equal(vectors, found.vectors)
        labels = [example.features.feature[schema.LABEL].int64_list.value[0] for example in examples]
        np.testing.assert_array_equal(labels, found.labels)
        names = [example.features.feature[schema.FILENAME].bytes_list.value[0].decode() for example in examples]
        assert names == found.files.tolist() and len(set(names)) == 1000

    def test_picture_and_table_of_neighbors(self, features_dir, data_dir, tmp_path):
        train, validation = (str(features_dir / f"{split}_relu7.npz") for split in schema.SPLITS)
        flags = [f"--features={train}", f"--queries={validation}", "--count=4", "--pictured=3", "--metric=euclidean"]
        output = call("neighbours", *flags, f"--data_dir={data_dir}", f"--output={tmp_path / 'n.png'}")
        searched, queries = map(features.Features.load, (train, validation))
        with np.load(tmp_path / "n.npz") as table:
            numbers = table["indices"]
            np.testing.assert_array_equal(table["neighbors"], searched.files[numbers])
            assert numbers.shape == table["distances"].shape == (1000, 4)
            differences = searched.vectors[numbers[7]] - queries.vectors[7]
            np.testing.assert_allclose(table["distances"][7], np.linalg.norm(differences, axis=1), rtol=1e-4)
        agree = np.mean(searched.labels[numbers[:, 0]] == queries.labels)
        assert f"of the same class for {agree:.1%} of 1,000 images" in output
        assert agree > 0.3  # chance is 0.1
        expected = panels.draw_neighbors(queries, searched, numbers, data_dir, schema.load_description(data_dir), 3)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "n.png")), expected)


class TestImageFiles:
    """A folder of unlabeled images, one of which can't be read."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("photos")
        for index, color in enumerate(["red", "darkred", "blue", "navy", "green"]):
            image = Image.new("RGB", (60 + 10 * index, 60), color)
            image.paste("white", (0, 0, 20, 60))  # so that the vector depends on how the image is resized
            image.save(folder / f"{index}_{color}.png")
        (folder / "notes.txt").write_text("no image")
        return folder

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("model") / "colors.keras"
        network = build_alexnet("testing", include_top=False, initializer="he_normal", input_scale=0.01)
        descriptions.set_description(network, descriptions.make_description((), 70, resize="warp"))
        network.save(path)
        return path

    def test_vectors_have_the_files_names(self, folder, model, tmp_path, capsys):
        for suffix in ("npz", "csv", "tfrecord"):
            with pytest.raises(SystemExit):  # because of the text file
                call(
                    "extract_features", f"--model={model}", f"--output={tmp_path}/f.{suffix}", "--batch_size=2", folder
                )
        assert "notes.txt: not an image that can be read" in capsys.readouterr().err
        found, paths = features.Features.load(tmp_path / "f.npz"), sorted(map(str, folder.glob("*.png")))
        assert found.files.tolist() == paths and found.layer == "pool5" and not found.split
        opened = load_model(model)
        expected = opened.predict(preprocess(paths, opened), verbose=0).reshape(5, -1)
        np.testing.assert_allclose(found.vectors, expected, rtol=1e-4, atol=1e-5)
        rows = list(csv.reader((tmp_path / "f.csv").open(encoding="utf-8")))
        assert rows[0] == ["file", "class", *map(str, range(found.vectors.shape[1]))]
        assert [row[:2] for row in rows[1:]] == [[path, ""] for path in paths]
        np.testing.assert_allclose(np.float32([row[2:] for row in rows[1:]]), found.vectors, rtol=1e-6)
        records = [r.numpy() for r in tf.data.TFRecordDataset(str(tmp_path / "f.tfrecord"))]
        feature = tf.train.Example.FromString(records[4]).features.feature
        assert feature[schema.FILENAME].bytes_list.value[0].decode() == paths[4]

    def test_names_that_are_not_utf8_keep_their_bytes(self, tmp_path):
        names = np.array([os.fsdecode(b"\xff.png")])
        found = features.Features("relu7", (), "", "", np.zeros(0, "int32"), np.ones((1, 2), "float32"), names)
        found.save(tmp_path / "f.npz")
        assert features.Features.load(tmp_path / "f.npz").files == names
        found.save_csv(tmp_path / "f.csv")
        found.save_tfrecord(tmp_path / "f.tfrecord")
        assert b"\n\xff.png,,1,1\n" in (tmp_path / "f.csv").read_bytes()
        assert b"\xff.png" in (tmp_path / "f.tfrecord").read_bytes()

    def test_neighbors_of_each_file_are_others(self, folder, model, tmp_path):
        flags = [f"--model={model}", "--layers=relu1", f"--output={tmp_path}/f.npz"]
        call("extract_features", *flags, *sorted(folder.glob("*.png")))
        output = call("neighbours", f"--features={tmp_path}/f.npz", "--count=2", f"--output={tmp_path}/n.png")
        assert "same class" not in output and Image.open(tmp_path / "n.png").width > 300
        rows = list(csv.DictReader((tmp_path / "n.csv").open(encoding="utf-8")))
        assert len(rows) == 10 and all(row["query"] != row["neighbor"] for row in rows)
        nearest = {pathlib.Path(r["query"]).stem: pathlib.Path(r["neighbor"]).stem for r in rows if r["rank"] == "1"}
        assert nearest["0_red"] == "1_darkred" and nearest["3_navy"] == "2_blue"


class TestMistakes:
    def test_missing_layer(self, untrained_dir, data_dir, tmp_path):
        flags = [f"--model={untrained_dir}", f"--data_dir={data_dir}", f"--output={tmp_path / 'a.npz'}", "--layers=fc9"]
        with pytest.raises(ValueError, match="`layers` must be among mean_image, "):
            call("extract_features", *flags)

    @pytest.mark.parametrize(
        "program, flags, message",
        [
            ("extract_features", ["--model=run", "--output=a.txt"], r"`output` must end in \.npz, \.csv or \.tfrecord"),
            (
                "extract_features",
                ["--model=run", "--output=a.npz", "a.jpg"],
                "Give either image files or folders, or --",
            ),
            ("neighbours", ["--features=a.npz", "--queries=b.npz", "--output=a.csv"], r"`output` must end in \.png"),
        ],
    )
    def test_wrong_flags(self, program, flags, message):
        with pytest.raises(ValueError, match=message):
            call(program, *flags, "--data_dir=data")

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"weights": "other"}, r"must be of the same model\. .*searched\.npz and .*queries\.npz"),
            ({"layer": "relu6"}, r"must be of the same layer\. Received: relu7 and relu6"),
            ({"images": "other"}, "Received: features of other images"),
        ],
    )
    def test_features_that_can_not_be_compared(self, changes, message, data_dir, tmp_path):
        description = schema.load_description(data_dir)
        images = predictions.checksum(description, "validation")
        labels, vectors = np.zeros(8, "int32"), np.eye(8, dtype="float32")
        saved = features.Features(
            "relu7", description.class_names, "validation", images, labels, vectors, labels.astype(str), "one"
        )
        saved.save(tmp_path / "searched.npz")
        dataclasses.replace(saved, **changes).save(tmp_path / "queries.npz")
        flags = [f"--features={tmp_path / 'searched.npz'}", f"--queries={tmp_path / 'queries.npz'}", "--count=3"]
        with pytest.raises(ValueError, match=message):
            call("neighbours", *flags, f"--data_dir={data_dir}", f"--output={tmp_path / 'n.png'}")
        assert not (tmp_path / "n.png").exists()

    def test_features_that_are_not_finite(self):
        with pytest.raises(ValueError, match=r"must be finite numbers\. Received: NaN or infinity in .* relu7"):
            features.Features("relu7", ("a",), "train", "", np.zeros(1), np.array([[0, np.nan]]), np.zeros(1, str))
