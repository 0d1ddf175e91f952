"""Third-party TFRecord files as a data set, read in place: only an index and statistics are written."""

import concurrent.futures
import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_tf import files
from alexnet_tf.cpus import available_cpus
from alexnet_tf.tfrecords import (
    dataset_builder,
    epochs,
    images,
    reader,
    record_files,
    records,
    schema,
    sources,
    statistics,
    storage,
)

STATISTICS_IMAGES = 10_000  # their mean is within one gray level of that of all images
_BATCH = 128  # in which classes are counted
_LEAST_MIXED = 0.97  # classes in a batch, relative to a random order; below this the program prints a warning
_WINDOWS_COUNTED = 32


def index_in_place(
    source: str,
    data_dir: str | pathlib.Path,
    *,
    image_px: int = 256,
    keep_aspect: bool = False,
    seed: int = 0,
    record_format: Mapping[str, Any] | None = None,
) -> schema.DatasetDescription:
    """Indexes third-party record files, unless a complete index exists. Writes nothing into their folder.

    Args:
        source: "tfrecords:PATH", a folder as `record_source.make_record_files_source` takes it, with training and
            validation images, JPEG or PNG of any size. All files are read.
        data_dir: folder for dataset.json, index.npz and statistics.npz; created if it does not exist.
        image_px: shorter side to which images are resized when they are read.
        keep_aspect: whether crops of one size come from the complete image instead of the central square, as in the
            paper. (Crops of random size always do.)
        seed: seed of the choice of images for the statistics.
        record_format: see `sources.open_source`.

    Returns: the description, in which the shards are the files, named by their paths.

    Raises:
        ValueError: if an argument is out of range, the records can't be read in place, `data_dir` holds something else,
            or the files have changed since they were indexed.

    Deviation: EXIF orientations are ignored, and the statistics are those of at most 10,000 random training images.
    """
    kind, name = sources.parse_source(source)
    if kind != "tfrecords":
        raise ValueError(f"`source` must be tfrecords:PATH to be read in place. Received: source={source}")
    if image_px < 1:
        raise ValueError(f"`image_px` must be at least 1. Received: image_px={image_px}")
    root, data_dir = storage.absolute(name), pathlib.Path(data_dir).absolute()
    settings: dict[str, Any] = dict(source=f"tfrecords:{root}", in_place=True, image_px=image_px, resize="crop")
    settings |= dict(keep_aspect=keep_aspect, encoding=schema.ORIGINAL, exif_orientation=False, seed=seed)
    settings["record_format"] = {key: str(value) for key, value in (record_format or {}).items()}
    description = _load_complete(data_dir, settings)
    paths = record_files.find_files(root)
    if description:
        indexed = {shard.name for split in description.splits.values() for shard in split.shards}
        if other := sorted(indexed ^ {path for split_paths in paths.values() for path in split_paths}):
            raise ValueError(f"The files of {root} must be those that were indexed in {data_dir}. Changed: {other[0]}")
        return description
    if "validation" not in paths:
        raise ValueError(
            f"{root} must have files with `validation` or `test` in their names to be read in place. Found: none. "
            f"`alexnet-tfrecords --source=tfrecords:{root} --data_dir=...` makes a data set that holds out a part of "
            "each class."
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    own = (schema.DATASET_FILE, records.INDEX_FILE, statistics.STATISTICS_FILE)
    for path in data_dir.iterdir():
        if path.name not in own and not path.name.startswith(".tmp-"):
            raise ValueError(f"`data_dir` must hold nothing but the index. Received: {path} exists")
    with files.sole_user(data_dir, f"Another process is making an index in `data_dir` {data_dir}. Wait for it."):
        return _index(root, paths, data_dir, settings, **record_format or {})


def _load_complete(data_dir: pathlib.Path, settings: dict[str, Any]) -> schema.DatasetDescription | None:
    """Loads the description of the index in a folder. Returns None if the index is not complete."""
    if not (data_dir / schema.DATASET_FILE).exists():
        return None
    description = schema.load_description(data_dir)
    dataset_builder.check_settings(data_dir, description.settings, settings)
    try:
        for split in description.splits.values():
            schema.check_shard_sizes(data_dir, split)
    except ValueError as error:
        raise ValueError(f"{error}. The files have changed since they were indexed in {data_dir}") from error
    try:
        statistics.Statistics.load(data_dir)
        records.load_index(data_dir, description)
    except ValueError as error:
        print(f"{error}. Indexing the records again.")
        return None
    print(f"Using {data_dir}, which is complete.")
    return description


def _index(
    root: str,
    paths: dict[str, list[str]],
    data_dir: pathlib.Path,
    settings: dict[str, Any],
    *,
    label_offset: int = 0,
    image_key: str | None = None,
    label_key: str | None = None,
    class_names: str | pathlib.Path | None = None,
) -> schema.DatasetDescription:
    image_key, label_key = record_files.find_keys(paths["train"][0], image_key, label_key)
    settings = settings | dict(image_key=image_key, label_key=label_key, label_offset=label_offset)
    read = _read_files(paths, image_key, label_key)
    texts = [facts.texts for pairs in read.values() for facts, _ in pairs]
    labels = {split: np.concatenate([each.labels for each, _ in pairs]) - label_offset for split, pairs in read.items()}
    for split, split_labels in labels.items():
        if not len(split_labels):
            raise ValueError(f"{root} must hold {split} images. All {len(paths[split])} files are empty.")
    names = record_files.name_classes(root, labels, texts, label_offset, class_names)
    splits = {
        split: schema.Split(
            count=len(labels[split]),
            count_per_class=tuple(np.bincount(labels[split], minlength=len(names)).tolist()),
            shards=tuple(shard for _, shard in read[split]),
        )
        for split in schema.SPLITS
    }
    saved = records.save_index(data_dir, {split: [facts.bytes for facts, _ in read[split]] for split in schema.SPLITS})
    description = schema.DatasetDescription(
        class_names=tuple(names),
        image_px=settings["image_px"],
        keep_aspect=settings["keep_aspect"],
        encoding=settings["encoding"],
        splits=splits,
        settings=settings,
        checksums={records.INDEX_FILE: saved},
    )
    stored = records.Records.open(data_dir, description, "train")
    _warn_if_sorted(description, stored, labels["train"])
    checksum = _compute_statistics(data_dir, description).save(data_dir)
    checksums = description.checksums | {statistics.STATISTICS_FILE: checksum}
    description = dataclasses.replace(description, checksums=checksums)
    description.save(data_dir)
    return description


def _read_files(paths, image_key, label_key):
    """Reads the files, into a dict from a split to a (`record_files.Facts`, `schema.Shard`) for each file."""

    def read(path):
        facts = record_files.read_facts(path, label_key, image_key)
        for number, magic in enumerate(facts.magics):
            if not magic.startswith((images.JPEG_MAGIC, images.PNG_MAGIC)):
                raise ValueError(
                    f"{path}, record {number}, must hold a JPEG or PNG to be read in place. Received: an image that "
                    f"begins with {magic!r}. alexnet-tfrecords without --in_place reads other formats too."
                )
        size, end = storage.size(path) or 0, storage.read_end(path)
        return facts, schema.Shard(path, len(facts.labels), size, storage.sha256(path), end=end)

    every = [path for split in schema.SPLITS for path in paths[split]]
    # Threads, since TensorFlow reads without holding Python's lock.
    with concurrent.futures.ThreadPoolExecutor(available_cpus()) as pool:
        found = list(tqdm(pool.map(read, every), "Reading the labels", len(every), unit=" files", file=sys.stdout))
    bound = len(paths["train"])
    return {"train": found[:bound], "validation": found[bound:]}


def _compute_statistics(data_dir: pathlib.Path, description: schema.DatasetDescription) -> statistics.Statistics:
    """Computes them from the central squares of up to `STATISTICS_IMAGES` training images, without damaged ones."""
    count = description.splits["train"].count
    indices = np.arange(count)
    if count > STATISTICS_IMAGES:
        random = np.random.default_rng(description.settings["seed"])
        indices = np.sort(random.choice(count, STATISTICS_IMAGES, replace=False))
    sums = statistics.PixelSums(description.image_px)
    squares = reader.read_squares(data_dir, description, "train", indices).ignore_errors().as_numpy_iterator()
    for square in tqdm(squares, "Computing the mean image", len(indices), unit=" images", file=sys.stdout):
        sums.add_image(square)
    if sums.count < len(indices):
        print(f"{len(indices) - sums.count} of {len(indices)} images can't be read. The mean image excludes them.")
    if not sums.count:
        raise ValueError(f"No training image of {description.settings['source']} can be read: all are damaged.")
    return statistics.Statistics.of(sums)


def _warn_if_sorted(description: schema.DatasetDescription, stored: records.Records, labels: np.ndarray) -> None:
    """Prints a warning if the batches of training have fewer classes than those of a random order."""
    read, random = classes_in_batch(stored, labels)
    if read < _LEAST_MIXED * random:
        print(
            f"Warning: the images are sorted by class. A batch of {_BATCH} has images from {read:.1f} classes; in "
            f"random order it has {random:.1f}. `alexnet-tfrecords --source={description.settings['source']}` without "
            "--in_place makes a data set in random order."
        )


def classes_in_batch(stored: records.Records, labels: np.ndarray) -> tuple[float, float]:
    """The mean number of classes in a batch of 128 training images: as they are read, and in random order.

    Args:
        stored: the records of the training split.
        labels: int (records,), their labels.
    """
    batch = min(_BATCH, stored.count)
    order = epochs.EpochOrder(stored.count, stored.mean_bytes, batch, seed=0)
    windows = [order.window(*divmod(number, order.windows)).numpy() for number in range(_WINDOWS_COUNTED)]
    read = np.mean([len(np.unique(step)) for step in labels[np.concatenate(windows)]])
    return float(read), float(np.sum(1 - (1 - np.bincount(labels) / len(labels)) ** batch))
