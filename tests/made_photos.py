"""Synthetic photographs."""

import io

import numpy as np
from PIL import Image


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(rows=60, columns=80, mode="RGB"):
    """Smooth enough that a JPEG of it is near it."""
    y, x = np.mgrid[:rows, :columns]
    array = np.stack([255 * y / rows, 255 * x / columns, 255 * (x + y) / (rows + columns)], axis=-1)
    return Image.fromarray(array.astype("uint8")).convert(mode)
