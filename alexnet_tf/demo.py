"""Everything on real images: TFRecords, training, evaluation, pictures, export and a served classification.

Each step is a program that a user would run by hand; its command is printed before it starts. A step whose result is
complete is not repeated.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

from absl import flags

from alexnet_tf import cli
from alexnet_tf.files import write_json

_FASHION_MNIST = "fashion_mnist"
_STEPS = {
    "tfrecords.build": "making TFRecords",
    "train": "training, which takes minutes",
    "evaluate": "measuring the error on ten views of each validation image, a minute",
    "export": "exporting for TensorFlow Serving",
    "predict": "classifying images with the exported model",
}
_RECIPES = pathlib.Path(__file__).parent / "recipes"


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string(
        "source",
        _FASHION_MNIST,
        "Images, as alexnet-tfrecords takes them: fashion_mnist, 4,000 of which are in this package, tfds:NAME, which "
        "TensorFlow Datasets downloads, or folder:PATH.",
    )
    flags.DEFINE_bool("transfer", False, "Fine-tune published convolutions instead of training from scratch.")


def main(arguments):
    _run_all(flags.FLAGS.source, flags.FLAGS.transfer)


def _run_all(source, transfer=False):
    data_dir, run_dir = _folders(source, transfer)
    recipe = _recipe(transfer)
    seconds = {}
    seconds["tfrecords"] = _run_program("tfrecords.build", f"--source={source}", f"--data_dir={data_dir}")
    seconds["train"] = _run_program("train", f"--flagfile={recipe}", f"--data_dir={data_dir}", f"--run_dir={run_dir}")
    model = run_dir / "model.keras"
    if not _is_newer(run_dir / "evaluation.json", model):
        seconds["evaluate"] = _run_program("evaluate", f"--model={run_dir}", f"--data_dir={data_dir}")
    export_dir = run_dir / "export"
    if not _is_newer(_latest_version(export_dir), model):
        seconds["export"] = _run_program("export", f"--model={run_dir}", f"--export_dir={export_dir}")
    exported = _latest_version(export_dir)
    images = _write_sample_images(data_dir, run_dir / "images")
    panel = f"--panel={run_dir / 'panel.png'}"
    seconds["predict"] = _run_program("predict", f"--model={exported}", panel, "--overwrite", *images)
    _summarize(source, transfer, exported, seconds)


def _recipe(transfer):
    return _RECIPES / ("transfer.flags" if transfer else "demo.flags")


def _folders(source, transfer=False):
    """The folders of a source's data set and of its run."""
    run = "runs/demo_transfer" if transfer else "runs/demo"
    if source == _FASHION_MNIST:
        return pathlib.Path("data/fashion_mnist_sample"), pathlib.Path(run)
    name = re.sub(r"\W+", "_", source.split(":", 1)[-1].rstrip("/").rsplit("/", 1)[-1])
    return pathlib.Path("data") / name, pathlib.Path(f"{run}_{name}")


def _run_program(module, *arguments):
    """Runs a program as a user would; returns the seconds it took."""
    name = {"tfrecords.build": "alexnet-tfrecords"}.get(module, f"alexnet-{module}")
    print(f"\nStep {[*_STEPS].index(module) + 1} of {len(_STEPS)}: {_STEPS[module]}")
    print(f"$ {shlex.join([name, *map(str, arguments)])}", flush=True)
    start = time.perf_counter()
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ  # some of TensorFlow's errors are none
    command = [sys.executable, "-m", f"alexnet_tf.{module}", *map(str, arguments)]
    result = subprocess.run(command, env=environment, check=False)
    if result.returncode:
        sys.exit(f"{name} failed with exit status {result.returncode}. `make demo` resumes after the completed steps.")
    seconds = time.perf_counter() - start
    print(f"({seconds:.0f} s)", flush=True)
    return seconds


def _is_newer(path, other):
    """Whether `path` exists and was written after `other`."""
    return path is not None and path.exists() and path.stat().st_mtime >= other.stat().st_mtime


