"""Unpacked folders of ImageNet as a source: the archives' own layout, torchvision's or Kaggle's."""

import pathlib
import re

from alexnet_tf.tfrecords import ilsvrc, image_files, image_folder

_KAGGLE_FOLDERS = ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")
_NUMBER = re.compile(r"ILSVRC\d+_val_(\d+)\.JPEG")


def find_unpacked(path: str | pathlib.Path) -> pathlib.Path | None:
    """The folder with unpacked `train` and `val`, PATH itself or Kaggle's folder in it; None if there is none."""
    folders = [pathlib.Path(path).expanduser() / name for name in ("", *_KAGGLE_FOLDERS)]
    return next((each for each in folders if (each / "train").is_dir() and (each / "val").is_dir()), None)


def make_ilsvrc_folder_source(year: str, path: str | pathlib.Path, seed: int) -> image_files.ImageFiles:
    """Lists train/n01440764/*.JPEG, and val/ILSVRC2012_val_00000001.JPEG or val/n01440764/*.JPEG.

    Args:
        year: "2010" or "2012".
        path: the folder. It may contain the devkit; see ilsvrc.py.
        seed: seed of the order.

    Raises:
        ValueError: if a class or a validation image is missing, or an image has no label.
    """
    folder = find_unpacked(path)
    if folder is None:
        raise ValueError(f"{path} must contain the folders train and val.")
    words, all_truth = ilsvrc.read_classes_and_truth(pathlib.Path(path).expanduser(), year)
    truth = all_truth["validation"]
    classes = {"train": _list_classes(folder / "train"), "validation": _list_classes(folder / "val")}
    if not classes["validation"]:
        images = {int(match[1]): file for file in (folder / "val").iterdir() if (match := _NUMBER.fullmatch(file.name))}
        if images.keys() != set(range(1, len(truth) + 1)):
            raise ValueError(
                f"{folder / 'val'} must contain images 1 to {len(truth)}, ILSVRC{year}_val_00000001.JPEG, ... "
                f"Found: {len(images)}"
            )
        for number, class_id in enumerate(truth, start=1):
            classes["validation"].setdefault(class_id, []).append(images[number])
    for split, files in classes.items():
        if files.keys() != words.keys():
            differing = sorted(files.keys() ^ words.keys())
            raise ValueError(
                f"{folder} must contain each of the {len(words)} classes in {split}. Found: {len(files)}. Missing or "
                f"unknown: {', '.join(differing[:5])}. For other classes, use folder:{path}"
            )
        classes[split] = {f"{class_id} {words[class_id]}".strip(): files[class_id] for class_id in sorted(files)}
    return image_files.mix(folder, classes, seed, validation_fraction=0.5)


def _list_classes(folder):
    """A dict from WordNet id to image files."""
    return {
        child.name: sorted(image_folder.list_files(child))
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".")
    }
