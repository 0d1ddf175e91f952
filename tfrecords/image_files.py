"""Image files as a source."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alexnet_tf.tfrecords import schema


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files. `files` maps a split to (path, label) pairs."""

    class_names: tuple[str, ...]
    files: dict[str, list[tuple[pathlib.Path, int]]]

    def count(self, split: str) -> int:
        return len(self.files[split])

    def read(self, split: str, start: int, stop: int) -> Iterator[tuple]:
        for path, label in self.files[split][start:stop]:
            yield str(path), path, label

    def checksum(self) -> str:
        digest = hashlib.sha256()
        for split, files in self.files.items():
            for path, label in files:
                digest.update(f"{split} {label} {path}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def mix(
    source: str | pathlib.Path,
    classes: Mapping[str, Mapping[str, Sequence[pathlib.Path]]],
    seed: int,
    validation_fraction: float,
) -> ImageFiles:
    """Puts image files into random order.

    Args:
        source: path of the source, for errors.
        classes: a dict from "train" and "validation" to a dict from class name to paths. Labels follow the order of
            the training classes. Without "validation", a part of each class is held out.
        seed, validation_fraction: see `sources.open_source`.

    Raises:
        ValueError: if the splits have different classes, or a class has one image, of which none can be held out.
    """
    names = tuple(classes["train"])
    if differing := sorted(classes["train"].keys() ^ classes.get("validation", classes["train"]).keys()):
        raise ValueError(f"{source}: train and validation must have the same classes. In only one: {differing[:20]}")
    files = {
        split: [(path, label) for label, name in enumerate(names) for path in split_classes[name]]
        for split, split_classes in classes.items()
    }
    random = np.random.default_rng(seed)
    if "validation" not in files:
        for name, paths in classes["train"].items():
            if len(paths) < 2:
                raise ValueError(
                    f"{source}: class {name!r} must have at least 2 images, one of them for validation. "
                    f"Received: {len(paths)}"
                )
        every = files["train"]
        parts = hold_out([label for _, label in every], validation_fraction, random)
        files = {split: [every[index] for index in part] for split, part in parts.items()}
    order = {split: random.permutation(len(files[split])) for split in schema.SPLITS}
    return ImageFiles(names, {split: [files[split][index] for index in indices] for split, indices in order.items()})


def hold_out(labels: Sequence[int] | np.ndarray, fraction: float, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Divides the images of each class at random.

    Args:
        labels: the labels of all images.
        fraction: fraction of each class to hold out; at least one image, but not all.
        random: draws the order of each class.

    Returns: a dict from "train" and "validation" to the indices of the images.
    """
    parts = {split: [] for split in schema.SPLITS}
    _, counts = np.unique(labels, return_counts=True)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1]):
        members = random.permutation(members)
        held_out = min(max(1, round(len(members) * fraction)), len(members) - 1)
        parts["train"].append(members[held_out:])
        parts["validation"].append(members[:held_out])
    return {split: np.concatenate(indices) for split, indices in parts.items()}
