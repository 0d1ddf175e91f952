"""Synthetic photographs."""

import io

import numpy as np
from PIL import ExifTags, Image


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation):
    """EXIF data with an Orientation for `encoded`."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def photo(rows=60, columns=80, mode="RGB"):
    """A smooth image, so that a JPEG of it is close to it."""
    y, x = np.mgrid[:rows, :columns]
    array = np.stack([255 * y / rows, 255 * x / columns, 255 * (x + y) / (rows + columns)], axis=-1)
    return Image.fromarray(array.astype("uint8")).convert(mode)
