"""Names of sources, and Fashion-MNIST."""

import collections
import gzip
import pathlib
import pickle

import numpy as np
import pytest
from batches import read_all
from made_fashion_mnist import idx, write_fashion_mnist

from alexnet_tf.tfrecords import fashion_mnist, sources

INSTALLED = pathlib.Path("/usr/share/datasets/fashion-mnist")


class TestOpenSource:
    @pytest.mark.parametrize("name", ["", "mnist", "folder", "folder:", "tfds:", "flowers:/data"])
    def test_unknown_name_lists_the_sources(self, name):
        with pytest.raises(ValueError, match=rf"ilsvrc2010:PATH\. Received: '{name}'"):
            sources.open_source(name)

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
    def test_validation_fraction_out_of_range(self, fraction):
        with pytest.raises(ValueError, match="`validation_fraction` must be between 0 and 1"):
            sources.open_source("fashion_mnist", validation_fraction=fraction)


class TestFashionMnist:
    def test_sample_has_its_images_of_each_class(self):
        source = sources.open_source("fashion_mnist")
        assert len(source.class_names) == 10
        for split, count in (("train", 300), ("validation", 100)):
            entries = read_all(source, split)
            assert collections.Counter(label for _, _, label in entries) == dict.fromkeys(range(10), count)
            assert len({image.tobytes() for _, image, _ in entries}) > 9.9 * count
            assert all(image.shape == (28, 28) and image.dtype == np.uint8 for _, image, _ in entries)

    def test_checksum_depends_on_images_and_labels(self, tmp_path):
        folders = [write_fashion_mnist(tmp_path / name, suffix="") for name in ("same", "equal", "images", "labels")]
        (folders[2] / "train-images-idx3-ubyte").write_bytes(idx(np.ones((6, 28, 28))))
        (folders[3] / "train-labels-idx1-ubyte").write_bytes(idx(np.ones(6)))
        same, equal, *others = (sources.open_source(f"fashion_mnist:{folder}").checksum() for folder in folders)
        assert same == equal and len({same, *others}) == 3

    @pytest.mark.parametrize("suffix", [".gz", ""])
    def test_pickled_source_reads_any_range(self, tmp_path, suffix):
        source = sources.open_source(f"fashion_mnist:{write_fashion_mnist(tmp_path / 'set', suffix=suffix)}")
        part = list(pickle.loads(pickle.dumps(source)).read("train", 2, 5))
        assert [(name, image[0, 0], label) for name, image, label in part] == [
            ("train-00002", 2, 2),
            ("train-00003", 3, 3),
            ("train-00004", 4, 4),
        ]
        assert (source.count("train"), source.count("validation")) == (6, 4)

    def test_folder_without_the_files(self, tmp_path):
        with pytest.raises(ValueError, match=f"Found no .* in {tmp_path}"):
            sources.open_source(f"fashion_mnist:{tmp_path}")

    def test_missing_installed_data_set_names_both_folders(self, monkeypatch, tmp_path):
        monkeypatch.setattr(fashion_mnist, "_INSTALLED_DIRS", (tmp_path / "debian", tmp_path / "keras"))
        with pytest.raises(ValueError, match=r"debian or .*keras"):
            sources.open_source("fashion_mnist:installed")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            idx(np.zeros((6, 28, 28)))[:-1],
            idx(np.zeros((6, 28, 28))) + b"\0",
            idx(np.zeros((6, 784))),
            b"\0\0\x0d\x03" + idx(np.zeros((6, 28, 28)))[4:],
        ],
        ids=["empty", "short", "long", "two dimensions", "floats"],
    )
    def test_damaged_idx_file(self, tmp_path, content):
        folder = write_fashion_mnist(tmp_path / "set")
        (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match="train-images-idx3-ubyte must be an IDX file"):
            sources.open_source(f"fashion_mnist:{folder}").count("train")

    @pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"no gzip"], ids=["cut", "no gzip"])
    def test_damaged_gzip_file(self, tmp_path, damage):
        path = write_fashion_mnist(tmp_path / "set") / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.* can't be read"):
            sources.open_source(f"fashion_mnist:{tmp_path / 'set'}").count("validation")

    @pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, 2, 10]], ids=["fewer", "too large"])
    def test_labels_out_of_range(self, tmp_path, labels):
        folder = write_fashion_mnist(tmp_path / "set")
        (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array(labels))))
        with pytest.raises(ValueError, match=f"Received: 4 t10k images and {len(labels)} labels"):
            sources.open_source(f"fashion_mnist:{folder}").count("validation")
