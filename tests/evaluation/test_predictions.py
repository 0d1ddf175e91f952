"""Saved predictions, and models that are opened to predict a data set."""

import dataclasses
import shutil

import numpy as np
import pytest

from alexnet_tf.evaluation import predictions
from alexnet_tf.tfrecords import schema

IDS = [f"n{number:08}" for number in range(10)]


@pytest.fixture
def saved():
    random = np.random.default_rng(1)
    labels, probabilities = random.integers(0, 7, 400), random.dirichlet(np.ones(7), 400).astype("float32")
    return predictions.Predictions("a/b", tuple("abcdefg"), "train", "12ab", labels, {"center_crop": probabilities})


class TestPredictions:
    def test_round_trip(self, saved, tmp_path):
        saved.save(tmp_path / "a.npz")
        loaded = predictions.Predictions.load(tmp_path / "a.npz")
        for field in dataclasses.fields(saved):
            np.testing.assert_equal(getattr(loaded, field.name), getattr(saved, field.name))

    def test_damaged_file(self, tmp_path):
        (tmp_path / "a.npz").write_bytes(b"PK")
        with pytest.raises(ValueError, match=r"a\.npz must hold predictions"):
            predictions.Predictions.load(tmp_path / "a.npz")

    def test_probabilities_that_are_not_finite(self, saved, tmp_path):
        saved.views["center_crop"][3], saved.views["center_crop"][7, 1] = np.nan, np.inf
        message = r"Probabilities must be finite\. Received: NaN or infinity from a/b for 2 of 400 .*center_crop"
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(saved)
        saved.save(tmp_path / "a.npz")
        with pytest.raises(ValueError, match=message):
            predictions.Predictions.load(tmp_path / "a.npz")

    def test_predictions_of_other_images_or_another_split_are_refused(self, saved, tiny_data_dir, tmp_path):
        description = schema.load_description(tiny_data_dir)
        same = dataclasses.replace(saved, images=predictions.checksum(description, "train"))
        for each, split, fits in ((same, "train", True), (saved, "train", False), (same, "validation", False)):
            each.save(tmp_path / "a.npz")
            if fits:
                assert predictions.load_matching(tmp_path / "a.npz", "data", description, split).name == "a/b"
                continue
            with pytest.raises(ValueError, match=f"must hold predictions of the split {split} of data"):
                predictions.load_matching(tmp_path / "a.npz", "data", description, split)

    def test_checksum_depends_on_the_records_and_on_those_left_out(self, tiny_data_dir):
        description = schema.load_description(tiny_data_dir)
        first, *others = description.splits["train"].shards
        checksums = set()
        for shard in (first, dataclasses.replace(first, left_out=(3,)), dataclasses.replace(first, sha256="0" * 64)):
            split = dataclasses.replace(description.splits["train"], shards=(shard, *others))
            changed = dataclasses.replace(description, splits=description.splits | {"train": split})
            checksums.add(predictions.checksum(changed, "train"))
        assert len(checksums) == 3


class TestLoadModelFor:
    @pytest.fixture
    def load(self, untrained_dir, data_dir, tmp_path):
        """A function that opens a network of classes `known` for a data set of classes `wanted`."""

        def load_model_for(known, wanted, resize="crop"):
            shutil.copytree(untrained_dir, tmp_path / "run")
            settings = {"exif_orientation": True, "resize": resize}
            schema.DatasetDescription(tuple(known), 64, False, "png", {}, settings).save(tmp_path / "run")
            data = dataclasses.replace(schema.load_description(data_dir), class_names=tuple(wanted))
            return predictions.load_model_for(tmp_path / "run", data_dir, data)

        return load_model_for

    @pytest.mark.parametrize("chosen", [[7, 2, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], list(range(10))])
    def test_classes_of_the_data_set_are_predicted_in_its_order(self, chosen, load, untrained):
        model = load([f"{each} words" for each in IDS], [IDS[index] for index in chosen])
        images = np.random.default_rng(0).integers(0, 256, (5, 56, 56, 3)).astype("uint8")
        expected = untrained[0].predict(images, verbose=0)[:, chosen]
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5)

    @pytest.mark.parametrize(
        "known, wanted", [(IDS, ["n99999999", *IDS[1:]]), ("aabcdefghi", "ab"), (IDS, "0123456789")]
    )
    def test_other_or_ambiguous_classes(self, known, wanted, load):
        with pytest.raises(ValueError, match="must have been trained on the classes of the data set"):
            load(known, wanted)

    def test_numbers_of_imagenet_v2_are_imagenets_labels(self):
        ids = [f"n{3 * number:08}" for number in range(1000)]
        numbers = sorted(map(str, range(1000)))  # as folders are listed: 0, 1, 10, 100, ...
        assert predictions._class_columns(ids, numbers) == [int(number) for number in numbers]
        assert predictions._class_columns(ids[::-1], numbers) == [999 - int(number) for number in numbers]
        assert predictions._class_columns(ids, numbers[:-1]) is None

    def test_other_resizing_is_reported(self, load, caplog):
        load(IDS, IDS, resize="warp")
        assert "alexnet-tfrecords --resize=warp" in caplog.text