def _latest_version(export_dir):
    """The folder of the highest version that was exported, or None."""
    versions = (path for path in export_dir.glob("*") if path.name.isdigit())
    return max(versions, key=lambda path: int(path.name), default=None)


def _write_sample_images(data_dir, folder, count=8):
    """Writes a validation image of each of the first classes as a PNG named by its class; returns the paths."""
    import numpy as np  # not with the module: the first command is printed at once
    from PIL import Image

    from alexnet_tf.tfrecords import reader, schema

    description = schema.load_description(data_dir)
    labels, firsts = np.unique(reader.read_labels(data_dir, description, "validation"), return_index=True)
    images = reader.read_images(data_dir, description, "validation", firsts[:count])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, image in zip(labels, images, strict=False):
        name = description.class_names[label].replace("/", "_").replace(" ", "_")
        paths.append(folder / f"{name}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def _summarize(source, transfer, exported, seconds):
    """Writes summary.json and prints the results, and what to do next."""
    data_dir, run_dir = _folders(source, transfer)
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    training = json.loads((run_dir / "training.json").read_text())
    # A step that was complete took its time when it was first run.
    before = _read_summary(run_dir).get("seconds_per_step", {})
    seconds = before | {step: max(spent, before.get(step, 0)) for step, spent in seconds.items()}
    summary = {
        # The paper's test is that of ten views.
        "val_top1_error": evaluation["ten_views"]["top1_error"],
        "val_top5_error": evaluation["ten_views"]["top5_error"],
        "val_top1_error_center_crop": evaluation["center_crop"]["top1_error"],
        "val_top5_error_center_crop": evaluation["center_crop"]["top5_error"],
        "chance_top1_error": evaluation["chance"]["top1_error"],
        "chance_top5_error": evaluation["chance"]["top5_error"],
        "images_per_second": training.get("images_per_second"),
        "seconds": sum(seconds.values()),
        "seconds_per_step": seconds,
        "tensorboard": str(run_dir / "tensorboard"),
        "pictures": [str(run_dir / name) for name in ("confusion_matrix.png", "conv1_kernels.png", "panel.png")],
        "model": str(run_dir / "model.keras"),
        "export": str(exported),
    }
    write_json(run_dir / "summary.json", summary)
    name = "Fashion-MNIST" if source == _FASHION_MNIST else source
    page = "make page" if run_dir == pathlib.Path("runs/demo") else f"make page MODEL={run_dir} DATA={data_dir}"
    print(f"""
Top-1 error on {evaluation["images"]:,} validation images of {name}:

                                center crop  ten views   training      total
{_table(source, evaluation["chance"]["top1_error"])}

Pictures:     {", ".join(summary["pictures"])}
Model:        {summary["model"]}
Export:       {summary["export"]}
Summary:      {run_dir / "summary.json"}

Next steps:
  {page}     (the network at work, in a browser)
  .venv/bin/tensorboard --logdir={run_dir / "tensorboard"}
  .venv/bin/alexnet-predict --model={run_dir} YOUR_IMAGE.png
  .venv/bin/alexnet-train --flagfile={os.path.relpath(_recipe(True))} --data_dir=folder:YOUR_FOLDER --run_dir=runs/mine
      (fine-tunes published weights on your own images, one folder per class)""")


def _table(source, chance):
    """A line for each way of training whose summary exists."""
    lines = []
    for transfer, title in ((False, "paper, from scratch"), (True, "published weights, fine-tuned")):
        if summary := _read_summary(_folders(source, transfer)[1]):
            errors = f"{summary['val_top1_error_center_crop']:>10.1%} {summary['val_top1_error']:>10.1%}"
            times = f"{summary['seconds_per_step']['train']:>8.0f} s {summary['seconds']:>8.0f} s"
            lines.append(f"  {title:<30}{errors} {times}")
    return "\n".join([*lines, f"  {'chance':<30}{chance:>10.1%} {chance:>10.1%}"])


def _read_summary(run_dir):
    path = run_dir / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


def run():
    """Entry point, as a module."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
