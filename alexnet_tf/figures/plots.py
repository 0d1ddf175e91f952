"""Charts of measurements. Each is an RGB array, uint8 (height, width, 3), which `save_png` writes."""

import itertools
import pathlib
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from alexnet_tf import files, fonts


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The share of the images of each class (rows) that was predicted as each class (columns).

    Args:
        labels, predictions: int arrays (n,).
        class_names: names in the order of the labels.

    Returns: uint8 (height, width, 3). If there are more than 30 classes, names and numbers are omitted.
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


def reliability_diagram(calibration: dict) -> np.ndarray:
    """Accuracy and its 95% interval against confidence, the largest probability; below, the number of images.

    Args:
        calibration: the dict that `evaluation.metrics.calibration` returns.

    Returns: uint8 (height, width, 3).
    """
    rows = calibration["bins"]
    confidences, accuracies, images = ([row[key] for row in rows] for key in ("confidence", "accuracy", "images"))
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], "--", color="gray", label="perfect calibration")
    beyond = np.abs(np.transpose([row["accuracy_interval_95"] for row in rows]) - accuracies)
    upper.errorbar(confidences, accuracies, beyond, fmt="o-", color="#2171b5", capsize=2, label="predictions (95 %)")
    upper.set(
        xlim=(0, 1),
        ylim=(0, 1),
        ylabel="accuracy",
        title=f"Expected calibration error {calibration['expected_calibration_error']:.1%}",
    )
    figure.legend(loc="outside upper center", ncols=2)  # outside, because points may be anywhere in the axes
    lower.bar(confidences, images, width=0.04, color="#9ecae1")
    lower.set(xlabel="confidence (largest probability)", ylabel="images")
    return pixels_of(figure)


def training_curves(
    curves: Sequence[Sequence[float]], labels: Sequence[str], goal_error: float, title: str
) -> np.ndarray:
    """Training error by epoch for several training runs, with the epoch in which each reached a goal.

    Args:
        curves: the training error after each epoch of each run.
        labels: names of the runs.
        goal_error: error at which a horizontal line is drawn.
        title: title of the picture.

    Returns: uint8 (height, width, 3).

    Source: figure 1: ReLU solid, tanh dashed.
    """
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(goal_error, color="gray", linewidth=0.8)
    styles = itertools.cycle([("-", "#08519c"), ("--", "#a50f15")])
    for errors, label, (style, color) in zip(curves, labels, styles, strict=False):
        epochs = len(errors) if errors[-1] <= goal_error else f"more than {len(errors)}"
        axes.plot(range(1, len(errors) + 1), errors, style, color=color, label=f"{label}: {epochs} epochs")
        axes.plot([len(errors)], errors[-1:], "o", color=color, markersize=4)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, 0.8), title=f"{title}: epochs to {goal_error:.0%}")
    axes.set_xlim(left=0)
    axes.legend()
    return pixels_of(figure)


def save_png(path: str | pathlib.Path, pixels: np.ndarray) -> None:
    """Writes uint8 (height, width, 3) as a PNG file, atomically."""
    files.write_atomically(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def save_svg(path: str | pathlib.Path, figure: Figure) -> None:
    """Writes a Matplotlib figure as an SVG file, atomically. Equal figures give equal files: they have no date."""
    with matplotlib.rc_context({"svg.hashsalt": "alexnet", "svg.fonttype": "none"}):
        canvas = FigureCanvasSVG(figure)
        files.write_atomically(path, lambda file: canvas.print_svg(file, metadata={"Date": None}))


def pixels_of(figure: Figure, dpi: int = 100) -> np.ndarray:
    """Renders a Matplotlib figure, without math in its text.

    Args:
        figure: the figure.
        dpi: pixels per inch.

    Returns: uint8 (height, width, 3).
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    _show_text_literally(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # one per character; `fonts` warns once
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _show_text_literally(figure: Figure) -> None:
    """Turns off math, because "$x^2$" may be the name of a class, and adds fonts for characters of other scripts."""
    texts = figure.findobj(Text)
    _, *others = fonts.font_files("".join(text.get_text() for text in texts))
    for path in others:
        font_manager.fontManager.addfont(path)
    families = [font_manager.get_font(path).family_name for path in others]
    for text in texts:
        text.set(parse_math=False, fontfamily=[*text.get_fontfamily(), *families])
