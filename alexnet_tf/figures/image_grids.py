"""Grids of images: kernels, predictions, and images in rows. Each is an RGB array, uint8 (height, width, 3)."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_tf.figures import plots

_KERNELS_PER_ROW = 16  # figure 3: 48 kernels of a column in three rows


def spread_evenly(length: int, count: int) -> np.ndarray:
    """At most `count` different indices from 0 to `length` - 1, these two included; int (n,)."""
    return np.unique(np.linspace(0, length - 1, count).round().astype(int))


def tile(pictures: Sequence[np.ndarray] | np.ndarray, columns: int, fill: float = 0) -> np.ndarray:
    """Arranges pictures of one size in rows.

    Args:
        pictures: arrays (height, width) or (height, width, channels).
        columns: number of pictures in a row.
        fill: value of the places without a picture at the end of the last row.

    Returns: an array (rows * height, columns * width), with channels if they have them.
    """
    pictures = np.asarray(pictures)
    missing = np.full((-len(pictures) % columns, *pictures.shape[1:]), fill, pictures.dtype)
    places = np.concatenate([pictures, missing])
    return np.vstack([np.hstack(list(places[first : first + columns])) for first in range(0, len(places), columns)])


def kernel_sheet(kernels: Sequence[Any], magnification: int = 4) -> np.ndarray:
    """Draws the kernels of a layer whose input is RGB pixels: one block of rows for each column of the network.

    Args:
        kernels: an array or variable (side, side, 3, filters) for each column, such as `layers.GroupedConv2D.kernels`.
        magnification: side of a kernel's pixel in the picture, in pixels.

    Returns: uint8 (height, width, 3). Each kernel is scaled separately to 0...255, where gray is zero.

    Source: figure 3.
    """
    blocks, gap = [], 2 * magnification
    for of_column in kernels:
        pictures = np.moveaxis(np.asarray(of_column, "float32"), -1, 0)  # (kernels, side, side, 3)
        largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
        pictures = 0.5 + 0.5 * pictures / np.where(largest > 0, largest, 1)
        pictures = pictures.repeat(magnification, axis=1).repeat(magnification, axis=2)
        pictures = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)
        block = tile(pictures, min(_KERNELS_PER_ROW, len(pictures)), fill=1)
        blocks.append(np.pad(block, ((0, gap), (0, 0), (0, 0)), constant_values=1))
    return np.round(255 * np.concatenate(blocks)[:-gap]).astype("uint8")


def prediction_panel(
    images: Sequence[np.ndarray] | np.ndarray,
    predictions: Sequence[tuple[Sequence[str], np.ndarray]],
    titles: Sequence[str | None] | None = None,
) -> np.ndarray:
    """Draws images above bars of their most probable classes, with the probabilities in percent.

    Args:
        images: uint8 arrays (height, width, 3), or one (n, height, width, 3).
        predictions: for each image the (names, probabilities) of its most probable classes, the most probable first.
        titles: the text above each image, or None. If it is the name of a class, the bar of that class is orange. A
            "/" in the name may be "_" in the title, as in file names.

    Returns: uint8 (height, width, 3).

    Source: figure 4, left.
    """
    titles = titles or [None] * len(images)
    per_row = min(4, len(images))
    rows = -(-len(images) // per_row)
    figure = Figure(figsize=(2.4 * per_row, 3.5 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, per_row, squeeze=False, height_ratios=[2.2, 1] * rows)
    for panel in panels.flat:
        panel.set_axis_off()
    for index, (image, (names, probabilities), title) in enumerate(zip(images, predictions, titles, strict=True)):
        row, column = divmod(index, per_row)
        picture, bars = panels[2 * row, column], panels[2 * row + 1, column]
        picture.imshow(image)
        if title:
            picture.set_title(shorten(title, 30), fontsize=9)
        colors = ["#f4a582" if title in (name, name.replace("/", "_")) else "#9ecae1" for name in names]
        draw_bars(bars, names, probabilities, colors)
    return plots.pixels_of(figure, dpi=200)


def shorten(name: str, characters: int = 23) -> str:
    """Shortens a class's name to a number of characters, without a WordNet id."""
    name = re.sub(r"^n\d{8} ", "", name)
    return name if len(name) <= characters else name[: characters - 2] + "…"


def draw_bars(
    axes: Axes,
    names: Sequence[str],
    probabilities: Sequence[float] | np.ndarray,
    colors: Sequence[str] | str = "#9ecae1",
    fontsize: float = 8,
) -> None:
    """Draws classes as bars, the first at the top, with their names and the probabilities in percent."""
    axes.set_axis_off()
    axes.barh(range(len(names)), probabilities, color=colors)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
    for position, (name, probability) in enumerate(zip(names, probabilities, strict=True)):
        axes.text(0.02, position, shorten(name), va="center", fontsize=fontsize)
        axes.text(0.98, position, f"{probability:.0%}", va="center", ha="right", fontsize=fontsize)


def image_rows(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
    """Draws rows of captioned images, with a gap after the first image of each row.

    Args:
        rows: lists of equal length of (uint8 (height, width, 3), caption).

    Returns: uint8 (height, width, 3).

    Source: figure 4, right.
    """
    columns = len(rows[0])
    figure = Figure(figsize=(1.5 * columns + 0.3, 1.75 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[1, 0.15, *[1] * (columns - 1)])
    for panel in panels.flat:
        panel.set_axis_off()
    for row, images in enumerate(rows):
        for column, (image, caption) in enumerate(images):
            panel = panels[row, column + (column > 0)]
            panel.imshow(image)
            panel.set_title(shorten(caption, 21), fontsize=8)
    return plots.pixels_of(figure)


def patch_rows(rows: Sequence[Sequence[tuple[np.ndarray, str]]], names: Sequence[str]) -> np.ndarray:
    """Draws rows of small images with captions, with the name of each row at the left.

    Args:
        rows: lists of equal length of (uint8 (side, side, 3), caption).
        names: the name of each row, which may have several lines.

    Returns: uint8 (height, width, 3).
    """
    columns = len(rows[0])
    figure = Figure(figsize=(1.1 * columns + 0.9, 1.3 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[0.8] + [1] * columns)
    for panel in panels.flat:
        panel.set_axis_off()
    for row, (patches, name) in enumerate(zip(rows, names, strict=True)):
        panels[row, 0].text(0.95, 0.5, name, ha="right", va="center", fontsize=8, transform=panels[row, 0].transAxes)
        for panel, (patch, caption) in zip(panels[row, 1:], patches, strict=True):
            panel.imshow(patch, interpolation="bicubic")
            panel.set_title(shorten(caption), fontsize=7, pad=2)
    return plots.pixels_of(figure, dpi=160)
