"""Data sets of TensorFlow Datasets."""

import collections
import io
import pickle
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from batches import read_all
from PIL import Image

from alexnet_tf.tfrecords import sources


class TestTfds:
    @pytest.mark.parametrize(("name", "counts"), [("with_test", (20, 6)), ("train_only", (16, 4))])
    def test_ranges_equal_the_complete_split(self, tfds_dir, name, counts):
        source = sources.open_source(f"tfds:{name}", validation_fraction=0.25, tfds_data_dir=tfds_dir)
        source = pickle.loads(pickle.dumps(source))
        assert source.class_names == ("even", "odd")
        assert (source.count("train"), source.count("validation")) == counts
        complete = read_all(source, "train")
        parts = [*source.read("train", 0, 4), *source.read("train", 4, 11), *source.read("train", 11, counts[0])]
        assert [entry[:1] + entry[2:] for entry in parts] == [entry[:1] + entry[2:] for entry in complete]
        assert [entry[1] for entry in parts] == [entry[1] for entry in complete]
        images = [content for split in ("train", "validation") for _, content, _ in read_all(source, split)]
        assert all(content.startswith(b"\x89PNG") for content in images)  # as stored, not decoded
        assert len(set(images)) == 20  # with_test's validation images are among its training images

    def test_sorted_data_set_is_mixed_and_stratified(self, tfds_dir):
        source = sources.open_source("tfds:ordered", tfds_data_dir=tfds_dir)
        train, validation = ([label for *_, label in read_all(source, split)] for split in ("train", "validation"))
        assert collections.Counter(train) == dict.fromkeys(range(20), 18)
        assert collections.Counter(validation) == dict.fromkeys(range(20), 2)
        assert np.mean([len(set(train[start : start + 20])) for start in range(0, 360, 20)]) > 11  # 12.8 at random

    def test_seed_determines_the_order(self, tfds_dir):
        one, same, other = (sources.open_source("tfds:ordered", seed, tfds_data_dir=tfds_dir) for seed in (1, 1, 2))
        names = [[name for name, *_ in read_all(source, "validation")] for source in (one, same, other)]
        assert names[0] == names[1] != names[2]

    def test_names_and_labels_match_images(self, tfds_dir):
        source = sources.open_source("tfds:ordered", tfds_data_dir=tfds_dir)
        for split in ("train", "validation"):
            for name, content, label in read_all(source, split):
                place = int(name.removeprefix("train-"))
                assert label == place // 20
                assert (np.asarray(Image.open(io.BytesIO(content))) == place % 256).all()

    def test_damaged_record(self, tfds_dir, tmp_path):
        copy = shutil.copytree(tfds_dir, tmp_path / "tfds")
        (path,) = (copy / "ordered").rglob("*.tfrecord*")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        source = sources.open_source("tfds:ordered", tfds_data_dir=copy)
        path.write_bytes(content)
        with pytest.raises(tf.errors.DataLossError):
            read_all(source, "train"), read_all(source, "validation")

    def test_other_file_format(self, tfds_dir, monkeypatch):
        monkeypatch.setattr(tfds.core.DatasetInfo, "file_format", tfds.core.FileFormat.ARRAY_RECORD)
        with pytest.raises(ValueError, match=r"tfds:ordered must be stored as tfrecord. Received: array_record"):
            sources.open_source("tfds:ordered", tfds_data_dir=tfds_dir)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("imagenet2012", "source=ilsvrc2012:FOLDER Reason: .*Manual directory"), ("nothing", "Reason: .*not found")],
    )
    def test_data_set_that_can_not_be_prepared(self, tmp_path, name, reason):
        with pytest.raises(ValueError, match=rf"can't prepare tfds:{name}\..*{reason}"):
            sources.open_source(f"tfds:{name}", tfds_data_dir=tmp_path)

    def test_data_set_without_labels(self, tfds_dir):
        with pytest.raises(ValueError, match="features `image` and `label`"):
            sources.open_source("tfds:unlabeled", tfds_data_dir=tfds_dir)
