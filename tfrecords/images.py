"""Opens, crops, resizes and encodes the images of a data set."""

import contextlib
import functools
import io
import pathlib
import struct
import warnings
from typing import Any

import numpy as np
from PIL import Image

# The only formats that are opened; content decides, not file names. Pillow itself also opens EPS, for which it runs
# Ghostscript and with it any program in the file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
SERVED_FORMATS = ("JPEG", "PNG", "BMP")  # the formats that an exported model decodes
MAX_PIXELS = 89_478_485  # Pillow's limit
JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8\xff", b"\x89PNG"  # the first bytes of a file
BACKGROUND = 255  # transparent images are placed on white, as on most web pages

# Longer side by shorter side. Without a limit, an image of 1 x 5000 pixels would become 256 x 1,280,000: a gigabyte.
_MAX_ASPECT_RATIO = 4
# The operation that turns an image upright, by the value of the EXIF tag Orientation.
ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The values for which the rows or columns of the file are in reverse order. Values above 4 also swap rows and columns.
ROWS_REVERSED = (3, 4, 6, 7)
COLUMNS_REVERSED = (2, 3, 7, 8)


def open_image(image: bytes | str | pathlib.Path | np.ndarray, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image in one of `FORMATS`, or HEIC if pillow-heif is installed. No pixels are decoded yet.

    Args:
        image: the content or the path of an image file, or uint8 (height, width) or (height, width, 3).
        max_pixels: maximum number of pixels.

    Raises:
        Exception: one of many types, if the image can't be opened.
    """
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    with _limit_pixels(max_pixels):
        return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_find_formats())


@functools.cache
def _find_formats() -> tuple[str, ...]:
    """`FORMATS`, and HEIF if pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def prepare_image(
    image: bytes | str | pathlib.Path | np.ndarray | Image.Image,
    image_px: int,
    keep_aspect: bool = False,
    exif_orientation: bool = True,
    max_pixels: int = MAX_PIXELS,
    resize: str = "crop",
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Crops the central square of an image and resizes it to `image_px`, antialiased.

    Gray, palette and CMYK images become 8-bit RGB. Transparent images are placed on white. Values with more than 8 bits
    are scaled by the range that they use (see `scale_to_8_bits`).

    Args:
        image: see `open_image`; or its result.
        image_px: shorter side of the result in pixels.
        keep_aspect: whether to keep the longer side, up to four times the shorter, instead of cropping a square.
        exif_orientation: whether to turn the image upright according to its EXIF tag Orientation.
        max_pixels: maximum number of pixels.
        resize: "crop", or "warp" to resize both sides of the complete image to `image_px`, as Caffe's tools do.
        interpolation: "bilinear", or "area" for the average over each pixel's area (bicubic where images are enlarged).

    Returns: uint8 (height, width, 3).

    Raises:
        Exception: one of many types, if Pillow can't read the image.

    Source: section 2. "warp": github.com/BVLC/caffe, examples/imagenet/create_imagenet.sh. "area": cuda-convnet2,
    make-data/pyext/src/pyext.cpp.
    Deviation: Caffe's tools interpolate without antialiasing. cuda-convnet2 crops after resizing.
    """
    with _limit_pixels(max_pixels):
        opened = image if isinstance(image, Image.Image) else open_image(image, max_pixels)
        orientation = read_orientation(opened.info.get("exif") or b"") if exif_orientation else 1
        pixels = _with_8_bits(opened)
        # Crop before resizing: 5000 x 1 pixels must not become 1,280,000 x 256. If the square can't be exactly in the
        # center, it is half a pixel up or left of it in the upright image, as in the served model.
        pixels.load()  # turns TIFFs upright
        side = min(pixels.size)
        width, height = pixels.size
        if resize == "crop":
            width, height = (min(length, (_MAX_ASPECT_RATIO if keep_aspect else 1) * side) for length in pixels.size)
        left = (pixels.width - width + (orientation in COLUMNS_REVERSED)) // 2
        top = (pixels.height - height + (orientation in ROWS_REVERSED)) // 2
        kept = pixels.crop((left, top, left + width, top + height))
        if pixels.has_transparency_data and opened.format != "BMP":  # TensorFlow ignores it in BMPs
            layer = kept.convert("RGBA")
            kept = Image.new("RGB", kept.size, (BACKGROUND,) * 3)
            kept.paste(layer, mask=layer)
        kept = kept.convert("RGB")
        if orientation in _UPRIGHT:
            kept = kept.transpose(_UPRIGHT[orientation])
        width, height = (round(length * image_px / side) for length in kept.size)
        if resize == "warp":
            width = height = image_px
        if interpolation == "area":
            if min(kept.width / width, kept.height / height) > 1:
                return _average_areas(np.asarray(kept), height, width)
            return np.asarray(kept.resize((width, height), Image.Resampling.BICUBIC))
        return np.asarray(kept.resize((width, height), Image.Resampling.BILINEAR))


def _average_areas(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrinks an image; each pixel is the average over its area, where pixels at the edges count by their part.

    (Pillow's BOX counts only whole pixels.)
    """
    result = pixels.astype("float32")
    for axis, new in enumerate((height, width)):
        old = pixels.shape[axis]
        edges = np.arange(new + 1) * old / new
        starts = np.arange(old)
        covered = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
        weights = np.float32(np.maximum(covered, 0) * new / old)
        result = np.moveaxis(np.tensordot(weights, result, (1, axis)), 0, axis)
    return np.rint(result).astype("uint8")


@contextlib.contextmanager
def _limit_pixels(max_pixels: int):
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow only warns below twice the limit
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"images must have at most {max_pixels:,} pixels (--max_pixels). {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_orientation(exif: bytes) -> int:
    """The value of the EXIF tag Orientation, from 1 (upright) to 8; 1 if it is missing or damaged.

    Pillow finds orientations in places where the served model can't, and both must turn the same images.

    Args:
        exif: EXIF data, with or without the six bytes that precede it in a JPEG.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order:
        with contextlib.suppress(struct.error):  # truncated
            start = struct.unpack_from(order + "I", exif, 4)[0]
            for number in range(struct.unpack_from(order + "H", exif, start)[0]):
                tag, kind, count, value = struct.unpack_from(order + "HHIHxx", exif, start + 2 + 12 * number)
                if tag == ORIENTATION_TAG:
                    return value if (kind, count) == (3, 1) and value in _UPRIGHT else 1
    return 1


def scale_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales the values of an image with more than 8 bits by the range that they use.

    The range is the smallest of 8, 10, 12, 14 and 16 bits that contains the largest value, because cameras and scanners
    store 12 bits in 16-bit files. Floats from 0 to 1 are multiplied by 255.

    Raises:
        ValueError: if a value is negative, above 65,535 or NaN, or if the largest float is between 1 and 16, which
            leaves open whether the range is 0 to 1 or 0 to 255.
    """
    least, largest = values.min(initial=0), values.max(initial=0)
    floats = values.dtype.kind == "f"
    if not (least >= 0 and largest <= 65535) or (floats and 1 < largest < 16):
        raise ValueError(
            f"pixels must be integers of 8 to 16 bits or floats from 0 to 1. Received: {values.dtype} from {least} "
            f"to {largest}"
        )
    if floats and largest <= 1:
        return np.rint(255 * values).astype("uint8")
    bits = max(8, int(largest).bit_length())
    return (np.rint(values).astype("uint16") >> (bits + bits % 2 - 8)).astype("uint8")


def _with_8_bits(opened: Any) -> Image.Image:
    """The image with 8-bit values. Pillow reads only the high bytes of 16-bit color images."""
    wide = ";16" in str(getattr(opened, "tile", ""))  # the raw mode of the pixels, which are not decoded yet
    if wide and opened.format == "PNG":
        import tensorflow as tf  # only few images need it

        file = opened.fp
        file.seek(0)
        values = tf.io.decode_png(file.read(), channels=4, dtype=tf.uint16).numpy()
        return Image.fromarray(np.dstack([scale_to_8_bits(values[..., :3]), np.uint8(values[..., 3] >> 8)]), "RGBA")
    if opened.mode.startswith(("I", "F")):
        return Image.fromarray(scale_to_8_bits(np.asarray(opened)))
    if wide and opened.format == "TIFF" and np.asarray(opened).max() < 64:
        raise ValueError("16-bit color TIFFs must use all 16 bits; convert the image to PNG")
    return opened


def unserved_format(opened: Image.Image) -> str | None:
    """The format of the image if an exported model can't decode it, else None."""
    if opened.format == "BMP" and (opened.mode not in ("RGB", "RGBA") or ";" in str(getattr(opened, "tile", ""))):
        return "BMP with less than 24 bits"
    # MPO: a JPEG followed by further images, written by some cameras.
    return opened.format if opened.format not in (None, "MPO", *SERVED_FORMATS) else None


def encode_image(image: np.ndarray, encoding: str, quality: int) -> bytes:
    """Encodes uint8 (height, width, 3) as "jpeg" with a quality, "png" or "raw" pixels."""
    if encoding == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality} if encoding == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=encoding, **options)
    return buffer.getvalue()
