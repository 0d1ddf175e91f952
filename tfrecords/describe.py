"""Describes a data set in a text and pictures."""

import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from alexnet_tf import files
from alexnet_tf.tfrecords import crops, decoding, records, schema, statistics, storage

_THUMBNAIL_PX = 112
_CAPTION_PX = 14


def describe_dataset(data_dir: str | pathlib.Path) -> str:
    """Describes a data set as Markdown: counts, sizes, class balance and pixel statistics of the training images.

    Raises:
        ValueError: if the folder does not contain a complete data set.
    """
    description = schema.load_description(data_dir)
    pixels = statistics.Statistics.load(data_dir)
    lines = [f"# {data_dir}", ""]
    lines += [
        f"{len(description.class_names)} classes; images of {description.image_px} x {description.image_px} pixels"
        f"{' or longer' if description.keep_aspect else ''}{', warped' if description.resize == 'warp' else ''}, "
        f"{'resized when read' if description.in_place else f'stored as {description.encoding}'}.",
        "",
        "| split | images | shards | MB | bytes per image | images per class: minimum, median, maximum | skipped |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, split in description.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        per_class = np.array(split.count_per_class)
        lines.append(
            f"| {name} | {split.count:,} | {len(split.shards)} | {size / 1e6:,.1f} | {size / split.count:,.0f} | "
            f"{per_class.min():,}, {np.median(per_class):,.0f}, {per_class.max():,} | {len(split.skipped)} |"
        )
    lines += ["", "| class | train | validation |", "|---|---|---|"]
    counts = [description.splits[split].count_per_class for split in schema.SPLITS]
    ranking = np.argsort(-np.array(counts[0]), kind="stable")
    shown = ranking if len(ranking) <= 20 else [*ranking[:10], *ranking[-10:]]
    lines += [f"| {description.class_names[label]} | {counts[0][label]:,} | {counts[1][label]:,} |" for label in shown]
    if len(ranking) > 20:
        lines.append(f"\n(The 10 largest and the 10 smallest of {len(ranking)} classes.)")
    deviations = np.sqrt(pixels.eigenvalues)
    lines += ["", f"Mean RGB of the training images, 0 to 255: {_row(pixels.rgb_mean)}."]
    lines += [
        "",
        "| principal component of RGB | standard deviation | color noise: standard deviation |",
        "|---|---|---|",
    ]
    lines += [
        f"| {_row(pixels.eigenvectors[:, i])} | {deviation:.2f} | {statistics.COLOR_NOISE_STD * deviation:.2f} |"
        for i, deviation in enumerate(deviations)
    ]
    return "\n".join(lines) + "\n"


def draw_dataset(data_dir: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Draws pictures of a data set.

    Returns: a dict from file name to uint8 (height, width, 3):
        contact_sheet.png   64 training images from all shards, with their classes
        mean_image.png      the mean of the training images
        color_noise.png     four rows of an image without and with seven draws of color noise

    Raises:
        ValueError: if the folder does not contain a complete data set.
    """
    description = schema.load_description(data_dir)
    pixels = statistics.Statistics.load(data_dir)
    shards = description.splits["train"].shards
    per_shard = -(-64 // len(shards))
    examples = []
    for shard in shards:
        for record in tf.data.TFRecordDataset(storage.join(data_dir, shard.name)).take(per_shard):
            encoded, size, label = records.parse_record(record, description)
            decoded = decoding.decode_image(encoded, description.encoding, size).numpy()
            examples.append((crops.center_crop(decoded, description.image_px), description.class_names[label]))
    examples = examples[:64]
    draws = np.random.default_rng(0).normal(size=(len(examples[:4]), 7, 3))
    image_offsets = draws @ pixels.color_noise().T
    noisy = []
    for (image, name), offsets in zip(examples[:4], image_offsets, strict=True):
        noisy.append((image, name))
        for offset in offsets:
            shifted = np.uint8(np.clip(np.round(image + offset), 0, 255))
            noisy.append((shifted, " ".join(f"{value:+.0f}" for value in offset)))
    return {
        "contact_sheet.png": _sheet(examples),
        "mean_image.png": np.round(pixels.mean_image).astype("uint8"),
        "color_noise.png": _sheet(noisy),
    }


def write_pictures(data_dir: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes the pictures of `draw_dataset` into the folder of the data set. Returns their paths."""
    paths = []
    for name, picture in draw_dataset(data_dir).items():
        paths.append(pathlib.Path(data_dir) / name)
        image = Image.fromarray(picture)
        files.write_atomically(paths[-1], lambda file, image=image: image.save(file, format="PNG"))
    return paths


def _row(values):
    return ", ".join(f"{value:.3g}" for value in values)


def _sheet(captioned):
    """A grid of images with captions below, eight per row."""
    from alexnet_tf import fonts  # importing Matplotlib takes half a second

    rows = -(-len(captioned) // 8)
    cell = _THUMBNAIL_PX + 4
    sheet = Image.new("RGB", (8 * cell, rows * (cell + _CAPTION_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (pixels, caption) in enumerate(captioned):
        row, column = divmod(index, 8)
        left, top = column * cell + 2, row * (cell + _CAPTION_PX) + 2
        sheet.paste(Image.fromarray(pixels).resize((_THUMBNAIL_PX, _THUMBNAIL_PX)), (left, top))
        caption = " ".join(caption.split())
        font = ImageFont.truetype(fonts.font_files(caption)[:2][-1], 10)
        while draw.textlength(caption, font) > _THUMBNAIL_PX:
            caption = caption[:-2].rstrip("… ") + "…"
        draw.text((left, top + _THUMBNAIL_PX), caption, "black", font)
    return np.asarray(sheet)
