"""Counts the classes in a training batch when the source stores its images class by class.

    python benchmarks/mixing.py

Builds data sets from sorted sources of each kind, with several numbers of shards, and reads one of them in place.
Prints a Markdown table: the mean number of classes in a batch of 128 images, relative to a random order.
"""

import io
import pathlib
import sys
import tempfile

import numpy as np
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags
from PIL import Image

from alexnet_tf.tfrecords import dataset_builder, in_place, reader, records, schema

sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))
import made_ilsvrc
import made_records

IMAGE_PX = 8


def define_flags():
    flags.DEFINE_integer("images", 20_000, "Number of training images.")
    flags.DEFINE_integer("classes", 100, "Number of classes, of equal size.")
    flags.DEFINE_multi_integer("shards", [1, 4, 16, 64], "Number of training shards.")


def sorted_images(count, classes):
    """Makes JPEGs and their labels, class by class."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((IMAGE_PX, IMAGE_PX, 3), "uint8")).save(buffer, "JPEG")
    return [(buffer.getvalue(), label * classes // count) for label in range(count)]


def write_folder(folder, images):
    for split in schema.SPLITS:
        for number, (image, label) in enumerate(images[split]):
            path = folder / split / f"class{label:03d}" / f"{number:06d}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    return f"folder:{folder}"


def write_archives(folder, images):
    """Writes files like ILSVRC-2012's: a tar with a tar per class, one of validation images, and the devkit."""
    folder.mkdir()
    labels = sorted({label for _, label in images["train"]})
    train = {f"n{label:08d}": {} for label in labels}
    for number, (image, label) in enumerate(images["train"]):
        train[f"n{label:08d}"][f"n{label:08d}_{number}.JPEG"] = image
    train = {f"{name}.tar": made_ilsvrc.tar_of(files) for name, files in train.items()}
    validation = {
        f"ILSVRC2012_val_{number:08d}.JPEG": image for number, (image, _) in enumerate(images["validation"], 1)
    }
    for split, files in (("train", train), ("val", validation)):
        (folder / f"ILSVRC2012_img_{split}.tar").write_bytes(made_ilsvrc.tar_of(files))
    devkit = folder / "ILSVRC2012_devkit_t12"
    devkit.mkdir()
    kind = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O"), ("num_children", "i4")]
    synsets = np.array([(label + 1, f"n{label:08d}", f"class {label}", 0) for label in labels], kind)
    scipy.io.savemat(devkit / "meta.mat", {"synsets": synsets})
    truth = "\n".join(str(label + 1) for _, label in images["validation"])
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return f"ilsvrc2012:{folder}"


def write_records(folder, images, files=8):
    for split in schema.SPLITS:
        for file in range(files):
            part = images[split][len(images[split]) * file // files : len(images[split]) * (file + 1) // files]
            made_records.write_records(folder / f"{split}-{file:05d}-of-{files:05d}", part)
    return f"tfrecords:{folder}"


def write_tfds(folder, images):
    labels = max(label for _, label in images["train"]) + 1
    tfds.dataset_builders.store_as_tfds_dataset(
        name="sorted",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=labels)}
        ),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices([label for _, label in images[split]]).map(
                lambda label: {"image": tf.zeros((IMAGE_PX, IMAGE_PX, 3), tf.uint8), "label": label}
            )
            for split in schema.SPLITS
        },
        data_dir=folder,
        disable_shuffling=True,
    )
    return "tfds:sorted"


def count_classes(data_dir):
    """A cell of the table: the number of classes in a batch, and how it differs from a random order."""
    description = schema.load_description(data_dir)
    labels = reader.read_labels(data_dir, description, "train")
    read, random = in_place.classes_in_batch(records.Records.open(data_dir, description, "train"), labels)
    return f"{read:.1f} ({read / random - 1:+.1%})"


def main(_):
    flag = flags.FLAGS
    images = {
        "train": sorted_images(flag.images, flag.classes),
        "validation": sorted_images(flag.classes, flag.classes),
    }
    print("| source | " + " | ".join(f"{count} shards" for count in flag.shards) + " |")
    print("|---" * (1 + len(flag.shards)) + "|")
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        sources = {
            "folders": write_folder(folder / "images", images),
            "third-party tfrecords": write_records(folder / "records", images),
            "tfds": write_tfds(folder / "tfds", images),
            "ilsvrc2012": write_archives(folder / "archives", images),
        }
        for name, source in sources.items():
            cells = []
            for shards in flag.shards:
                data_dir = folder / f"{name}-{shards}"
                dataset_builder.build_dataset(
                    source,
                    data_dir,
                    image_px=IMAGE_PX,
                    num_train_shards=shards,
                    num_validation_shards=1,
                    num_processes=1,
                    tfds_data_dir=str(folder / "tfds"),
                )
                cells.append(count_classes(data_dir))
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        in_place.index_in_place(sources["third-party tfrecords"], folder / "index", image_px=IMAGE_PX)
        print(f"In place, 8 shards: {count_classes(folder / 'index')}.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
