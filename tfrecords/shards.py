"""Builds single shards. Each is built by one process and published complete or not at all."""

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
from alexnet_tf.tfrecords import build_config, crops, images, schema, sources, statistics, storage


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to build: images `start` to `stop` - 1 of a split of the source."""

    split: str
    start: int
    stop: int
    path: pathlib.Path
    config: build_config.BuildConfig

    @property
    def part_path(self) -> pathlib.Path:
        """File with the counts, checksum and pixel sums of the shard until the data set is complete. It is written
        after the shard."""
        return self.path.with_name(f".part-{self.path.name}.npz")


_source: sources.Source


def set_source(source: sources.Source) -> None:
    """Sets the source of all shards that this process builds. ImageNet's is too large to be sent with each task."""
    global _source
    _source = source


def build_shard(task: ShardTask) -> None:
    """Writes a shard and then its part file, unless an earlier run has written both."""
    if task.part_path.exists() and task.path.exists() and task.path.stat().st_size == load_part(task)["shard"]["bytes"]:
        return
    config = task.config
    sums = statistics.PixelSums(config.image_px)
    count_per_class = [0] * len(_source.class_names)
    skipped, record_bytes, unserved = [], [], collections.Counter()
    temporary = task.path.with_name(f".tmp-{uuid.uuid4().hex}-{task.path.name}")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for filename, image, label in _source.read(task.split, task.start, task.stop):
            if not 0 <= label < len(count_per_class):
                raise ValueError(
                    f"Labels must be from 0 to {len(count_per_class) - 1}. Received: label {label} of {filename}. "
                    "(Splits without labels have -1.)"
                )
            try:
                opened = images.open_image(image, config.max_pixels)
                pixels = images.prepare_image(
                    *(opened, config.image_px, config.keep_aspect),
                    *(config.exif_orientation, config.max_pixels, config.resize, config.interpolation),
                )
            except UnidentifiedImageError:  # its message contains a memory address, which differs from run to run
                formats = f"{', '.join(images.FORMATS)}, or HEIC with pip install --editable '.[heic]'"
                skipped.append((filename, f"UnidentifiedImageError: not one of {formats}"))
                continue
            except Exception as error:
                skipped.append((filename, f"{type(error).__name__}: {error}"))
                continue
            encoded = images.encode_image(pixels, config.encoding, config.quality)
            record = _make_example(encoded, pixels.shape, label, _source.class_names[label], filename)
            writer.write(record)
            record_bytes.append(len(record))
            unserved.update(filter(None, [images.unserved_format(opened)]))
            count_per_class[label] += 1
            if task.split == "train":
                sums.add_image(crops.center_crop(pixels, config.image_px))
    files.sync(temporary)
    temporary.replace(task.path)
    shard = schema.Shard(
        task.path.name,
        count=sum(count_per_class),
        bytes=task.path.stat().st_size,
        sha256=storage.sha256(task.path),
        end=storage.read_end(task.path),
    )
    facts = {
        "shard": dataclasses.asdict(shard),
        "record_bytes": record_bytes,
        "count_per_class": count_per_class,
        "skipped": skipped,
        "unserved": unserved,
    }
    arrays = {"count": sums.count, "image": sums.image, "products": sums.products}
    files.write_atomically(
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
    return example.SerializeToString(deterministic=True)  # otherwise the order of features differs from run to run


def load_part(task: ShardTask, sums: statistics.PixelSums | None = None) -> dict[str, Any]:
    """Reads the part file of a shard and adds its pixel sums, which are 0 for validation images, to `sums`."""
    with np.load(task.part_path, allow_pickle=False) as part:
        if sums is not None:
            shard_sums = statistics.PixelSums(task.config.image_px)
            shard_sums.count = int(part["count"])
            shard_sums.image, shard_sums.products = part["image"], part["products"]
            sums.add(shard_sums)
        return json.loads(str(part["facts"]))


def check_unreadable(
    tasks: list[ShardTask], split: str, skipped: list[tuple[str, str]], max_bad_fraction: float
) -> None:
    """Raises ValueError if too many images of a split are unreadable.

    Args:
        tasks: the `ShardTask`s of all shards.
        split: "train" or "validation".
        skipped: (filename, reason) of each unreadable image found so far.
        max_bad_fraction: maximum fraction of unreadable images in the split.
    """
    count = sum(task.stop - task.start for task in tasks if task.split == split)
    if len(skipped) > max_bad_fraction * count:
        listed = "; ".join(f"{name} ({reason})" for name, reason in skipped[:3])
        raise ValueError(
            f"More than {max_bad_fraction:.2%} of the {count:,} {split} images can't be read (--max_bad_fraction): "
            f"{listed}"
        )
