"""Synthetic photographs."""

import io

import numpy as np
from PIL import ExifTags, Image


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def save_image(path, image):
    """Writes an image, a `PIL.Image.Image` or an array, into a folder that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def exif(orientation):
    """EXIF data with an Orientation for `encoded`."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def photo(height=60, width=80, mode="RGB"):
    """A smooth image, so that a JPEG of it is close to it."""
    y, x = np.mgrid[:height, :width]
    array = np.stack([255 * y / height, 255 * x / width, 255 * (x + y) / (height + width)], axis=-1)
    return Image.fromarray(array.astype("uint8")).convert(mode)


def noisy_photo(generator, height, width, channels=3):
    """Noise of several scales, also the finest: resizing without antialiasing would show."""
    total = np.zeros((height, width, channels))
    for cells in (3, 12, 60, 400):
        field = Image.fromarray(generator.integers(0, 256, (cells, cells, channels), "uint8").squeeze())
        total += np.asarray(field.resize((width, height), Image.Resampling.BICUBIC)).reshape(total.shape)
    return Image.fromarray(np.uint8(total / 4).squeeze())


def write_photos(folder, count):
    """Writes images of many sizes and modes: JPEGs with every orientation, PNGs, gray and transparent ones."""
    generator = np.random.default_rng(5)
    paths = []
    for number in range(count):
        height, width = generator.integers(40, 700, 2)
        options, channels, kind = {}, 3, "JPEG"
        match number % 5:
            case 0 | 1:
                subsampling = int(generator.integers(3))
                options = {"quality": int(generator.integers(60, 100)), "subsampling": subsampling}
                options |= {"exif": exif(number % 8 + 1)}
            case 2:
                channels = 1
            case 3:
                kind = "PNG"
            case 4:
                kind, channels = "PNG", 4
        paths.append(folder / f"{number}.{kind.lower()}")
        noisy_photo(generator, height, width, channels).save(paths[-1], kind, **options)
    return paths
