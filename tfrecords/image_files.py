"""Image files as a source."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


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
        seed: seed of the order and of the choice of held-out images.
        validation_fraction: fraction of each class to hold out.

    Raises:
        ValueError: if the splits have different classes, or a class has one image, of which none can be held out.
    """
    random = np.random.default_rng(seed)
    names = tuple(classes["train"])
    if "validation" not in classes:
        every, classes = classes["train"], {"train": {}, "validation": {}}
        for name, paths in every.items():
            if len(paths) < 2:
                raise ValueError(
                    f"{source}: class {name!r} must have at least 2 images, one of them for validation. "
                    f"Received: {len(paths)}"
                )
            for split, indices in zip(classes, hold_out(len(paths), validation_fraction, random), strict=True):
                classes[split][name] = [paths[index] for index in indices]
    elif classes["train"].keys() != classes["validation"].keys():
        differing = sorted(classes["train"].keys() ^ classes["validation"].keys())
        raise ValueError(f"{source}: train and validation must have the same classes. In only one: {differing[:20]}")
    files = {}
    for split in ("train", "validation"):
        listed = [(path, label) for label, name in enumerate(names) for path in classes[split][name]]
        files[split] = [listed[index] for index in random.permutation(len(listed))]
    return ImageFiles(names, files)


def hold_out(count: int, fraction: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divides the images of a class at random.

    Returns: the indices of the training images, at least one, and of the held-out images.
    """
    held_out = min(max(1, round(count * fraction)), max(count - 1, 0))
    order = random.permutation(count)
    return order[held_out:], order[:held_out]
