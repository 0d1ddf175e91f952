"""Data sets in our format and from TensorFlow Datasets, and the program that builds them."""

import shutil
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags
from made_photos import encoded, photo
from PIL import Image

from alexnet_tf.tfrecords import build, dataset_builder


@pytest.fixture
def run_build(monkeypatch, capsys):
    """A function that runs alexnet-tfrecords in this process and returns its status, stdout and stderr."""

    def run(*arguments):
        before = set(flags.FLAGS)
        monkeypatch.setattr("sys.argv", ["alexnet-tfrecords", *map(str, arguments)])
        capsys.readouterr()
        try:
            build.run()
        except SystemExit as ended:
            captured = capsys.readouterr()
            return types.SimpleNamespace(status=ended.code or 0, stdout=captured.out, stderr=captured.err)
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)

    return run


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """Data sets of TensorFlow Datasets: with split `test`, with `train` only, without labels, sorted by 20 classes.

    Every pixel of image i is i % 256.
    """
    root = tmp_path_factory.mktemp("tfds")

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(self.feature_dict)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=self.name == "ordered")

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(count) for split, count in self.counts.items()}

        def _generate_examples(self, count):
            for number in range(count):
                label = number // 20 if self.name == "ordered" else number % 2
                example = {"image": np.full((8, 8, 3), number % 256, "uint8"), "label": label}
                yield number, {key: example[key] for key in self.feature_dict}

    image = tfds.features.Image(shape=(8, 8, 3), encoding_format="png")
    label = tfds.features.ClassLabel(names=["even", "odd"])
    for name, counts, features in (
        ("with_test", {"train": 20, "test": 6}, {"image": image, "label": label}),
        ("train_only", {"train": 20}, {"image": image, "label": label}),
        ("unlabeled", {"train": 2}, {"image": image}),
        ("ordered", {"train": 400}, {"image": image, "label": tfds.features.ClassLabel(num_classes=20)}),
    ):
        attributes = {"name": name, "counts": counts, "feature_dict": features}
        builder = type(name, (Tiny,), attributes, skip_registration=True)
        builder(data_dir=root).download_and_prepare()
    return root


@pytest.fixture
def copy(tiny_data_dir, tmp_path):
    """A copy of the tiny data set that a test may damage."""
    return shutil.copytree(tiny_data_dir, tmp_path / "data")


@pytest.fixture(scope="session")
def own_dir(tmp_path_factory):
    """A data set with 60 training and 12 validation photographs of 4 classes, as JPEGs of 64 pixels."""
    root = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for number in range(72):
        image = np.roll(np.asarray(photo(70, 80)), random.integers(0, 70, 3), (0, 1, 2))
        path = root / "images" / ("train" if number < 60 else "val") / f"class {number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(image), "JPEG", quality=95))
    dataset_builder.build_dataset(
        f"folder:{root / 'images'}",
        root / "data",
        image_px=64,
        num_train_shards=3,
        num_validation_shards=2,
        num_processes=1,
    )
    return root / "data"
