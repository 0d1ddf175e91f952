"""Measures the errors of trained models and of their average, on center crops and on the paper's ten views.

The exit status is 1 if an error is larger than expected.

Examples:

    alexnet-evaluate --model=runs/photos --data_dir=runs/photos/data
    alexnet-evaluate --model=runs/a,runs/b --data_dir=data/photos        # the average of two models
    alexnet-evaluate --model=torchvision --data_dir=data/imagenet
"""

import contextlib
import os
import pathlib
import sys

from absl import flags

from alexnet_tf import cli
from alexnet_tf.evaluation import naming
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import published

EXIT_WORSE = 1  # an error is larger than expected
_ILSVRC_IMAGES = 50_000  # validation images, which published errors refer to


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_list(
        "model",
        None,
        f"One or several models, which are averaged: {cli.MODELS}; the folder of a checkpoint; or an .npz file from "
        "--save_predictions.",
        required=True,
    )
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("split", "validation", "train, validation or, for ILSVRC-2010, test.")
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder for evaluation.json, evaluation.md and the pictures. Default: the model's folder.",
    )
    flags.DEFINE_integer("batch_size", 128, "Global batch size; a tenth of it for ten views.", lower_bound=1)
    flags.DEFINE_enum(
        "on_bad_record",
        "fail",
        ["fail", "skip"],
        "What to do about unreadable images: stop and name the first, or check all images first and skip those.",
    )
    flags.DEFINE_integer("max_bad_records", 100, "Maximum number of skipped records.", lower_bound=0)
    flags.DEFINE_list(
        "expect",
        [],
        f"Expected errors in percent, such as top1=43.45,top5=20.9; names: {', '.join(naming.EXPECTED)}. The exit "
        "status is 1 if one is below the measured error's 95% interval. Default: the published errors, for published "
        "weights on ImageNet's validation images.",
    )
    flags.DEFINE_bool("ten_views", True, "Also measure ten views, which takes ten times as long.")
    flags.DEFINE_string(
        "save_predictions", None, "Folder for each model's probabilities, NAME.npz, which --model accepts."
    )
    cli.define_overwrite()
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "one", "mirrored", "multi_worker"],
        "Devices, as in alexnet-train. With multi_worker, each worker uses one device.",
    )
    flags.DEFINE_integer(
        "num_local_workers", 1, "Number of workers to start on this machine, to try multi_worker.", lower_bound=1
    )


def main(arguments):
    flag = flags.FLAGS
    _check_flags(flag)
    if flag.num_local_workers > 1:
        from alexnet_tf.distribution import local_workers

        command = [sys.executable, "-m", "alexnet_tf.evaluate", *sys.argv[1:], "--num_local_workers=1"]
        sys.exit(local_workers.run_workers(command, flag.num_local_workers, max_restarts=0))

    # Imported after the checks, because TensorFlow takes seconds to import.
    from alexnet_tf.distribution import workers

    worker = workers.this_worker()
    # Only the chief reports; the other workers print only errors.
    with (
        pathlib.Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(sys.stdout if worker.is_chief else nowhere),
    ):
        _evaluate(flag, worker)


def _check_flags(flag):
    """Raises ValueError if flags contradict each other, an output file exists, or a model or the data set does not."""
    cli.check_unique("model", flag.model)
    expected = naming.parse_expected(flag.expect)
    if not flag.ten_views and any(naming.EXPECTED[name][0] == "ten_views" for name in expected):
        raise ValueError(f"`expect` of ten views requires `ten_views`. Received: {','.join(flag.expect)}")
    if not flag.output_dir and (len(flag.model) > 1 or naming.is_saved(flag.model[0])):
        raise ValueError("`output_dir` is required for several models and for saved predictions.")
    if flag.output_dir:  # without it, earlier results in the model's folder are replaced
        outputs = [pathlib.Path(flag.output_dir) / name for name in (*naming.REPORT, naming.KERNELS)]
        cli.check_outputs("output_dir", outputs, flag.overwrite, makes_folder=True)
    if flag.save_predictions:
        names = [naming.model_name(path) for path in flag.model if not naming.is_saved(path)]
        if len(set(names)) < len(names):
            raise ValueError(f"`save_predictions` requires runs with different names. Received: {names}")
        outputs = [pathlib.Path(flag.save_predictions) / f"{name}.npz" for name in names]
        cli.check_outputs("save_predictions", outputs, flag.overwrite, flag.model, makes_folder=True)
    for path in flag.model:
        (cli.check_exists if naming.is_saved(path) else published.check_model)(path)
    schema.load_description(flag.data_dir)


