"""The settings of `dataset_builder.build_dataset`."""

import dataclasses

from alexnet_tf.options import option
from alexnet_tf.tfrecords import images, schema


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """How a data set is built. Equal settings and sources give equal bytes."""

    image_px: int = option(256, "Shorter side of the stored images in pixels.", minimum=1, group="Stored images")
    keep_aspect: bool = option(
        False,
        "Keep the longer side, up to four times the shorter, so that crops come from the complete image. By default, "
        "the central square is cropped as in the paper. Statistics always use the central square.",
    )
    encoding: str = option(
        "jpeg",
        "Format of the stored images. png is lossless and several times larger; raw is not compressed.",
        choices=schema.ENCODINGS,
    )
    quality: int = option(95, "JPEG quality, from 1 to 95.", minimum=1)
    exif_orientation: bool = option(
        True, "Turn images upright according to their EXIF tag Orientation. TIFFs and HEICs always are."
    )
    max_pixels: int = option(
        images.MAX_PIXELS,
        "Maximum number of pixels of an image; larger images count as unreadable. A small file can take gigabytes when "
        "it is decoded.",
        minimum=1,
    )
    resize: str = option(
        "crop",
        "How images become squares. crop: crop the central square, as in the paper; warp: resize both sides, whatever "
        "the aspect ratio, as Caffe's tools do.",
        choices=schema.RESIZES,
    )
    interpolation: str = option(
        "bilinear",
        "How pixels are computed. bilinear: antialiased; area: the average over each pixel's area, as in cuda-convnet2 "
        "(bicubic where images are enlarged).",
        choices=schema.INTERPOLATIONS,
    )
    num_train_shards: int | None = option(
        None,
        "Number of files of training images. Default: one per 1,000 images, but at least 16.",
        minimum=1,
        group="Splits and shards",
    )
    num_validation_shards: int | None = option(
        None, "Number of files of validation images. Default: one per 1,000 images, but at least 4.", minimum=1
    )
    validation_fraction: float = option(
        0.1, "Fraction of each class to hold out for validation if the source has no validation images."
    )
    seed: int = option(0, "Seed of the order of the images and of the choice of held-out images.")

    def __post_init__(self):
        if self.resize == "warp" and self.keep_aspect:
            raise ValueError('`resize` must be "crop" with `keep_aspect`. Received: resize="warp"')
        for field in dataclasses.fields(self):
            value, choices, minimum = getattr(self, field.name), field.metadata["choices"], field.metadata["minimum"]
            if choices and value not in choices:
                raise ValueError(f"`{field.name}` must be one of {choices}. Received: {field.name}={value!r}")
            if minimum is not None and value is not None and value < minimum:
                raise ValueError(f"`{field.name}` must be at least {minimum}. Received: {field.name}={value}")
        if self.quality > 95:
            raise ValueError(f"`quality` must be from 1 to 95. Received: quality={self.quality}")
