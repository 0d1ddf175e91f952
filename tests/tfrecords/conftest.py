"""Data sets of TensorFlow Datasets."""

import numpy as np
import pytest
import tensorflow_datasets as tfds


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """Sets on disk: with a split `test`, with `train` alone, without labels, and in the order of 20 classes.

    Image i is full of i.
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
        ("train_alone", {"train": 20}, {"image": image, "label": label}),
        ("unlabeled", {"train": 2}, {"image": image}),
        ("ordered", {"train": 400}, {"image": image, "label": tfds.features.ClassLabel(num_classes=20)}),
    ):
        attributes = {"name": name, "counts": counts, "feature_dict": features}
        builder = type(name, (Tiny,), attributes, skip_registration=True)
        builder(data_dir=root).download_and_prepare()
    return root
