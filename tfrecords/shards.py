"""One shard: built by one process, whole or not at all."""

import dataclasses
import json
import os
import pathlib
import uuid

import numpy as np
import tensorflow as tf
from PIL import UnidentifiedImageError

from alexnet_tf.tfrecords import images, schema, statistics


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard: which images of the source, and what becomes of them."""

    split: str
    start: int
    stop: int
    path: pathlib.Path
    image_px: int
    keep_aspect: bool
    encoding: str
    quality: int

    @property
    def part_path(self):
        """Where the shard's count, checksum and sums are kept till the data set is whole. Written after the shard."""
        return self.path.with_name(f".part-{self.path.name}.npz")


_source = None  # of this process


def set_source(source):
    """Sets the source of all shards that this process builds: that of ImageNet is too large to go with each task."""
    global _source
    _source = source


def build_shard(task):
    """Writes one shard and then its part file. Whole ones of an earlier start are left as they are."""
    if task.part_path.exists() and task.path.exists() and task.path.stat().st_size == load_part(task)["shard"]["bytes"]:
        return
    sums = statistics.PixelSums(task.image_px)
    count_per_class = [0] * len(_source.class_names)
    skipped = []
    record_bytes = []
    temporary = task.path.with_name(f".tmp-{uuid.uuid4().hex}-{task.path.name}")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for filename, image, label in _source.read(task.split, task.start, task.stop):
            if not 0 <= label < len(count_per_class):
                raise ValueError(
                    f"The label of {filename} must be from 0 to {len(count_per_class) - 1}. Received: {label}. "
                    "(A split without labels has -1.)"
                )
            try:
                pixels = images.prepare_image(image, task.image_px, task.keep_aspect)
            except UnidentifiedImageError:  # its own text has a memory address, which differs from run to run
                skipped.append((filename, "UnidentifiedImageError: of no format that Pillow knows"))
                continue
            except Exception as error:
                skipped.append((filename, f"{type(error).__name__}: {error}"))
                continue
            encoded = images.encode_image(pixels, task.encoding, task.quality)
            record = _make_example(encoded, pixels.shape, label, _source.class_names[label], filename)
            writer.write(record)
            record_bytes.append(len(record))
            count_per_class[label] += 1
            if task.split == "train":
                sums.add_image(images.central_square(pixels))
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(task.path)
    shard = schema.Shard(task.path.name, sum(count_per_class), task.path.stat().st_size, schema.sha256(task.path))
    facts = {
        "shard": dataclasses.asdict(shard),
        "record_bytes": record_bytes,
        "count_per_class": count_per_class,
        "skipped": skipped,
    }
    arrays = {"count": sums.count, "image": sums.image, "products": sums.products}
    schema.write_whole(
        task.part_path, lambda file: np.savez_compressed(file, facts=np.array(json.dumps(facts)), **arrays)
    )


def _make_example(encoded, shape, label, text, filename):
    def feature(value):
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        schema.ENCODED: feature(encoded),
        schema.HEIGHT: feature(shape[0]),
        schema.WIDTH: feature(shape[1]),
        schema.LABEL: feature(label),
        schema.TEXT: feature(text.encode()),
        schema.FILENAME: feature(filename.encode("utf-8", "surrogateescape")),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # else the order of the features differs from run to run


def load_part(task, sums=None):
    """The facts of a built shard. Its pixel sums are added to `sums`."""
    with np.load(task.part_path, allow_pickle=False) as part:
        if sums is not None:
            of_part = statistics.PixelSums(task.image_px)
            of_part.count, of_part.image, of_part.products = int(part["count"]), part["image"], part["products"]
            sums.add(of_part)
        return json.loads(str(part["facts"]))


def refuse_unreadable(tasks, split, skipped, max_bad_fraction):
    """Raises ValueError where too many images of a split can't be read.

    Args:
        tasks: the `ShardTask`s of all shards.
        split: "train" or "validation".
        skipped: (filename, reason) of each unreadable image found so far.
        max_bad_fraction: share of the split's images that may be unreadable.
    """
    count = sum(task.stop - task.start for task in tasks if task.split == split)
    if len(skipped) > max_bad_fraction * count:
        listed = "; ".join(f"{name} ({reason})" for name, reason in skipped[:3])
        raise ValueError(
            f"More than {max_bad_fraction:.2%} of the {count:,} {split} images can't be read "
            f"(--max_bad_fraction). The first: {listed}"
        )
