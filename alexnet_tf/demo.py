"""The whole road on real images: TFRecords, training, evaluation, pictures, export and a served classification.

Each step is a program that a user would run by hand; the command is printed before it starts. A step whose result is
whole is not done again.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from alexnet_tf.tfrecords import schema, sources

_DATA_DIR = pathlib.Path("data/fashion_mnist_sample")
_RUN_DIR = pathlib.Path("runs/demo")
_RECIPE = pathlib.Path(__file__).parent / "recipes" / "demo.flags"


def run_program(module, *arguments):
    """Runs one of the programs as a user would; returns the seconds it took."""
    name = {"alexnet_tf.tfrecords.build": "alexnet-tfrecords"}.get(module, f"alexnet-{module.rpartition('.')[2]}")
    print(f"\n$ {shlex.join([name, *map(str, arguments)])}", flush=True)
    start = time.perf_counter()
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ
    result = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], env=environment, check=False)
    if result.returncode:
        sys.exit(f"{name} failed with exit code {result.returncode}. `make demo` goes on from what is whole.")
    seconds = time.perf_counter() - start
    print(f"({seconds:.0f} s)", flush=True)
    return seconds


def write_sample_images(folder, count=8):
    """Writes a validation image of each of the first classes as a PNG named by its class; returns the paths."""
    source = sources.open_source("fashion_mnist")
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for _, image, label in source.read("validation", 0, source.count("validation")):
        if label < count and label not in paths:
            name = source.class_names[label].replace("/", "_").replace(" ", "_")
            paths[label] = folder / f"{name}.png"
            Image.fromarray(np.squeeze(image)).save(paths[label])
    return [paths[label] for label in sorted(paths)]


def main():
    start = time.perf_counter()
    seconds = {}
    seconds["tfrecords"] = run_program(
        "alexnet_tf.tfrecords.build", "--source=fashion_mnist", f"--data_dir={_DATA_DIR}"
    )
    seconds["train"] = run_program(
        "alexnet_tf.train", f"--flagfile={_RECIPE}", f"--data_dir={_DATA_DIR}", f"--run_dir={_RUN_DIR}"
    )
    evaluation_file = _RUN_DIR / "evaluation.json"
    model_file = _RUN_DIR / "model.keras"
    if not is_newer(evaluation_file, model_file):
        seconds["evaluate"] = run_program("alexnet_tf.evaluate", f"--model={_RUN_DIR}", f"--data_dir={_DATA_DIR}")
    export_dir = _RUN_DIR / "export"
    versions = sorted((path for path in export_dir.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    if not versions or not is_newer(versions[-1], model_file):
        seconds["export"] = run_program("alexnet_tf.export", f"--model={_RUN_DIR}", f"--export_dir={export_dir}")
        versions = [max((p for p in export_dir.glob("*") if p.name.isdigit()), key=lambda path: int(path.name))]
    images = write_sample_images(_RUN_DIR / "images")
    panel = _RUN_DIR / "panel.png"
    predict = ("alexnet_tf.predict", f"--model={versions[-1]}", f"--panel={panel}", "--overwrite")
    seconds["predict"] = run_program(*predict, *images)

    evaluation = json.loads(evaluation_file.read_text())
    training = json.loads((_RUN_DIR / "training.json").read_text())
    summary = {
        # The paper's test is that of ten views.
        "val_top1_error": evaluation["ten_views"]["top1_error"],
        "val_top5_error": evaluation["ten_views"]["top5_error"],
        "val_top1_error_center_crop": evaluation["center_crop"]["top1_error"],
        "val_top5_error_center_crop": evaluation["center_crop"]["top5_error"],
        "chance_top1_error": evaluation["chance"]["top1_error"],
        "chance_top5_error": evaluation["chance"]["top5_error"],
        "images_per_second": training["images_per_second"],
        "seconds": time.perf_counter() - start,
        "seconds_per_step": seconds,
        "tensorboard": str(_RUN_DIR / "tensorboard"),
        "pictures": [str(_RUN_DIR / "confusion_matrix.png"), str(_RUN_DIR / "conv1_kernels.png"), str(panel)],
        "model": str(model_file),
        "export": str(versions[-1]),
    }
    text = json.dumps(summary, indent=2) + "\n"
    schema.write_whole(_RUN_DIR / "summary.json", lambda file: file.write(text.encode()))
    center, ten, chance = (evaluation[key] for key in ("center_crop", "ten_views", "chance"))
    print(f"""
AlexNet of 2012, full width, on {evaluation["images"]:,} validation images of Fashion-MNIST:
                    center crop   ten views      chance
  top-1 error       {center["top1_error"]:>10.1%}  {ten["top1_error"]:>10.1%}  {chance["top1_error"]:>10.1%}
  top-5 error       {center["top5_error"]:>10.1%}  {ten["top5_error"]:>10.1%}  {chance["top5_error"]:>10.1%}
  training          {summary["images_per_second"]:>10.1f} images/s
  all of it         {summary["seconds"]:>10.0f} s

Pictures:     {", ".join(summary["pictures"])}
Model:        {summary["model"]}
Export:       {summary["export"]}
Summary:      {_RUN_DIR / "summary.json"}

Go on with:
  .venv/bin/tensorboard --logdir={_RUN_DIR / "tensorboard"}
  .venv/bin/alexnet-predict --model={_RUN_DIR} YOUR_IMAGE.png
  .venv/bin/alexnet-tfrecords --source=folder:YOUR_FOLDER --data_dir=data/mine     (one folder a class)
  .venv/bin/alexnet-train --flagfile={os.path.relpath(_RECIPE)} --data_dir=data/mine --run_dir=runs/mine""")


def is_newer(path, other):
    """Whether `path` exists and was made after `other`."""
    return path.exists() and path.stat().st_mtime >= other.stat().st_mtime


if __name__ == "__main__":
    main()
