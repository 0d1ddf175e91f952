"""Unpacked folders of ImageNet."""

import io
import shutil
import tarfile

import pytest
from batches import read_all
from made_ilsvrc import DEVKIT, make_ilsvrc

from alexnet_tf.tfrecords import sources


def unpack(archives, folder, sort_validation=False):
    """Unpacks the archives of `make_ilsvrc` into train/CLASS and val, as the usual shell script does."""
    with tarfile.open(archives / "ILSVRC2012_img_train.tar") as tar:
        for member in tar:
            with tarfile.open(fileobj=io.BytesIO(tar.extractfile(member).read())) as class_tar:
                class_tar.extractall(folder / "train" / member.name.removesuffix(".tar"), filter="data")
    with tarfile.open(archives / "ILSVRC2012_img_val.tar") as tar:
        tar.extractall(folder / "val", filter="data")
    if sort_validation:
        for path in list((folder / "val").iterdir()):
            class_id, _ = DEVKIT[int(path.stem[-8:]) % 4]
            (folder / "val" / class_id).mkdir(exist_ok=True)
            path.rename(folder / "val" / class_id / path.name)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return make_ilsvrc(tmp_path_factory.mktemp("ilsvrc"))


def read(source, split):
    """A dict from file name to class name."""
    return {name.rpartition("/")[2]: source.class_names[label] for name, _, label in read_all(source, split)}


@pytest.mark.parametrize(
    ("place", "sort_validation"),
    [("", False), ("", True), ("ILSVRC/Data/CLS-LOC", False)],
    ids=["flat", "by class", "kaggle"],
)
def test_images_and_classes_equal_the_archives(archives, tmp_path, place, sort_validation):
    unpack(archives, tmp_path / place, sort_validation)
    shutil.copy(archives / "ILSVRC2012_devkit_t12.tar.gz", tmp_path)
    unpacked, packed = (sources.open_source(f"ilsvrc2012:{folder}") for folder in (tmp_path, archives))
    assert unpacked.class_names == packed.class_names
    for split in ("train", "validation"):
        assert read(unpacked, split) == read(packed, split)


def test_missing_images_and_classes_are_refused(archives, tmp_path):
    unpack(archives, tmp_path)
    with pytest.raises(ValueError, match=r"images 1 to 50000, .* Found: 12"):
        sources.open_source(f"ilsvrc2012:{tmp_path}")  # without the devkit: the complete ILSVRC2012
    shutil.copy(archives / "ILSVRC2012_devkit_t12.tar.gz", tmp_path)
    missing = tmp_path / "val" / "ILSVRC2012_val_00000003.JPEG"
    missing.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"val must contain images 1 to 12, .* Found: 11"):
        sources.open_source(f"ilsvrc2012:{tmp_path}")
    (tmp_path / "moved").rename(missing)
    shutil.rmtree(tmp_path / "train" / "n01440764")
    with pytest.raises(ValueError, match=r"4 classes in train. Found: 3. Missing or unknown: n01440764"):
        sources.open_source(f"ilsvrc2012:{tmp_path}")
