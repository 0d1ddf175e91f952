"""Measures how the time per image scales with batch size, size of the data set and workers on this machine.

    python benchmarks/growth.py

The sizes alternate. Writes docs/growth.svg and prints the tables. Where a curve of milliseconds per image is flat,
twice the work takes twice the time; where it is not, there is a cost besides the images.
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import scale
import speed
import synthetic
from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

from alexnet_tf.figures import plots

_VALIDATION_IMAGES = 32


def define_flags():
    flags.DEFINE_list("batch_sizes", ["1", "2", "4", "8", "16", "32", "64", "128", "256"], "Images per step.")
    flags.DEFINE_list("images", ["64", "256", "1024"], "Numbers of training images.")
    flags.DEFINE_list("workers", ["1", "2", "4"], "Workers on this machine.")
    flags.DEFINE_integer("images_a_worker", 8, "Images per worker and step.")
    flags.DEFINE_integer("rounds", 3, "Number of rounds; the sizes alternate within each.")
    flags.DEFINE_string("plot", "docs/growth.svg", "Where the plot is written.")


def by_batch_size(sizes, rounds):
    """Returns milliseconds per image by batch size, for training, inference and the matrix product of each."""
    network, product = speed.Contestant(speed.OURS), speed.Contestant(speed.LIMIT)
    cost = {"train": {size: [] for size in sizes}, "infer": {size: [] for size in sizes}}
    limit = {mode: [] for mode in cost}
    for _ in range(rounds):
        for mode, times in cost.items():
            for size in sizes:
                seconds = network.measure(mode, size, max(2, 32 // size))["seconds"]
                times[size] += [1000 * s / size for s in seconds]
            limit[mode] += [1000 * s / 32 for s in product.measure(mode, 32, 3)["seconds"]]
    network.end()
    product.end()
    result = {}
    for mode, title in (("train", "training"), ("infer", "inference")):
        result[title] = {size: statistics.median(ms) for size, ms in cost[mode].items()}
        result[f"{title}: {speed.LIMIT}"] = dict.fromkeys(sizes, statistics.median(limit[mode]))
    return result


def by_images(counts, rounds):
    """Returns milliseconds per image of complete programs by training images, for "building" and "one epoch"."""
    cost = {"building": {count: [] for count in counts}, "one epoch": {count: [] for count in counts}}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for count in counts:
            synthetic.write_photos(folder / f"photos{count}" / "train", count)
            synthetic.write_photos(folder / f"photos{count}" / "validation", _VALIDATION_IMAGES)
        for turn in range(rounds):
            for count in counts:
                data = f"--data_dir={folder / f'data{count}-{turn}'}"
                build = ["tfrecords.build", f"--source=folder:{folder / f'photos{count}'}", data]
                train = ["train", data, f"--run_dir={folder / 'run'}", "--batch_size=32", "--epochs=1"]
                for title, program in (("building", build), ("one epoch", train)):
                    begin = time.perf_counter()
                    command = [sys.executable, "-m", f"alexnet_tf.{program[0]}", *program[1:]]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                    cost[title][count].append(1000 * (time.perf_counter() - begin) / (count + _VALIDATION_IMAGES))
                shutil.rmtree(folder / "run")
                shutil.rmtree(data.removeprefix("--data_dir="))
    return {title: {count: statistics.median(ms) for count, ms in times.items()} for title, times in cost.items()}


def by_workers(counts, images, rounds):
    """Returns milliseconds per image of all workers together by number of workers, for the parts of a step."""
    results = scale.measure_counts([(count, False) for count in counts], rounds, f"--images={images}")
    parts = {"step": "step", "compute only": "compute only", "gradient all-reduce": "all-reduce in float32"}
    return {
        title: {
            count: statistics.median(measured[f"{part}, ms"] for measured in rounds) / (count * images)
            for (count, _), rounds in results.items()
        }
        for title, part in parts.items()
    }


def save_plot(path, panels):
    """Saves milliseconds per image as SVG, one panel per dict of curves."""
    figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
    for axes, (size_name, curves) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for title, curve in curves.items():
            limit = speed.LIMIT in title
            axes.plot(list(curve), list(curve.values()), "--" if limit else "o-", label=title)
        sizes = list(next(iter(curves.values())))
        axes.set(xscale="log", yscale="log", xlabel=size_name, ylabel="ms per image")
        axes.set_xticks(sizes, sizes)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 1)))
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.legend(fontsize=7)
    plots.save_svg(path, figure)


def main(argv):
    del argv
    flag = flags.FLAGS
    sizes, images, workers = ([int(count) for count in each] for each in (flag.batch_sizes, flag.images, flag.workers))
    os.environ.update(speed.CHILD_ENVIRONMENT)
    panels = {}
    for size_name, measure in (
        ("images per step", lambda: by_batch_size(sizes, flag.rounds)),
        ("training images", lambda: by_images(images, flag.rounds)),
        ("workers on one machine", lambda: by_workers(workers, flag.images_a_worker, flag.rounds)),
    ):
        panels[size_name] = measure()
        counts = list(next(iter(panels[size_name].values())))
        print(f"\n| ms per image; {size_name}: | " + " | ".join(map(str, counts)) + " |")
        print("|---" * (len(counts) + 1) + "|")
        for title, curve in panels[size_name].items():
            print(f"| {title} | " + " | ".join(f"{ms:.3g}" for ms in curve.values()) + " |", flush=True)
    save_plot(pathlib.Path(flag.plot), panels)


if __name__ == "__main__":
    define_flags()
    app.run(main)
