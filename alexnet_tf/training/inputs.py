"""The images of a run."""

import dataclasses
import pathlib
import zlib
from typing import Any

import numpy as np
import tensorflow as tf

from alexnet_tf.networks import variants
from alexnet_tf.tfrecords import (
    augmentation,
    crops,
    dataset_builder,
    in_place,
    reader,
    record_format,
    schema,
    statistics,
    verify,
)
from alexnet_tf.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class RunData:
    """The images of a run, as `fit.fit` takes them.

    Attributes:
        config: the run's configuration.
        folder: the data set's folder.
        description: the data set's content, without skipped records.
        statistics: of the training images' pixels.
        skipped: the damaged records that are not read.
        service_job: tf.data service job name, shared by all workers and unique to each launch.
    """

    config: TrainConfig
    folder: str
    description: schema.DatasetDescription
    statistics: statistics.Statistics
    skipped: list[verify.Problem]
    service_job: str = ""

    @property
    def image_px(self) -> int:
        """Side of the square crops, in pixels."""
        return variants.VARIANTS[self.config.variant].image_px

    @property
    def num_classes(self) -> int:
        return len(self.description.class_names)

    @property
    def training_images(self) -> int:
        return self.description.splits["train"].count

    @property
    def steps_per_epoch(self) -> int:
        return reader.steps_per_epoch(self.description, self.config.batch_size)

    @property
    def class_weights(self) -> np.ndarray | None:
        """The weight of each class in the loss, float32 (classes,); None for equal weights.

        Balanced weights are inversely proportional to the class frequencies. The mean over all images is 1.
        """
        if self.config.class_weights == "none":
            return None
        counts = np.array(self.description.splits["train"].count_per_class)
        weights = np.sum(counts) / np.count_nonzero(counts) / np.maximum(counts, 1)
        return np.where(counts, weights, 0).astype("float32")

    def validation_steps(self, replicas: int) -> int:
        """Number of batches of each replica in a validation."""
        return reader.evaluation_steps(self.description, self.config.batch_size, all_replicas=replicas)

    def training(self, initial_step: int, share: reader.Share) -> tf.data.Dataset:
        """A worker's training batches from a step on, endlessly, as `reader.make_training_dataset` describes them.

        Args:
            initial_step: counted from the beginning of the run.
            share: the worker's share.
        """
        config = self.config
        epoch, step = divmod(initial_step, self.steps_per_epoch)
        return reader.make_training_dataset(
            self.folder,
            config.batch_size,
            self.image_px,
            description=self.description,
            seed=config.seed,
            augmentation=augmentation.Augmentation(
                color_noise=config.color_noise,
                color_noise_epochs=config.color_noise_epochs,
                images_per_crop=config.images_per_crop,
                last_offset=config.last_crop_offset,
                center_crops=config.crops == "center",
                flip=config.flip,
                mean_at_crop=config.mean_at_crop,
                crop_scale=config.crop_scale,
                crop_ratio=config.crop_ratio or augmentation.RATIO,
            ),
            start_epoch=epoch,
            start_step=step,
            share=share,
            data_service=config.data_service,
            data_service_job=f"{self.service_job} {initial_step}",
        )

    def validation(self, share: reader.Share) -> tf.data.Dataset:
        """A worker's validation batches: (images, labels)."""
        return reader.make_evaluation_dataset(
            self.folder, self.config.batch_size, self.image_px, description=self.description, share=share
        )

    def first_validation_image(self) -> np.ndarray:
        """The center crop of the first validation image; uint8 (image_px, image_px, 3)."""
        return crops.center_crop(reader.read_images(self.folder, self.description, "validation", [0]), self.image_px)[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The properties of the data that are compared when a run is resumed."""
        skipped = [f"{pathlib.PurePath(problem.path).name}, record {problem.record}" for problem in self.skipped]
        description = self.description
        shards = [shard.sha256 for split in description.splits.values() for shard in split.shards]
        # The checksum depends on images, labels and their order; the builder's settings say what was changed.
        return {f"data.{name}": value for name, value in description.settings.items() if name != "source"} | {
            "data.checksum": f"{zlib.crc32(repr((description.class_names, shards)).encode()):08x}",
            "source": description.settings["source"],
            "classes": self.num_classes,
            "steps_per_epoch": self.steps_per_epoch,
            "records_left_out": skipped,
        }


def open_data(config: TrainConfig) -> RunData:
    """Opens the data set, and prints which records are skipped. If `data_dir` names images, makes it of them first.

    Raises:
        ValueError: if the data set is missing or damaged, or does not fit the network or the batch size.
    """
    folder = str(_make_data(config)) if config.makes_data else config.data_dir
    description, skipped = schema.load_description(folder), []
    if config.on_bad_record == "skip":
        description, skipped = verify.skip_damaged_records(folder, description, config.max_bad_records)
    for problem in skipped:
        print(f"Skipped: {problem}")
    reader.steps_per_epoch(description, config.batch_size)  # checks the batch size
    data = RunData(config, folder, description, statistics.Statistics.load(folder), skipped)
    crops.check_image_px(folder, description.image_px, data.image_px)
    data.validation(reader.Share())  # raises now instead of after the first epoch
    return data


def _make_data(config):
    """Makes the data set in the run's folder, unless it is there; returns its folder."""
    crop_px = variants.VARIANTS[config.variant].image_px
    # As in the paper, images are an eighth larger than the crops.
    image_px = 256 if 128 < crop_px <= 256 else crop_px * 8 // 7
    folder = pathlib.Path(config.run_dir) / "data"
    if not (folder / schema.DATASET_FILE).exists():
        print(f"Making {folder}, a data set for alexnet-evaluate too. alexnet-tfrecords makes one for several runs.")
    if config.data_dir.startswith("tfrecords:"):
        given_format = record_format.given_format(config, "data_dir")
        in_place.index_in_place(config.data_dir, folder, image_px=image_px, record_format=given_format)
    else:
        dataset_builder.build_dataset(config.data_dir, folder, image_px=image_px)
    return folder
