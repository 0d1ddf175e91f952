"""Prepares the images of a data set, and encodes them."""

import contextlib
import io
import pathlib
import struct
import warnings
from typing import Any

import numpy as np
from PIL import Image

# All that is ever opened, by its content. Pillow's own list has EPS, for which it runs Ghostscript, that is, any
# program that is in the file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
SERVED_FORMATS = ("JPEG", "PNG", "BMP")  # those of them that an exported model decodes
MAX_PIXELS = 89_478_485  # Pillow's limit
JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8\xff", b"\x89PNG"  # with which files begin
BACKGROUND = 255  # what transparent images are laid on: white, as most pages that show them

# The longer side may be at most so many times the shorter: a line of 1 x 5000 pixels would take a gigabyte.
_MAX_ASPECT_RATIO = 4
# What makes an image upright, by the value of EXIF's tag Orientation.
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
# The values for which the file's rows, or columns, are in reverse order. For values above 4 they change places as well.
ROWS_REVERSED = (3, 4, 6, 7)
COLUMNS_REVERSED = (2, 3, 7, 8)


def open_image(image: bytes | str | pathlib.Path | np.ndarray, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image of one of `FORMATS`, determined by its content, not by its name. No pixel is decoded yet.

    Args:
        image: see `prepare_image`.
        max_pixels: number of pixels that it may have.

    Raises:
        Exception: of one of many kinds, if it can't be opened.
    """
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    with _limit_pixels(max_pixels):
        return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS)


def prepare_image(
    image: bytes | str | pathlib.Path | np.ndarray | Image.Image,
    image_px: int,
    keep_aspect: bool = False,
    exif_orientation: bool = True,
    max_pixels: int = MAX_PIXELS,
    resize: str = "crop",
) -> np.ndarray:
    """Crops and resizes an image of a source: central square, shorter side `image_px`, antialiased.

    Any kind becomes 8-bit RGB: gray, palette, CMYK; transparent images are laid on white; values of more than 8 bits
    are scaled by the range that they fill (see `scale_to_8_bits`).

    Args:
        image: bytes of an encoded image, or the path of one, or one opened by `open_image`, or uint8 (rows, columns)
            or (rows, columns, 3).
        image_px: shorter side of the result, in pixels.
        keep_aspect: whether to keep the longer side, up to four times the shorter, instead of cutting out a square.
        exif_orientation: whether to turn the image upright, as its EXIF tag Orientation says.
        max_pixels: number of pixels that it may have.
        resize: "crop", or "warp" to resize both sides of the complete image to `image_px`, as Caffe's tools do.

    Returns: uint8 (rows, columns, 3).

    Raises:
        Exception: of one of many kinds, if Pillow can't read the image.

    Source: section 2. "warp": github.com/BVLC/caffe, examples/imagenet/create_imagenet.sh.
    Deviation: Caffe's tools interpolate without antialiasing.
    """
    with _limit_pixels(max_pixels):
        opened = image if isinstance(image, Image.Image) else open_image(image, max_pixels)
        orientation = read_orientation(opened.info.get("exif", b"")) if exif_orientation else 1
        pixels = _with_8_bits(opened)
        # Cropped before it is resized: 5000 x 1 pixels never become 1,280,000 x 256. A square that can't be exactly
        # central is half a pixel up or left in the upright image, as in the served model.
        pixels.load()  # which turns a TIFF upright by itself
        side = min(pixels.size)
        width, height = pixels.size
        if resize == "crop":
            width, height = (min(length, (_MAX_ASPECT_RATIO if keep_aspect else 1) * side) for length in pixels.size)
        left = (pixels.width - width + (orientation in COLUMNS_REVERSED)) // 2
        top = (pixels.height - height + (orientation in ROWS_REVERSED)) // 2
        kept = pixels.crop((left, top, left + width, top + height))
        if pixels.has_transparency_data and opened.format != "BMP":  # TensorFlow does not know that of BMP
            layer = kept.convert("RGBA")
            kept = Image.new("RGB", kept.size, (BACKGROUND,) * 3)
            kept.paste(layer, mask=layer)
        kept = kept.convert("RGB")
        if orientation in _UPRIGHT:
            kept = kept.transpose(_UPRIGHT[orientation])
        columns, rows = (round(length * image_px / side) for length in kept.size)
        if resize == "warp":
            columns = rows = image_px
        return np.asarray(kept.resize((columns, rows), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _limit_pixels(max_pixels: int):
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # else Pillow allows twice the limit
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"an image may have {max_pixels:,} pixels (--max_pixels). {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_orientation(exif: bytes) -> int:
    """The value of the tag Orientation, from 1 (upright) to 8; 1 if it is missing or damaged.

    Not by Pillow, which takes more for an orientation than the served model can find: both must turn the same images.

    Args:
        exif: EXIF data, with or without the six bytes before them in a JPEG.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order:
        with contextlib.suppress(struct.error):  # cut off
            start = struct.unpack_from(order + "I", exif, 4)[0]
            for number in range(struct.unpack_from(order + "H", exif, start)[0]):
                tag, kind, count, value = struct.unpack_from(order + "HHIHxx", exif, start + 2 + 12 * number)
                if tag == ORIENTATION_TAG:
                    return value if (kind, count) == (3, 1) and value in _UPRIGHT else 1
    return 1


def scale_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales the values of an image of more than 8 bits by the range that they fill.

    The range is that of 8, 10, 12, 14 or 16 bits, the smallest that has the largest value: cameras and scanners put
    their 12 bits into files of 16. Values from 0 to 1, of floats alone, are scaled by 255.

    Raises:
        ValueError: if a value is negative, above 65,535 or not a number, or if it can't be told whether floats are
            from 0 to 1 or from 0 to 255.
    """
    least, largest = values.min(initial=0), values.max(initial=0)
    floats = values.dtype.kind == "f"
    if not (least >= 0 and largest <= 65535) or (floats and 1 < largest < 16):
        raise ValueError(
            f"pixels must be whole numbers of 8 to 16 bits, or from 0 to 1. Received: {values.dtype} from {least} to "
            f"{largest}"
        )
    if floats and largest <= 1:
        return np.rint(255 * values).astype("uint8")
    bits = max(8, int(largest).bit_length())
    return (np.rint(values).astype("uint16") >> (bits + bits % 2 - 8)).astype("uint8")


def _with_8_bits(opened: Any) -> Image.Image:
    """An image whose values have 8 bits, of one that may have more. Of three colors Pillow keeps the high bytes."""
    wide = ";16" in str(getattr(opened, "tile", ""))  # how the pixels that are not decoded yet are stored
    if wide and opened.format == "PNG":
        import tensorflow as tf  # not with the module: most images are prepared without it

        file = opened.fp
        file.seek(0)
        values = tf.io.decode_png(file.read(), channels=4, dtype=tf.uint16).numpy()
        return Image.fromarray(np.dstack([scale_to_8_bits(values[..., :3]), np.uint8(values[..., 3] >> 8)]), "RGBA")
    if opened.mode.startswith(("I", "F")):
        return Image.fromarray(scale_to_8_bits(np.asarray(opened)))
    if wide and opened.format == "TIFF" and np.asarray(opened).max() < 64:
        raise ValueError("the colors of a TIFF of 16 bits must fill them; of a PNG they need not")
    return opened


def unserved_format(opened: Image.Image) -> str | None:
    """The format of an image that an exported model does not decode; None if it does."""
    if opened.format == "BMP" and (opened.mode not in ("RGB", "RGBA") or ";" in str(getattr(opened, "tile", ""))):
        return "BMP of less than 24 bits"
    # MPO: a JPEG with others behind it, as some cameras write.
    return opened.format if opened.format not in (None, "MPO", *SERVED_FORMATS) else None


def encode_image(image: np.ndarray, encoding: str, quality: int) -> bytes:
    """Encodes uint8 (rows, columns, 3) as "jpeg" of a quality, as "png", or as "raw" pixels."""
    if encoding == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality} if encoding == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=encoding, **options)
    return buffer.getvalue()
