"""Where images come from.

Each source tells its `class_names`, the `count(split)` of its images, and `read(split, start, stop)`: an iterator of
(filename, image, label) over a range of them, which any process may read by itself. An image is the path or the bytes
of an encoded file, or a uint8 array (rows, columns); its label counts from 0. Sources are pickled and sent to each
of the builder's processes.
"""

import dataclasses
import functools
import gzip
import pathlib

import numpy as np

from alexnet_tf.tfrecords import ilsvrc

_SAMPLE_DIR = pathlib.Path(__file__).parent / "fashion_mnist_sample"
_INSTALLED_DIRS = (
    pathlib.Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
    pathlib.Path.home() / ".keras" / "datasets" / "fashion-mnist",  # keras.datasets.fashion_mnist.load_data()
)


def open_source(source, seed=0, validation_fraction=0.1, tfds_data_dir=None):
    """Opens a source by its name.

    Args:
        source: "fashion_mnist" (the sample in this package), "fashion_mnist:installed", "fashion_mnist:PATH" (all of
            it), "folder:PATH" (one folder a class, or `train` and `validation` folders of such), "tfds:NAME", or
            "ilsvrc2012:PATH" or "ilsvrc2010:PATH" (a folder of ImageNet's own archives).
        seed: for the order of a folder's images and for which of them are held out.
        validation_fraction: share of each class that is held out where the source has no validation images.
        tfds_data_dir: where TensorFlow Datasets keeps its data; None for its own default.

    Raises:
        ValueError: where there is no such source, or nothing of its kind at its path.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"`validation_fraction` must be between 0 and 1. Received: {validation_fraction}")
    kind, _, name = source.partition(":")
    if kind == "fashion_mnist":
        return FashionMnist(_fashion_mnist_folder(name))
    if kind == "folder" and name:
        return make_folder_source(name, seed, validation_fraction)
    if kind in ("ilsvrc2010", "ilsvrc2012") and name:
        return ilsvrc.make_ilsvrc_source(kind.removeprefix("ilsvrc"), name, seed)
    if kind == "tfds" and name:
        return make_tfds_source(name, validation_fraction, tfds_data_dir)
    raise ValueError(
        "`source` must be fashion_mnist, fashion_mnist:installed, fashion_mnist:PATH, folder:PATH, tfds:NAME, "
        "ilsvrc2012:PATH or ilsvrc2010:PATH. "
        f"Received: {source!r}"
    )


@dataclasses.dataclass(frozen=True)
class FashionMnist:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) in a folder of its four IDX files, gzipped or not.

    The 10,000 images that its authors call the test set serve as validation images.
    """

    folder: pathlib.Path
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def count(self, split):
        return len(self._arrays(split)[1])

    def read(self, split, start, stop):
        images, labels = self._arrays(split)
        for index in range(start, stop):
            yield f"{self._prefix(split)}-{index:05d}", images[index], int(labels[index])

    def _prefix(self, split):
        return {"train": "train", "validation": "t10k"}[split]

    def _arrays(self, split):
        prefix = self._prefix(split)
        images = _read_idx(self.folder / f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(self.folder / f"{prefix}-labels-idx1-ubyte", 1)
        if len(images) != len(labels) or labels.max(initial=0) >= len(self.class_names):
            raise ValueError(
                f"{self.folder} must hold as many labels as images, labels from 0 to 9. "
                f"Received: {len(images)} {prefix} images, {len(labels)} labels, the largest {labels.max(initial=0)}"
            )
        return images, labels


def _fashion_mnist_folder(name):
    if not name:
        return _SAMPLE_DIR
    folders = _INSTALLED_DIRS if name == "installed" else (pathlib.Path(name).expanduser(),)
    for folder in folders:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder.resolve()
    raise ValueError(f"Fashion-MNIST's file train-images-idx3-ubyte(.gz) is not in {' or '.join(map(str, folders))}")


@functools.lru_cache(maxsize=4)
def _read_idx(path, dimensions):
    """Reads an IDX file of bytes, gzipped or not; returns uint8 of so many dimensions."""
    packed = path.with_name(path.name + ".gz")
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{packed if packed.exists() else path} can't be read: {error}") from error
    # The magic number: two zeros, 8 for unsigned bytes, the number of dimensions; then their sizes, 4 bytes each.
    header = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4")) if len(content) >= header else ()
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) - header != np.prod(shape, dtype="int64"):
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes of {dimensions} dimensions and the length that they tell. "
            f"Received: it begins with {content[:header].hex()} and has {len(content)} bytes"
        )
    return np.frombuffer(content, "uint8", offset=header).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Files in one folder a class. `files` maps a split to (path, label) pairs in their order."""

    class_names: tuple
    files: dict

    def count(self, split):
        return len(self.files[split])

    def read(self, split, start, stop):
        for path, label in self.files[split][start:stop]:
            yield str(path), path, label


def make_folder_source(path, seed, validation_fraction):
    """A `Folder` of PATH/class/image, or of PATH/train/class/image and PATH/validation (or val)/class/image.

    Every file is taken for an image, whatever its name, except those that begin with a dot.

    Raises:
        ValueError: where the path holds no folders, a class is empty, or the two splits' classes differ.
    """
    root = pathlib.Path(path).expanduser()
    random = np.random.default_rng(seed)
    split_folders = {"train": root / "train", "validation": root / "validation"}
    if not split_folders["validation"].is_dir():
        split_folders["validation"] = root / "val"
    if all(folder.is_dir() for folder in split_folders.values()):
        classes = {split: _list_classes(folder) for split, folder in split_folders.items()}
        if classes["train"].keys() != classes["validation"].keys():
            differing = sorted(classes["train"].keys() ^ classes["validation"].keys())
            raise ValueError(f"{root}: train and validation must have the same classes. Only one has: {differing}")
        names = tuple(classes["train"])
    else:
        whole = _list_classes(root)
        names = tuple(whole)
        classes = {"train": {}, "validation": {}}
        for name, files in whole.items():
            if len(files) < 2:
                raise ValueError(
                    f"{root / name} must hold at least 2 images, so that one can be held out for validation. "
                    f"Received: {len(files)}"
                )
            held_out = min(max(1, round(len(files) * validation_fraction)), len(files) - 1)
            order = random.permutation(len(files))
            classes["validation"][name] = [files[i] for i in order[:held_out]]
            classes["train"][name] = [files[i] for i in order[held_out:]]
    files = {}
    for split, by_name in classes.items():
        listed = [(path, label) for label, name in enumerate(names) for path in by_name[name]]
        files[split] = [listed[i] for i in random.permutation(len(listed))]
    return Folder(names, files)


def _list_classes(folder):
    """A dict from the name of each class to its files, both sorted."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder that holds one folder of images for each class. It is none.")
    classes = {}
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        classes[child.name] = sorted(p for p in child.rglob("*") if p.is_file() and not p.name.startswith("."))
        if not classes[child.name]:
            raise ValueError(f"{child} must hold the images of a class. It is empty.")
    if len(classes) < 2:
        raise ValueError(
            f"{folder} must hold one folder of images for each of 2 classes or more. Found: {len(classes)}"
        )
    return classes


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A prepared data set of TensorFlow Datasets. `ranges` maps a split to (its name there, start, stop)."""

    name: str
    data_dir: str
    class_names: tuple
    ranges: dict

    def count(self, split):
        _, start, stop = self.ranges[split]
        return stop - start

    def read(self, split, start, stop):
        import tensorflow_datasets as tfds

        if start == stop:
            return  # TFDS refuses an empty range
        name, offset, _ = self.ranges[split]
        builder = tfds.builder(self.name, data_dir=self.data_dir)
        dataset = builder.as_dataset(
            split=f"{name}[{offset + start}:{offset + stop}]",
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1),  # in the order on disk
        )
        for index, example in enumerate(tfds.as_numpy(dataset), start=offset + start):
            yield f"{name}-{index}", example["image"], int(example["label"])


def make_tfds_source(name, validation_fraction, data_dir):
    """A `Tfds` source, downloaded and prepared by TensorFlow Datasets where it is not yet.

    Its split `validation` (or `test`, or the last part of `train`) serves as validation images.

    Raises:
        ValueError: where the data set has no training split of an image and one label each.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    features, splits = builder.info.features, builder.info.splits
    labeled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    if not labeled or "image" not in features or "train" not in splits:
        raise ValueError(
            f"tfds:{name} must have a split `train` with the features `image` and `label`. "
            f"Received: splits {sorted(splits)}, features {sorted(features)}"
        )
    train = splits["train"].num_examples
    validation = next((split for split in ("validation", "test") if split in splits), None)
    if validation:
        ranges = {"train": ("train", 0, train), "validation": (validation, 0, splits[validation].num_examples)}
    else:
        kept = train - max(1, round(train * validation_fraction))
        ranges = {"train": ("train", 0, kept), "validation": ("train", kept, train)}
    return Tfds(name, str(data_dir) if data_dir else None, tuple(features["label"].names), ranges)
