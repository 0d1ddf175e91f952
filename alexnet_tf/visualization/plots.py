"""Pictures of a network and of what it says. All of them are RGB arrays, uint8 (rows, columns, 3)."""

import itertools
import os
import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

_KERNELS_A_ROW = 16  # figure 3: 48 kernels of a column in three rows


def kernel_sheet(layer, magnification=4):
    """The kernels of a layer that sees RGB pixels: one block of rows for each column of the network.

    Args:
        layer: a built `layers.GroupedConv2D` with 3 input channels.
        magnification: how many pixels of the picture a pixel of a kernel becomes, each way.

    Returns: uint8 (rows, columns, 3). Each kernel is scaled by itself to 0...255, grey being where it is 0.

    Source: figure 3.
    """
    blocks = []
    for kernel in layer.kernels:
        kernels = np.moveaxis(np.asarray(kernel, "float32"), -1, 0)  # (kernels, side, side, 3)
        largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
        kernels = 0.5 + 0.5 * kernels / np.where(largest > 0, largest, 1)
        kernels = kernels.repeat(magnification, axis=1).repeat(magnification, axis=2)
        kernels = np.pad(kernels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)
        missing = -len(kernels) % min(_KERNELS_A_ROW, len(kernels))
        kernels = np.concatenate([kernels, np.ones((missing, *kernels.shape[1:]), "float32")])
        a_row = min(_KERNELS_A_ROW, len(kernels))
        side = kernels.shape[1]
        rows = kernels.reshape(-1, a_row, side, side, 3).transpose(0, 2, 1, 3, 4)
        blocks.append(rows.reshape(-1, a_row * side, 3))
    gap = np.ones((2 * magnification, blocks[0].shape[1], 3), "float32")
    sheet = blocks[0]
    for block in blocks[1:]:
        sheet = np.concatenate([sheet, gap, block])
    return np.uint8(np.round(255 * sheet))


def confusion_matrix(labels, predictions, class_names):
    """How often each class (rows) was taken for each (columns), as a share of the row.

    Args:
        labels, predictions: int arrays (n,).
        class_names: names of the classes, in the order of the labels.

    Returns: uint8 (rows, columns, 3). With more than 30 classes, the names and figures are left out.
    """
    classes = len(class_names)
    counts = np.zeros((classes, classes), "int64")
    np.add.at(counts, (labels, predictions), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    readable = classes <= 30
    side_inches = max(5, 0.55 * classes) if readable else 9
    figure = Figure(figsize=(side_inches + 2, side_inches + 1), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, {len(labels):,} images (share of each row)")
    if readable:
        axes.set_xticks(range(classes), class_names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), class_names)
        for true, predicted in np.argwhere(counts):
            share = shares[true, predicted]
            text = f"{share:.2f}".lstrip("0") if share < 1 else "1"
            color = "white" if share > 0.5 else "black"
            axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=8)
    return pixels_of(figure)


def reliability_diagram(calibration):
    """How often the network is right against how sure it is of it; below, of how many images it is so sure.

    Args:
        calibration: what `metrics.calibration` returns.

    Returns: uint8 (rows, columns, 3).
    """
    rows = calibration["bins"]
    confidences, accuracies, images = ([row[key] for row in rows] for key in ("confidence", "accuracy", "images"))
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], "--", color="grey", label="as sure as right")
    upper.plot(confidences, accuracies, "o-", color="#2171b5", label="the network")
    upper.set(
        xlim=(0, 1),
        ylim=(0, 1),
        ylabel="share that is right",
        title=f"Expected calibration error {calibration['expected_calibration_error']:.1%}",
    )
    upper.legend(loc="upper left")
    lower.bar(confidences, images, width=0.04, color="#9ecae1")
    lower.set(xlabel="largest probability", ylabel="images")
    return pixels_of(figure)


