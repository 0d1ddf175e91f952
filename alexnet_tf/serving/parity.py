"""How far an exported model is from another: answers, size and latency, measured side by side on real images."""

import json
import pathlib
import statistics
import time

import numpy as np

from alexnet_tf.evaluation import metrics
from alexnet_tf.tfrecords import reader, schema

_RUNS = {1: 25, 32: 7}  # batch size to timed runs of each


def read_images(data_dir, description, split, model, count):
    """The centre crops of the first images of a split, and their labels.

    Returns: (uint8 (n, side, side, 3), int32 (n,)), n at most `count`.
    """
    dataset = reader.make_evaluation_dataset(data_dir, 1, model.input_shape[1], description=description, split=split)
    batches = list(dataset.take(count).as_numpy_iterator())
    return tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))


def measure(candidate, reference, images, labels, batch_size=32):
    """Compares what two models say of images, and how long they take, turn by turn.

    Args:
        candidate, reference: functions from float32 pixels (batch, side, side, 3) to probabilities (batch, classes).
        images: uint8 (n, side, side, 3).
        labels: int (n,).
        batch_size: images asked about at once.

    Returns: a dict that JSON can hold: `images`; `top1_agreement`, the share of images of which both say the same
    class; `largest_difference` of any probability; `top1_error` of both; and `latency_ms`, for each batch size the
    medians.
    """
    both = {}
    for name, predict in (("candidate", candidate), ("reference", reference)):
        parts = [predict(np.float32(images[first : first + batch_size])) for first in range(0, len(images), batch_size)]
        both[name] = np.concatenate(parts)
    best = {name: probabilities.argmax(axis=1) for name, probabilities in both.items()}
    result = {
        "images": len(images),
        "top1_agreement": float(np.mean(best["candidate"] == best["reference"])),
        "largest_difference": float(np.abs(both["candidate"] - both["reference"]).max()),
        "top1_error": {name: float(metrics.top_k_wrong(p, labels, 1).mean()) for name, p in both.items()},
        "latency_ms": {},
    }
    for batch, runs in _RUNS.items():
        pixels = np.float32(np.resize(images, (batch, *images.shape[1:])))
        seconds = {"candidate": [], "reference": []}
        for run in range(runs + 1):
            for name, predict in (("candidate", candidate), ("reference", reference)):
                begin = time.perf_counter()
                predict(pixels)
                if run:  # the first prepares for the size of the batch
                    seconds[name].append(time.perf_counter() - begin)
        result["latency_ms"][str(batch)] = {name: 1000 * statistics.median(of) for name, of in seconds.items()}
    return result


def as_markdown(report):
    """The report as a table with a row for each of the two."""
    lines = [
        f"# Parity on {report['images']:,} validation images",
        "",
        f"Of both models the most probable class is the same for {report['top1_agreement']:.2%} of the images. The "
        f"largest difference of a probability is {report['largest_difference']:.2g}.",
        "",
        "| model | top-1 error, % | MB | batch of 1, ms | batch of 32, ms |",
        "|---|---|---|---|---|",
    ]
    rows = {"candidate": (f"{report['format']}, {report['precision']}", report["megabytes"])}
    rows["reference"] = (report["reference"], report["reference_megabytes"])
    for key, (name, megabytes) in rows.items():
        latencies = " | ".join(f"{of[key]:.1f}" for of in report["latency_ms"].values())
        lines.append(f"| {name} | {100 * report['top1_error'][key]:.2f} | {megabytes:,.1f} | {latencies} |")
    lines += ["", "Latencies are medians of runs in turn on the machine that exported, pixels in, probabilities out."]
    return "\n".join(lines) + "\n"


def write(folder, report):
    """Writes parity.json and parity.md."""
    text, page = json.dumps(report, indent=2) + "\n", as_markdown(report)
    schema.write_whole(pathlib.Path(folder) / "parity.json", lambda file: file.write(text.encode()))
    schema.write_whole(pathlib.Path(folder) / "parity.md", lambda file: file.write(page.encode()))
