"""ILSVRC's original archives as a source: images are read from them, none is unpacked to disk.

DIR holds the archives as ImageNet distributes them:

    ILSVRC2012_img_train.tar        a tar of one tar for each class, n01440764.tar, ..., of JPEGs
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG, ...
    ILSVRC2012_devkit_t12.tar.gz    or its unpacked folder; optional for 2012

and for 2010 ILSVRC2010_images_train.tar, ILSVRC2010_images_val.tar and ILSVRC2010_devkit-1.0.tar.gz.

Classes are numbered in the order of their WordNet ids, as in TensorFlow Datasets and torchvision. The devkit numbers
them differently: the first validation image is of its class 490, which is number 65 here.
"""

import dataclasses
import io
import pathlib
import re
import tarfile
from collections.abc import Iterator

import numpy as np

YEARS = ("2010", "2012")


@dataclasses.dataclass(frozen=True)
class Ilsvrc:
    """Images inside uncompressed tar files.

    Attributes:
        class_names: in the order of the labels.
        archives: a dict from a split to the path of its tar file.
        images: a dict from a split to a structured array with an entry for each image: its name, the offset of its
            bytes in the tar file, their number, and its label.
    """

    class_names: tuple[str, ...]
    archives: dict[str, pathlib.Path]
    images: dict[str, np.ndarray]

    def count(self, split: str) -> int:
        return len(self.images[split])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        with self.archives[split].open("rb") as file:
            for name, offset, size, label in self.images[split][start:stop]:
                file.seek(offset)
                yield name.decode(), file.read(size), int(label)


def make_ilsvrc_source(year: str, path: str | pathlib.Path, seed: int) -> Ilsvrc:
    """Reads the archives' tables of contents.

    Args:
        year: "2010" or "2012".
        path: folder of the archives.
        seed: of the order of the training images. The validation images keep theirs.

    Raises:
        ValueError: if an archive is missing or cut short, or its classes are not those of the devkit.
    """
    folder = pathlib.Path(path).expanduser()
    archives = {
        "train": _only(folder, f"ILSVRC{year}_im*_train.tar"),
        "validation": _only(folder, f"ILSVRC{year}_im*_val.tar"),
    }
    train = list(_images_of_classes(archives["train"]))
    ids = sorted({class_id for class_id, *_ in train})
    devkit = sorted(folder.glob(f"ILSVRC{year}_devkit*"))
    if devkit:
        ids_of_devkit, words, truth = read_devkit(devkit[0], year)
        truth = [ids_of_devkit[number] for number in truth]
    elif year == "2012":
        words, truth = read_classes(), _validation_labels_of_tfds()
    else:
        raise ValueError(f"{folder} must hold ILSVRC{year}_devkit*, which holds the labels of the validation images.")
    if set(ids) != set(words):
        raise ValueError(
            f"{archives['train']} must hold a tar for each of the {len(words)} classes. It holds {len(ids)}. "
            f"Only in one of the two: {', '.join(sorted(set(ids) ^ set(words))[:5])}"
        )
    numbers = {class_id: number for number, class_id in enumerate(ids)}
    entries = [(f"{class_id}/{name}", offset, size, numbers[class_id]) for class_id, name, offset, size in train]
    order = np.random.default_rng(seed).permutation(len(entries))
    images = {"train": _as_array(entries)[order]}
    validation = []
    for name, offset, size in _files(archives["validation"]):
        number = re.fullmatch(r"(?:.*/)?ILSVRC\d+_val_(\d+)\.JPEG", name)
        if not number or not 1 <= int(number[1]) <= len(truth):
            raise ValueError(
                f"{archives['validation']} must hold images 1 to {len(truth)}, whose labels are known. It holds {name}"
            )
        validation.append((name, offset, size, numbers[truth[int(number[1]) - 1]]))
    images["validation"] = _as_array(sorted(validation))
    if len(validation) != len(truth):
        raise ValueError(f"{archives['validation']} must hold {len(truth)} images. It holds {len(validation)}.")
    names = tuple(f"{class_id} {words[class_id]}".strip() for class_id in ids)
    return Ilsvrc(names, archives, images)