def training_curves(curves, labels, goal_error, title):
    """The training error of several trainings by epoch, with the epoch in which each came to a goal.

    Args:
        curves: lists of the training error of each epoch.
        labels: what each is called.
        goal_error: where the horizontal line is.
        title: of the picture.

    Returns: uint8 (rows, columns, 3).

    Source: figure 1: ReLU solid, tanh dashed.
    """
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(goal_error, color="grey", linewidth=0.8)
    looks = itertools.cycle([("-", "#08519c"), ("--", "#a50f15")])
    for errors, label, (style, color) in zip(curves, labels, looks, strict=False):
        epochs = len(errors) if errors[-1] <= goal_error else f"more than {len(errors)}"
        axes.plot(range(1, len(errors) + 1), errors, style, color=color, label=f"{label}: {epochs} epochs")
        axes.plot([len(errors)], errors[-1:], "o", color=color, markersize=4)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, 0.8), title=f"{title}: epochs to {goal_error:.0%}")
    axes.set_xlim(left=0)
    axes.legend()
    return pixels_of(figure)


def prediction_panel(images, answers, titles=None):
    """Images with the bars of their most probable classes beneath them.

    Args:
        images: uint8 arrays (rows, columns, 3), one for each picture.
        answers: for each image (names, probabilities) of its most probable classes, the most probable first.
        titles: None, or what stands above each image: where it is the name of a class, that bar is orange.
            (A file's name has "_" for a class's "/".)

    Returns: uint8 (rows, columns, 3).

    Source: figure 4, left.
    """
    titles = titles or [None] * len(images)
    a_row = min(4, len(images))
    rows = -(-len(images) // a_row)
    figure = Figure(figsize=(2.4 * a_row, 3.5 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, a_row, squeeze=False, height_ratios=[2.2, 1] * rows)
    for panel in panels.flat:
        panel.set_axis_off()
    for index, (image, (names, probabilities), title) in enumerate(zip(images, answers, titles, strict=True)):
        row, column = divmod(index, a_row)
        picture, bars = panels[2 * row, column], panels[2 * row + 1, column]
        picture.imshow(image)
        if title:
            picture.set_title(title, fontsize=9)
        colors = ["#f4a582" if title in (name, name.replace("/", "_")) else "#9ecae1" for name in names]
        bars.barh(range(len(names)), probabilities, color=colors)
        bars.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
        for place, name in enumerate(names):
            bars.text(0.02, place, name if len(name) < 30 else name[:28] + "…", va="center", fontsize=8)
    return pixels_of(figure)


def image_rows(rows):
    """Rows of captioned images, the first of each set apart from the others.

    Args:
        rows: lists of one length of (uint8 (rows, columns, 3), caption).

    Returns: uint8 (rows, columns, 3).

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
            panel.set_title(caption if len(caption) < 22 else caption[:20] + "…", fontsize=8)
    return pixels_of(figure)


def patch_rows(rows, names):
    """Rows of small pictures without captions, each row with its name at the left.

    Args:
        rows: lists of one length of uint8 (side, side, 3).
        names: what stands at the left of each row; may have several lines.

    Returns: uint8 (rows, columns, 3).
    """
    columns = len(rows[0])
    figure = Figure(figsize=(1.1 * columns + 0.9, 1.12 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[0.8] + [1] * columns)
    for panel in panels.flat:
        panel.set_axis_off()
    for row, (patches, name) in enumerate(zip(rows, names, strict=True)):
        panels[row, 0].text(0.95, 0.5, name, ha="right", va="center", fontsize=8, transform=panels[row, 0].transAxes)
        for panel, patch in zip(panels[row, 1:], patches, strict=True):
            panel.imshow(patch, interpolation="nearest")
    return pixels_of(figure)


def save_png(path, pixels):
    """Writes uint8 (rows, columns, 3) as a PNG, under a temporary name first."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    Image.fromarray(pixels).save(temporary, format="PNG")
    temporary.replace(path)


def pixels_of(figure):
    """A matplotlib figure as uint8 (rows, columns, 3), of 100 pixels an inch."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