def _evaluate(flag, worker):
    """Predicts on all workers; the chief measures and writes the results."""
    from alexnet_tf.distribution import strategies
    from alexnet_tf.evaluation import predictions
    from alexnet_tf.tfrecords import verify

    strategy = strategies.make_strategy(flag.strategy, worker)
    description = schema.load_description(flag.data_dir)
    schema.split_of(description, flag.split)
    skipped = []
    if flag.on_bad_record == "skip":
        description, skipped = verify.skip_damaged_records(
            flag.data_dir, description, flag.max_bad_records, (flag.split,)
        )
        for problem in skipped:
            print(f"Skipped: {problem}")
    data = (flag.data_dir, description, flag.split)
    # All are opened before the first predicts, so that a mistake in the last is found at once.
    with strategy.scope() if len(worker.addresses) == 1 else contextlib.nullcontext():
        opened = [
            predictions.load_matching(path, *data)
            if naming.is_saved(path)
            else predictions.load_model_for(path, flag.data_dir, description)
            for path in flag.model
        ]
    for folder in filter(None, (flag.output_dir, flag.save_predictions)):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    models = []
    for path, model in zip(flag.model, opened, strict=True):
        if not naming.is_saved(path):
            name = naming.model_name(path)
            model = predictions.predict(model, name, *data, flag.batch_size, flag.ten_views, strategy, worker)
            if flag.save_predictions and worker.is_chief:
                model.save(pathlib.Path(flag.save_predictions) / f"{name}.npz")
        models.append(model)
    strategies.check_workers_agree(strategy, worker, {"finished": True})  # from here on, no worker waits for another
    if worker.is_chief and not _report(flag, opened, models, len(skipped)):
        sys.exit(EXIT_WORSE)


def _report(flag, opened, models, records_skipped):
    """Measures, writes and prints the errors of `models`, which are predictions. Draws the kernels of a single model.

    Returns: whether no error is larger than expected.
    """
    from alexnet_tf.evaluation import report
    from alexnet_tf.figures import kernels, plots
    from alexnet_tf.training import initial_kernels

    result = report.evaluate_models(models, records_skipped)
    compared = report.compare(result, _expected(flag, len(models[0].labels)))
    if compared:
        result["expected"] = compared
    output_dir = pathlib.Path(flag.output_dir or naming.run_folder(flag.model[0]))
    if len(flag.model) == 1 and not naming.is_saved(flag.model[0]):
        initial = initial_kernels.load_initial_kernels(flag.model[0])
        picture = kernels.draw_kernels(kernels.first_kernels(opened[0]), initial)
        plots.save_png(output_dir / naming.KERNELS, picture)
    report.write(output_dir, result, models)
    print(f"\n{report.as_text(result)}")
    if compared:
        print(report.comparison(compared))
    print(f"Written: evaluation.json, evaluation.md and pictures in {output_dir}")
    return all(row["passed"] for row in compared)


def _expected(flag, num_images):
    """The errors to compare with, in percent: those in --expect, or the published errors of published weights."""
    from alexnet_tf.weights import pretrained

    name = pretrained.published_name(flag.model[0]) if len(flag.model) == 1 else None
    if flag.expect or name is None or flag.split != "validation" or num_images != _ILSVRC_IMAGES:
        return naming.parse_expected(flag.expect)
    errors = {"top1": published.PUBLISHED[name].top1_error, "top5": published.PUBLISHED[name].top5_error}
    return {kind: error for kind, error in errors.items() if error is not None}


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