def _only(folder, pattern):
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(f"{folder} must hold one {pattern}. Found: {', '.join(path.name for path in found) or 'none'}")
    return found[0]


def _as_array(entries):
    longest = max((len(name) for name, *_ in entries), default=1)
    return np.array(entries, [("name", f"S{longest}"), ("offset", "int64"), ("size", "int64"), ("label", "int32")])


def _files(archive, fileobj=None):
    """Yields (name, offset of the first byte in the file, size) of each file in an uncompressed tar."""
    end = archive.stat().st_size if fileobj is None else fileobj.seek(0, io.SEEK_END)
    if fileobj is not None:
        fileobj.seek(0)
    try:
        with tarfile.open(archive, "r:", fileobj=fileobj) as tar:
            for member in tar:
                tar.members = []  # pyright: ignore  # it would hold a million of them
                if not member.isfile():
                    continue
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"{member.name} extends past the end of the file")
                yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(f"{archive} is not a complete tar file: {error}") from error


def _images_of_classes(archive):
    """Yields (WordNet id, name, offset, size) of each image in a tar of tars."""
    with archive.open("rb") as file:
        for class_file, class_offset, class_size in _files(archive):
            class_id = pathlib.PurePosixPath(class_file).stem
            if not re.fullmatch(r"n\d{8}", class_id) or not class_file.endswith(".tar"):
                raise ValueError(f"{archive} must hold tars named by WordNet ids. It holds {class_file}")
            for name, offset, size in _files(archive, _Part(file, class_offset, class_size)):
                yield class_id, name, class_offset + offset, size


class _Part(io.RawIOBase):
    """A range of a file's bytes, as a file."""

    def __init__(self, file, offset, size):
        super().__init__()
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def seek(self, offset, whence=io.SEEK_SET):
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self):
        return self._position

    def readinto(self, buffer):
        self._file.seek(self._offset + self._position)
        wanted = max(0, min(len(buffer), self._size - self._position))
        read = self._file.readinto(memoryview(buffer)[:wanted])
        self._position += read
        return read

    def readable(self):
        return True

    def seekable(self):
        return True


def read_devkit(path: str | pathlib.Path, year: str) -> tuple[dict[int, str], dict[str, str], list[int]]:
    """Reads the classes and the labels of the validation images from a devkit.

    Args:
        path: the devkit's tar file, or its unpacked folder.
        year: "2010" or "2012".

    Returns:
        (ids, words, truth): a dict from the devkit's class numbers to WordNet ids; a dict from these to words; and the
        class number of each validation image.

    Raises:
        ValueError: if it is not a complete devkit of that year.
    """
    try:
        import scipy.io
    except ImportError as error:
        raise ValueError(f"{path} holds a .mat file, which scipy reads: pip install alexnet-tf[ilsvrc]") from error
    path = pathlib.Path(path)
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
        raise ValueError(f"{path} must hold meta.mat and {truth_name}. Missing: {sorted(wanted - content.keys())}")
    synsets = scipy.io.loadmat(io.BytesIO(content["meta.mat"]), squeeze_me=True)["synsets"]
    truth = [int(line) for line in content[truth_name].split()]
    # The devkit lists the inner nodes of the tree too; the classes are its leaves.
    leaves = [synset for synset in np.atleast_1d(synsets) if int(synset["num_children"]) == 0]
    ids = {int(synset[f"ILSVRC{year}_ID"]): str(synset["WNID"]) for synset in leaves}
    words = {str(synset["WNID"]): str(synset["words"]) for synset in leaves}
    unknown = set(truth) - ids.keys()
    if unknown:
        raise ValueError(f"{path}: the validation images' classes must be of meta.mat. Received: {sorted(unknown)[:5]}")
    return ids, words, truth


def read_classes() -> dict[str, str]:
    """The 1,000 classes of ILSVRC2012, in the order of their labels: WordNet ids to words, "tench, Tinca tinca"."""
    text = (pathlib.Path(__file__).parent / "imagenet_classes" / "classes.txt").read_text(encoding="ascii")
    return dict(line.split(" ", 1) for line in text.splitlines())


def _validation_labels_of_tfds():
    """The WordNet id of each validation image of ILSVRC2012 by TensorFlow Datasets' list."""
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
