"""Errors of trained models, alone and averaged: centre crop and the paper's ten views, side by side."""

import contextlib
import os
import pathlib
import sys

from absl import flags

from alexnet_tf.distribution import local_workers, strategies
from alexnet_tf.evaluation import metrics, predictions, report
from alexnet_tf.model import load_model
from alexnet_tf.tfrecords import ilsvrc, program, schema, verify
from alexnet_tf.visualization import plots

_KERNELS = "conv1_kernels.png"


def evaluate(models, view, class_names):
    """What one kind of predictions of one or several models is worth.

    Args:
        models: list of `predictions.Predictions` of the same images.
        view: "center_crop" or "ten_views".
        class_names: names in the order of the labels.

    Returns: a dict that JSON can hold: the errors of the models' average with equal weights, which of one model is the
    model itself, its calibration, and its classes.
    """
    labels = models[0].labels
    probabilities = metrics.average([model.views[view] for model in models])
    return {
        **metrics.errors(probabilities, labels),
        "calibration": metrics.calibration(probabilities, labels),
        "classes": metrics.errors_by_class(probabilities, labels, class_names),
    }


def search_ensemble(models, view):
    """The average whose weights were searched on every second image, measured on the others, beside that of equal ones.

    Args:
        models: list of two or more `predictions.Predictions` of the same images.
        view: "center_crop" or "ten_views".

    Returns: a dict that JSON can hold.

    Source: the original program's notes: its ensembles' weights were searched on validation images.
    """
    labels = models[0].labels
    searched_on, measured_on = slice(0, None, 2), slice(1, None, 2)
    weights = metrics.search_weights([model.views[view][searched_on] for model in models], labels[searched_on])
    held_out = [model.views[view][measured_on] for model in models]
    return {
        "weights": weights.tolist(),
        "images": len(labels[measured_on]),
        "searched_weights": metrics.errors(metrics.average(held_out, weights), labels[measured_on]),
        "equal_weights": metrics.errors(metrics.average(held_out), labels[measured_on]),
    }


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_list(
        "model",
        None,
        "One or several, to be averaged: a run's folder (the --run_dir of alexnet-train), a .keras file in one, or an "
        ".npz file of --save_predictions.",
        required=True,
    )
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("split", "validation", "Which images: train or validation.")
    flags.DEFINE_string(
        "output_dir",
        None,
        "Where evaluation.json, evaluation.md and the pictures go: beside a single model by default.",
    )
    flags.DEFINE_integer("batch_size", 128, "Images in a batch; of ten views, a tenth as many.", lower_bound=1)
    flags.DEFINE_enum(
        "on_bad_record",
        "fail",
        ["fail", "skip"],
        "What to do about images that can't be read: stop and name them, or look at all first and leave those out.",
    )
    flags.DEFINE_integer("max_bad_records", 100, "How many records may be left out.", lower_bound=0)
    flags.DEFINE_bool("ten_views", True, "Whether to measure ten views too, which takes ten times as long.")
    flags.DEFINE_bool(
        "search_weights",
        False,
        "With several models: whether to search the average's weights too, on every second image, and measure it on "
        "the others.",
    )
    flags.DEFINE_string(
        "save_predictions", None, "Folder for each model's probabilities, NAME.npz, which --model takes for the model."
    )
    flags.DEFINE_string(
        "submission",
        None,
        "Text file for the five most probable classes of each image, as ILSVRC's evaluation server takes them. Needs "
        "--devkit.",
    )
    flags.DEFINE_string("devkit", None, "ILSVRC's devkit, ILSVRC2012_devkit_t12.tar.gz, which numbers the classes.")
    program.define_overwrite()
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "one", "mirrored", "multi_worker"],
        "Devices, as alexnet-train takes them; of multi_worker's each worker uses one.",
    )
    flags.DEFINE_integer(
        "num_local_workers", 1, "Workers to start on this machine, to try multi_worker out.", lower_bound=1
    )


def main(arguments):
    flag = flags.FLAGS
    if flag.num_local_workers > 1:
        command = [sys.executable, "-m", "alexnet_tf.evaluate", *sys.argv[1:], "--num_local_workers=1"]
        sys.exit(local_workers.run_workers(command, flag.num_local_workers, max_restarts=0))
    worker = strategies.this_worker()
    # One voice: the others only say what goes wrong.
    with (
        pathlib.Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(sys.stdout if worker.is_chief else nowhere),
    ):
        evaluate_models(flag, worker)


