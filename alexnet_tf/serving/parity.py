"""Compares the predictions, sizes and latencies of two models on real images."""

import pathlib
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from alexnet_tf.evaluation import metrics
from alexnet_tf.serving.formats import Predictor
from alexnet_tf.tfrecords import reader, schema

if TYPE_CHECKING:
    import keras

_RUNS = {1: 25, 32: 7}  # number of timed runs of each model, by batch size


def read_crops(
    data_dir: str | pathlib.Path, description: schema.DatasetDescription, split: str, model: "keras.Model", count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the center crops and the labels of the first images of a split.

    Returns: (images, labels), uint8 (n, side, side, 3) and int32 (n,), where n is at most `count`.
    """
    dataset = reader.make_evaluation_dataset(data_dir, 1, model.input_shape[1], description=description, split=split)
    batches = list(dataset.take(count).as_numpy_iterator())
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def measure(
    candidate: Predictor, reference: Predictor, images: np.ndarray, labels: np.ndarray, batch_size: int = 32
) -> dict:
    """Compares the predictions and the latencies of two models.

    Args:
        candidate, reference: functions from float32 pixels (batch, side, side, 3) to probabilities (batch, classes).
        images: uint8 (n, side, side, 3).
        labels: int (n,).
        batch_size: batch size of the predictions.

    Returns: a dict for JSON: `images`, their number; `top1_agreement`, the fraction of images with the same predicted
        class; `largest_difference` of any probability; `top1_error` of both; and `latency_ms`, the medians for each
        batch size, measured in turn.
    """
    models, firsts = {"candidate": candidate, "reference": reference}, range(0, len(images), batch_size)
    both = {
        name: np.concatenate([predict(images[first : first + batch_size].astype("float32")) for first in firsts])
        for name, predict in models.items()
    }
    best = {name: probabilities.argmax(axis=1) for name, probabilities in both.items()}
    result = {
        "images": len(images),
        "top1_agreement": float(np.mean(best["candidate"] == best["reference"])),
        "largest_difference": float(np.abs(both["candidate"] - both["reference"]).max()),
        "top1_error": {name: float(metrics.top_k_wrong(p, labels, 1).mean()) for name, p in both.items()},
        "latency_ms": {},
    }
    for batch, runs in _RUNS.items():
        pixels = np.resize(images, (batch, *images.shape[1:])).astype("float32")
        seconds = {name: [] for name in models}
        for run in range(runs + 1):
            for name, predict in models.items():
                begin = time.perf_counter()
                predict(pixels)
                if run:  # the first one is a warm-up
                    seconds[name].append(time.perf_counter() - begin)
        result["latency_ms"][str(batch)] = {name: 1000 * statistics.median(times) for name, times in seconds.items()}
    return result


def as_markdown(report: dict) -> str:
    """The report as a page with a table."""
    lines = [
        f"# Parity on {report['images']:,} validation images",
        "",
        f"The models predict the same class for {report['top1_agreement']:.2%} of the images. Their probabilities "
        f"differ by at most {report['largest_difference']:.2g}.",
        "",
        "| model | top-1 error, % | MB | batch of 1, ms | batch of 32, ms |",
        "|---|---|---|---|---|",
    ]
    rows = {"candidate": (f"{report['format']}, {report['precision']}", report["megabytes"])}
    rows["reference"] = ("the trained model in Keras", report["reference_megabytes"])
    for key, (name, megabytes) in rows.items():
        latencies = " | ".join(f"{of[key]:.1f}" for of in report["latency_ms"].values())
        lines.append(f"| {name} | {100 * report['top1_error'][key]:.2f} | {megabytes:,.1f} | {latencies} |")
    lines += ["", "Latency: median from pixels to probabilities, on the machine that exported the model."]
    return "\n".join(lines) + "\n"
