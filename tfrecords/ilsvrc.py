"""ImageNet's archives as a source. Images are read from the archives, without unpacking them.

The folder contains the archives as ImageNet distributes them:

    ILSVRC2012_img_train.tar        one tar of JPEGs per class: n01440764.tar, ...
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG, ...
    ILSVRC2012_devkit_t12.tar.gz    or its unpacked folder; optional for 2012

and for 2010 ILSVRC2010_images_train.tar, ILSVRC2010_images_val.tar and ILSVRC2010_devkit-1.0.tar.gz. With
ILSVRC2010_test_ground_truth.txt and ILSVRC2010_images_test.tar there is a split "test". (The labels of the test images
of 2012 were never published.)

Labels follow the order of the WordNet ids, as in TensorFlow Datasets and torchvision. The devkit has another order: the
first validation image has class 490 there and label 65 here.
"""

import contextlib
import dataclasses
import hashlib
import io
import pathlib
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from alexnet_tf.tfrecords import image_files


@dataclasses.dataclass(frozen=True)
class Ilsvrc:
    """Images inside uncompressed tar files.

    Attributes:
        class_names: class names in the order of the labels.
        archives: a dict from split to tar file.
        images: a dict from split to a structured array with name, offset in the tar file, size in bytes and label of
            each image.
    """

    class_names: tuple[str, ...]
    archives: dict[str, pathlib.Path]
    images: dict[str, np.ndarray]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.images)

    def count(self, split: str) -> int:
        return len(self.images[split])

    def checksum(self) -> str:
        return hashlib.sha256(b"".join(images.tobytes() for images in self.images.values())).hexdigest()

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        with self.archives[split].open("rb") as file:
            for name, offset, size, label in self.images[split][start:stop]:
                file.seek(offset)
                yield name.decode(), file.read(size), int(label)


def make_ilsvrc_source(year: str, path: str | pathlib.Path, seed: int) -> Ilsvrc:
    """Lists the images in the archives.

    Args:
        year: "2010" or "2012".
        path: folder of the archives.
        seed: seed of the order of the training images. The others are sorted by name.

    Raises:
        ValueError: if an archive is missing or incomplete, or its classes are not those of the devkit.
    """
    folder = pathlib.Path(path).expanduser()
    archives = {
        "train": _find_archive(folder, f"ILSVRC{year}_im*_train.tar"),
        "validation": _find_archive(folder, f"ILSVRC{year}_im*_val.tar"),
    }
    if (folder / f"ILSVRC{year}_test_ground_truth.txt").exists():
        archives["test"] = _find_archive(folder, f"ILSVRC{year}_im*_test.tar")
    ids, entries = _label(_list_training_images(archives["train"]))
    words, truth = read_classes_and_truth(folder, year)
    if set(ids) != set(words):
        raise ValueError(
            f"{archives['train']} must contain one tar for each of the {len(words)} classes. Found: {len(ids)}. "
            f"Missing or unknown: {', '.join(sorted(set(ids) ^ set(words))[:5])}"
        )
    order = np.random.default_rng(seed).permutation(len(entries))
    images = {"train": _as_array(entries)[order]}
    for split in archives.keys() - {"train"}:
        images[split] = _list_numbered_images(archives[split], np.searchsorted(ids, truth[split]).tolist())
    names = tuple(f"{class_id} {words[class_id]}".strip() for class_id in ids)
    return Ilsvrc(names, archives, {split: images[split] for split in archives})


def make_release_source(path: str | pathlib.Path, seed: int, validation_fraction: float) -> Ilsvrc:
    """Lists the images of a complete release of ImageNet, such as fall11_whole.tar: one tar with a tar per class.

    Args:
        path: the tar.
        seed, validation_fraction: see `sources.open_source`.

    Raises:
        ValueError: if the tar does not exist or is damaged, or a class has only one image.

    Source: section 6: half of the 8.9 million images of Fall 2009 (10,184 classes) for training, half for testing.
    """
    archive = pathlib.Path(path).expanduser()
    if not archive.is_file():
        raise ValueError(f"`source` must name a tar of tars, one per class. Received: imagenet:{path}")
    ids, entries = _label(_list_training_images(archive))
    labels = [label for *_, label in entries]
    counts = np.bincount(labels)
    if 1 in counts:
        raise ValueError(f"{archive}: a class must have an image for each split. {ids[counts.argmin()]} has 1.")
    random, words = np.random.default_rng(seed), read_classes()
    parts = image_files.hold_out(labels, validation_fraction, random)
    images = {split: _as_array(sorted(entries[index] for index in part)) for split, part in parts.items()}
    images["train"] = images["train"][random.permutation(len(images["train"]))]
    names = tuple(f"{class_id} {words.get(class_id, '')}".strip() for class_id in ids)
    return Ilsvrc(names, dict.fromkeys(images, archive), images)


def _label(listed):
    """The sorted WordNet ids of listed training images, and (name, offset, size, label) of each image."""
    listed = list(listed)
    ids = sorted({class_id for class_id, *_ in listed})
    labels = {class_id: label for label, class_id in enumerate(ids)}
    return ids, [(f"{class_id}/{name}", offset, size, labels[class_id]) for class_id, name, offset, size in listed]


