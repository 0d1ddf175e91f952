"""The images of a run, and the functions that `fit.fit` takes them from."""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf.networks import variants
from alexnet_tf.tfrecords import crops, dataset_builder, in_place, random_crops, reader, schema, statistics, verify
from alexnet_tf.training import schedules


@dataclasses.dataclass(frozen=True)
class Data:
    """The images of a run.

    Attributes:
        folder: of the data set.
        description: what it holds, without skipped records.
        statistics: of the training images' pixels.
        skipped: the damaged records that are not read.
        batch_size: images in a step, on all devices together.
        image_px: side of the square crops, in pixels.
    """

    folder: str
    description: schema.DatasetDescription
    statistics: statistics.Statistics
    skipped: list[verify.Problem]
    batch_size: int
    image_px: int

    @property
    def classes(self) -> int:
        return len(self.description.class_names)

    @property
    def training_images(self) -> int:
        return self.description.splits["train"].count

    @property
    def steps_per_epoch(self) -> int:
        return reader.steps_per_epoch(self.description, self.batch_size)

    def validation_steps(self, replicas: int) -> int:
        """Batches of each replica in a validation."""
        return reader.evaluation_steps(self.description, self.batch_size, all_replicas=replicas)

    def first_validation_image(self) -> np.ndarray:
        """The center crop of the first validation image; uint8 (image_px, image_px, 3)."""
        return crops.center_crop(reader.read_images(self.folder, self.description, "validation", [0]), self.image_px)[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one before, by the names in progress.json."""
        skipped = [f"{pathlib.PurePath(problem.path).name}, record {problem.record}" for problem in self.skipped]
        description = self.description
        shards = [shard.sha256 for split in description.splits.values() for shard in split.shards]
        # The checksum tells other images, labels and orders apart; the builder's settings say what was changed.
        return {f"data.{name}": value for name, value in description.settings.items() if name != "source"} | {
            "data.checksum": f"{zlib.crc32(repr((description.class_names, shards)).encode()):08x}",
            "source": description.settings["source"],
            "classes": self.classes,
            "steps_per_epoch": self.steps_per_epoch,
            "records_left_out": skipped,
        }

    @property
    def fingerprint(self) -> int:
        """A checksum of the description, with the checksums of all shards: the same on workers with the same data."""
        return zlib.crc32(repr(dataclasses.astuple(self.description)).encode())


def make_data(
    source: str, run_dir: str | pathlib.Path, variant: str, record_format: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Makes the data set of a source in a run's folder, or finds that it is there.

    Args:
        source: "folder:PATH", whose images are stored again; or "tfrecords:PATH", which are indexed and stay in place.
        run_dir: the run's folder.
        variant: the network that will be trained: images are an eighth larger than its crops, as in the paper.
        record_format: as `in_place.index_in_place` takes it.

    Returns: the data set's folder, `data` in the run's.

    Raises:
        ValueError: as `dataset_builder.build_dataset` and `in_place.index_in_place`.
    """
    crop_px = variants.VARIANTS[variant].image_px
    image_px = 256 if 128 < crop_px <= 256 else crop_px * 8 // 7
    folder = pathlib.Path(run_dir) / "data"
    print(f"Making {folder}, which alexnet-evaluate takes as --data_dir. alexnet-tfrecords makes one for several runs.")
    if source.startswith("tfrecords:"):
        in_place.index_in_place(source, folder, image_px=image_px, record_format=record_format)
    else:
        dataset_builder.build_dataset(source, folder, image_px=image_px)
    return folder


def open_data(
    data_dir: str | pathlib.Path, *, variant: str, batch_size: int, on_bad_record: str, max_bad_records: int
) -> Data:
    """Opens a data set.

    Args:
        data_dir: its folder.
        variant: the network that will be trained, whose images have its size.
        batch_size: images in a step, on all devices together.
        on_bad_record: "skip" to look at all images now and skip the damaged ones, "fail" to look at none.
        max_bad_records: how many may be skipped.

    Raises:
        ValueError: if the data set is missing or damaged, or the batch size is not from 1 to its training images.
    """
    description, skipped = schema.load_description(data_dir), []
    if on_bad_record == "skip":
        description, skipped = verify.skip_damaged_records(data_dir, description, max_bad_records)
    reader.steps_per_epoch(description, batch_size)  # checks the batch size
    return Data(
        folder=str(data_dir),
        description=description,
        statistics=statistics.Statistics.load(data_dir),
        skipped=skipped,
        batch_size=batch_size,
        image_px=variants.VARIANTS[variant].image_px,
    )


def validation_input(data: Data) -> Callable[[reader.Share], tf.data.Dataset]:
    """Makes the function from a worker's share to the validation images, as `fit.fit` takes it.

    Raises:
        ValueError: if the data set does not fit the network, or a shard is missing or cut short.
    """

    def make(share: reader.Share) -> tf.data.Dataset:
        return reader.make_evaluation_dataset(
            data.folder, data.batch_size, data.image_px, description=data.description, share=share
        )

    make(reader.Share())  # raises now, not after the first epoch
    return make


def training_input(
    data: Data,
    *,
    seed: int,
    schedule: str,
    color_noise: str,
    color_noise_epochs: int | None,
    images_per_crop: int,
    last_crop_offset: bool,
    crop_scale: tuple[float, float] | None = None,
    crop_ratio: tuple[float, float] = random_crops.RATIO,
    data_service: str | None,
    start_number: int,
) -> Callable[[int, reader.Share], tf.data.Dataset]:
    """Makes the function from a step and a worker's share to the training images from there on, as `fit.fit` takes it.

    Args:
        data: from `open_data`.
        seed, color_noise, images_per_crop, crop_scale, crop_ratio, data_service: as `reader.make_training_dataset`
            takes them.
        schedule: the learning-rate schedule; the original program's had an end of the color noise too.
        color_noise_epochs: how many epochs have color noise; None for as many as the schedule has.
        last_crop_offset: whether crops may touch the right and the bottom edge.
        start_number: the same on all workers, different in each start of a run.
    """
    if color_noise_epochs is None and schedule == "original":
        color_noise_epochs = schedules.ORIGINAL_COLOR_NOISE_EPOCHS

    def make(first_step: int, share: reader.Share) -> tf.data.Dataset:
        epoch, step = divmod(first_step, data.steps_per_epoch)
        return reader.make_training_dataset(
            data.folder,
            data.batch_size,
            data.image_px,
            description=data.description,
            seed=seed,
            color_noise=color_noise,
            color_noise_epochs=color_noise_epochs,
            images_per_crop=images_per_crop,
            last_offset=last_crop_offset,
            crop_scale=crop_scale,
            crop_ratio=crop_ratio,
            start_epoch=epoch,
            start_step=step,
            share=share,
            data_service=data_service,
            data_service_job=f"{start_number} {first_step}",
        )

    return make
