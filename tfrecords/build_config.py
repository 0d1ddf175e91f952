"""The settings of `dataset_builder.build_dataset`."""

import dataclasses

from alexnet_tf.tfrecords import images, schema


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """How a data set is built. Equal settings and sources give equal bytes.

    Attributes:
        image_px: shorter side of the stored images in pixels.
        keep_aspect: whether to keep the longer side, up to four times the shorter, instead of cropping the central
            square as in the paper. Statistics always use the central square.
        encoding, quality: "jpeg" with a quality from 1 to 95, "png" or "raw".
        exif_orientation: whether to turn images upright according to their EXIF tag Orientation. (TIFFs and HEICs
            always are.)
        max_pixels: maximum number of pixels of an image. Larger images count as unreadable.
        resize: how images become squares, "crop" or "warp"; see `images.prepare_image`.
        num_train_shards, num_validation_shards: number of files per split; None for one per 1,000 images, but at least
            16 and 4, or one per image if there are fewer images.
        validation_fraction, seed: see `sources.open_source`.
    """

    image_px: int = 256
    keep_aspect: bool = False
    encoding: str = "jpeg"
    quality: int = 95
    exif_orientation: bool = True
    max_pixels: int = images.MAX_PIXELS
    resize: str = "crop"
    num_train_shards: int | None = None
    num_validation_shards: int | None = None
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if self.resize not in schema.RESIZES or (self.resize == "warp" and self.keep_aspect):
            raise ValueError(
                f'`resize` must be one of {schema.RESIZES}, and "crop" with `keep_aspect`. Received: '
                f"resize={self.resize!r}, keep_aspect={self.keep_aspect}"
            )
        if self.encoding not in schema.ENCODINGS:
            raise ValueError(f"`encoding` must be one of {schema.ENCODINGS}. Received: encoding={self.encoding!r}")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"`quality` must be from 1 to 95. Received: quality={self.quality}")
        for name, value in (("image_px", self.image_px), ("max_pixels", self.max_pixels)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")

    def num_shards(self, split: str) -> int | None:
        """The number of files of a split."""
        return {"train": self.num_train_shards, "validation": self.num_validation_shards}[split]