def _list_numbered_images(path, labels):
    """The images of a tar whose names end with their number, by which they have labels; sorted by name."""
    entries = []
    with _open_tar(path) as tar:
        for image in _list_tar(tar):
            number = re.fullmatch(r"(?:.*/)?ILSVRC\d+_(?:val|test)_(\d+)\.JPEG", image.name)
            if not number or not 1 <= int(number[1]) <= len(labels):
                raise ValueError(
                    f"{path} must contain images 1 to {len(labels)}, which have labels. Found: {image.name}"
                )
            entries.append((image.name, image.offset_data, image.size, labels[int(number[1]) - 1]))
    if len(entries) != len(labels):
        raise ValueError(f"{path} must contain {len(labels)} images. Found: {len(entries)}")
    return _as_array(sorted(entries))


def _find_archive(folder, pattern):
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(
            f"{folder} must contain one file {pattern}. Found: {', '.join(path.name for path in found) or 'none'}"
        )
    return found[0]


def read_classes_and_truth(folder: pathlib.Path, year: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """A dict from WordNet id to words, and a dict from "validation" to the WordNet id of each image; also from "test"
    if the folder contains the labels of the test images.

    They come from the devkit in the folder; for 2012 without a devkit, from this package and TensorFlow Datasets.

    Raises:
        ValueError: if there is no devkit for 2010, the devkit is not complete or from another year, or SciPy is not
            installed.
    """
    devkit = sorted(folder.glob(f"ILSVRC{year}_devkit*"))
    if devkit:
        return _read_devkit(devkit[0], year)
    if year == "2012":
        return read_classes(), {"validation": _read_tfds_validation_ids()}
    raise ValueError(f"{folder} must contain ILSVRC{year}_devkit*, which has the labels of the validation images.")


def _as_array(entries):
    longest = max((len(name) for name, *_ in entries), default=1)
    return np.array(entries, [("name", f"S{longest}"), ("offset", "int64"), ("size", "int64"), ("label", "int32")])


@contextlib.contextmanager
def _open_tar(path, file=None):
    """Opens an uncompressed tar: the file with a path, or a file inside it."""
    try:
        with tarfile.open(path, "r:", fileobj=file) as tar:
            yield tar
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not a complete tar file: {error}") from error


def _list_tar(tar):
    """Yields the `TarInfo` of each file."""
    end = tar.fileobj.seek(0, io.SEEK_END)
    for member in tar:
        tar.members = []  # would grow to a million entries
        if member.isfile():
            if member.offset_data + member.size > end:
                raise tarfile.ReadError(f"{member.name} extends past the end of the file")
            yield member


def _list_training_images(path):
    """Yields (WordNet id, name, offset, size) of each image in a tar of tars."""
    with _open_tar(path) as tar:
        for class_file in _list_tar(tar):
            class_id = pathlib.PurePosixPath(class_file.name).stem
            if not re.fullmatch(r"n\d{8}", class_id) or not class_file.name.endswith(".tar"):
                raise ValueError(f"{path} must contain tars named by WordNet ids. Found: {class_file.name}")
            file: Any = tar.extractfile(class_file)
            with file, _open_tar(path, file) as class_tar:
                for image in _list_tar(class_tar):
                    yield class_id, image.name, class_file.offset_data + image.offset_data, image.size


def _read_devkit(path, year):
    """As `read_classes_and_truth`, from the tar file of a devkit, or its unpacked folder."""
    try:
        import scipy.io
    except ImportError as error:
        raise ValueError(f"Reading {path} needs SciPy: pip install --editable '.[ilsvrc]'") from error
    truth_name = f"ILSVRC{year}_validation_ground_truth.txt"
    wanted = {"meta.mat", truth_name}
    if path.is_dir():
        content = {file.name: file.read_bytes() for file in path.rglob("*") if file.name in wanted}
    else:
        try:
            with tarfile.open(path) as tar:
                members = {pathlib.PurePosixPath(member.name).name: member for member in tar if member.isfile()}
                files = {name: tar.extractfile(members[name]) for name in wanted & members.keys()}
                content = {name: file.read() for name, file in files.items() if file}
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"{path} is not a complete tar file: {error}") from error
    if wanted - content.keys():
        raise ValueError(f"{path} must contain meta.mat and {truth_name}. Missing: {sorted(wanted - content.keys())}")
    synsets = scipy.io.loadmat(io.BytesIO(content["meta.mat"]), squeeze_me=True)["synsets"]
    truth = {"validation": [int(line) for line in content[truth_name].split()]}
    test = path.parent / f"ILSVRC{year}_test_ground_truth.txt"
    if test.exists():
        truth["test"] = [int(line) for line in test.read_text().split()]
    # The classes are the leaves of a tree, of which the devkit lists the inner nodes too.
    leaves = [synset for synset in np.atleast_1d(synsets) if int(synset["num_children"]) == 0]
    ids = {int(synset[f"ILSVRC{year}_ID"]): str(synset["WNID"]) for synset in leaves}
    words = {str(synset["WNID"]): str(synset["words"]) for synset in leaves}
    for split, numbers in truth.items():
        if unknown := set(numbers) - ids.keys():
            raise ValueError(f"{path}: {split} images have classes that meta.mat lacks: {sorted(unknown)[:5]}")
    return words, {split: [ids[number] for number in numbers] for split, numbers in truth.items()}


def read_classes() -> dict[str, str]:
    """The 1,000 classes of ILSVRC2012 in the order of the labels: a dict from WordNet id to words."""
    text = (pathlib.Path(__file__).parent / "imagenet_classes" / "classes.txt").read_text(encoding="ascii")
    return dict(line.split(" ", 1) for line in text.splitlines())


def _read_tfds_validation_ids():
    """The WordNet id of each validation image of ILSVRC2012, from TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