def evaluate_models(flag, worker):
    """Does what the flags say. The chief alone writes.

    Args:
        flag: absl's values of the flags.
        worker: the `strategies.Worker` that this process is.
    """
    if flag.search_weights and len(flag.model) == 1:
        raise ValueError(f"`search_weights` needs several models. Received: --model={flag.model[0]}")
    if not flag.output_dir and (len(flag.model) > 1 or flag.model[0].endswith(".npz")):
        raise ValueError("`output_dir` must be given where there are several models, or their predictions alone.")
    if flag.submission:
        if not flag.devkit:
            raise ValueError("`submission` needs `devkit`, whose numbers of the classes are others than the labels.")
        year = "2010" if "2010" in pathlib.Path(flag.devkit).name else "2012"
        ids, _, _ = ilsvrc.read_devkit(pathlib.Path(flag.devkit), year)
        devkit_numbers = {class_id: number for number, class_id in ids.items()}
        program.check_outputs("submission", [flag.submission], flag.overwrite, [flag.devkit, *flag.model])
    if flag.output_dir:  # in the folder of a run, its own results are replaced
        outputs = [pathlib.Path(flag.output_dir) / name for name in (*report.FILES, _KERNELS)]
        program.check_outputs("output_dir", outputs, flag.overwrite)
    if flag.save_predictions:
        anew = [predictions.name_of(path) for path in flag.model if not path.endswith(".npz")]
        outputs = [pathlib.Path(flag.save_predictions) / f"{name}.npz" for name in anew]
        if len(set(anew)) < len(anew):
            raise ValueError(f"`model` must name runs of different names, to save their predictions. Received: {anew}")
        program.check_outputs("save_predictions", outputs, flag.overwrite, flag.model)
    strategy = strategies.make_strategy(flag.strategy, worker)
    description = schema.load_description(flag.data_dir)
    schema.split_of(description, flag.split)
    left_out = []
    if flag.on_bad_record == "skip":
        description, left_out = verify.leave_out_damaged(
            flag.data_dir, description, flag.max_bad_records, (flag.split,)
        )
        for problem in left_out:
            print(f"Left out: {problem}")
    models = [_predictions(path, description, flag, strategy, worker) for path in flag.model]
    strategies.check_workers_agree(strategy, worker, {"finished": True})  # then none waits for another any more
    if not worker.is_chief:
        return
    if flag.save_predictions:
        folder = pathlib.Path(flag.save_predictions)
        folder.mkdir(parents=True, exist_ok=True)
        for path, model in zip(flag.model, models, strict=True):
            if not path.endswith(".npz"):  # the others are saved already
                model.save(folder / f"{model.name}.npz")

    classes = len(description.class_names)
    views = [view for view in ("center_crop", "ten_views") if all(view in model.views for model in models)]
    result = {
        "split": flag.split,
        "images": len(models[0].labels),
        "records_left_out": len(left_out),
        "chance": {f"top{k}_error": 1 - min(k, classes) / classes for k in (1, 5)},
        "models": [
            {"name": model.name} | {view: metrics.errors(model.views[view], model.labels) for view in views}
            for model in models
        ],
    }
    result |= {view: evaluate(models, view, description.class_names) for view in views}
    if flag.search_weights:
        result["searched"] = {view: search_ensemble(models, view) for view in views}
    output_dir = pathlib.Path(flag.output_dir or _folder_of(flag.model[0]))
    report.write(output_dir, result, models, views[-1], description.class_names)
    if flag.submission:
        probabilities = metrics.average([model.views[views[-1]] for model in models])
        predictions.write_submission(flag.submission, probabilities, description.class_names, devkit_numbers)
    if len(flag.model) == 1 and not flag.model[0].endswith(".npz"):
        conv1 = load_model(flag.model[0])[0].get_layer("conv1")
        plots.save_png(output_dir / _KERNELS, plots.kernel_sheet(conv1))

    print(f"\n{result['images']:,} images of {flag.split}  top-1 error (95 % interval)     top-5 error")
    rows = [(name.replace("_", " "), result[name]) for name in views] + [("chance", result["chance"])]
    for name, errors in rows:
        low, high = errors.get("top1_error_interval_95", (None, None))
        interval = f"({low:.2%} to {high:.2%})" if low is not None else ""
        print(f"  {name:<24}{errors['top1_error']:>9.2%} {interval:<20}{errors['top5_error']:>13.2%}")
    print(f"Written: evaluation.json, evaluation.md and pictures in {output_dir}")


def _predictions(path, description, flag, strategy, worker):
    """Those of a model, or those that were saved of one; refused where they are of other images or classes."""
    if not path.endswith(".npz"):
        return predictions.predict(
            path, flag.data_dir, description, flag.split, flag.batch_size, flag.ten_views, strategy, worker
        )
    saved = predictions.Predictions.load(path)
    expected = (flag.split, predictions.checksum(description, flag.split))
    if (saved.split, saved.images) != expected:
        raise ValueError(
            f"`model` {path} must hold predictions of the split {flag.split} of {flag.data_dir}. Received: those of "
            f"{len(saved.labels)} images of {saved.split} with the checksum {saved.images[:12]}, not {expected[1][:12]}"
        )
    return saved


def _folder_of(model):
    return pathlib.Path(model).parent if model.endswith(".keras") else pathlib.Path(model)


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
