"""Builds single shards, each by one process, completely or not at all."""

import collections
import dataclasses
import json
import pathlib
import uuid
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import UnidentifiedImageError

from alexnet_tf import files
from alexnet_tf.tfrecords import crops, images, schema, sources, statistics, storage


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard: a range of the source's images, and how they are stored."""

    split: str
    start: int
    stop: int
    path: pathlib.Path
    image_px: int
    keep_aspect: bool
    encoding: str
    quality: int
    exif_orientation: bool
    max_pixels: int
    resize: str

    @property
    def part_path(self) -> pathlib.Path:
        """File of the shard's counts, checksum and sums until the data set is complete. Written after the shard."""
        return self.path.with_name(f".part-{self.path.name}.npz")


_source: sources.Source  # of this process; see `set_source`


def set_source(source: sources.Source) -> None:
    """Sets the source of all shards that this process builds: ImageNet's is too large to be sent with each task."""
    global _source
    _source = source


def build_shard(task: ShardTask) -> None:
    """Writes one shard and then its part file. Complete ones of an earlier run are kept."""
    if task.part_path.exists() and task.path.exists() and task.path.stat().st_size == load_part(task)["shard"]["bytes"]:
        return
    sums = statistics.PixelSums(task.image_px)
    count_per_class = [0] * len(_source.class_names)
    skipped = []
    unserved = collections.Counter()
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
                opened = images.open_image(image, task.max_pixels)
                pixels = images.prepare_image(
                    opened, task.image_px, task.keep_aspect, task.exif_orientation, task.max_pixels, task.resize
                )
            except UnidentifiedImageError:  # its own message has a memory address, which differs from run to run
                skipped.append((filename, f"UnidentifiedImageError: it is none of {', '.join(images.FORMATS)}"))
                continue
            except Exception as error:
                skipped.append((filename, f"{type(error).__name__}: {error}"))
                continue
            encoded = images.encode_image(pixels, task.encoding, task.quality)
            record = _make_example(encoded, pixels.shape, label, _source.class_names[label], filename)
            writer.write(record)
            record_bytes.append(len(record))
            unserved.update(filter(None, [images.unserved_format(opened)]))
            count_per_class[label] += 1
            if task.split == "train":
                sums.add_image(crops.center_crop(pixels, task.image_px))
    files.sync(temporary)
    temporary.replace(task.path)
    shard = schema.Shard(
        task.path.name,
        count=sum(count_per_class),
        bytes=task.path.stat().st_size,
        sha256=storage.sha256(task.path),
        end=storage.read_end(task.path),
    )
    part = {
        "shard": dataclasses.asdict(shard),
        "record_bytes": record_bytes,
        "count_per_class": count_per_class,
        "skipped": skipped,
        "unserved": unserved,
    }
    arrays = {"count": sums.count, "image": sums.image, "products": sums.products}
    files.write_atomically(
        task.part_path, lambda file: np.savez_compressed(file, facts=np.array(json.dumps(part)), **arrays)
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
    return example.SerializeToString(deterministic=True)  # else the order of features differs from run to run


def load_part(task: ShardTask, sums: statistics.PixelSums | None = None) -> dict[str, Any]:
    """Reads the part file of a built shard, and adds its pixel sums to `sums`."""
    with np.load(task.part_path, allow_pickle=False) as part:
        if sums is not None:
            of_part = statistics.PixelSums(task.image_px)
            of_part.count, of_part.image, of_part.products = int(part["count"]), part["image"], part["products"]
            sums.add(of_part)
        return json.loads(str(part["facts"]))


def check_unreadable(
    tasks: list[ShardTask], split: str, skipped: list[tuple[str, str]], max_bad_fraction: float
) -> None:
    """Raises ValueError if too many images of a split can't be read.

    Args:
        tasks: the `ShardTask`s of all shards.
        split: "train" or "validation".
        skipped: (filename, reason) of each unreadable image found so far.
        max_bad_fraction: fraction of the split's images that may be unreadable.
    """
    count = sum(task.stop - task.start for task in tasks if task.split == split)
    if len(skipped) > max_bad_fraction * count:
        listed = "; ".join(f"{name} ({reason})" for name, reason in skipped[:3])
        raise ValueError(
            f"More than {max_bad_fraction:.2%} of the {count:,} {split} images can't be read "
            f"(--max_bad_fraction). The first: {listed}"
        )
