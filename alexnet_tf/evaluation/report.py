"""The results of an evaluation, and their report: JSON, Markdown, pictures, and text for the terminal."""

import pathlib
from collections.abc import Mapping, Sequence

from alexnet_tf.evaluation import metrics, naming
from alexnet_tf.evaluation.naming import VIEWS
from alexnet_tf.evaluation.predictions import Predictions
from alexnet_tf.figures import plots
from alexnet_tf.files import write_json, write_text
from alexnet_tf.networks.layer_table import escape

_CLASSES_IN_TABLE = 20
_BASELINES = ("chance", "most_frequent_class")


def _common_views(models: Sequence[Predictions]) -> list[str]:
    """The views that every model has predicted, in the order of `VIEWS`."""
    return [view for view in VIEWS if all(view in model.views for model in models)]


def evaluate_models(models: Sequence[Predictions], records_skipped: int = 0) -> dict:
    """Evaluates models and their average in every view that all of them have.

    Args:
        models: each model's predictions of the same images.
        records_skipped: number of unreadable records of the split, for the report.

    Returns: the content of evaluation.json, a dict.
    """
    labels, class_names, views = models[0].labels, models[0].class_names, _common_views(models)
    result = {
        "split": models[0].split,
        "images": len(labels),
        "records_left_out": records_skipped,
        **metrics.baselines(labels, len(class_names)),
        "models": [
            {"name": model.name, "weights": model.weights}
            | {view: metrics.errors(model.views[view], labels) for view in views}
            for model in models
        ],
    }
    for view in views:
        probabilities = metrics.average([model.views[view] for model in models])
        result[view] = {
            **metrics.errors(probabilities, labels),
            "calibration": metrics.calibration(probabilities, labels),
            "classes": metrics.errors_by_class(probabilities, labels, class_names),
        }
    return result


def compare(result: dict, expected: Mapping[str, float]) -> list[dict]:
    """Compares measured errors with expected errors.

    Args:
        result: the results from `evaluate_models`.
        expected: errors in percent, by the names in `naming.EXPECTED`.

    Returns: a JSON-serializable dict for each expected error: "name", "expected" and "measured" (errors in [0, 1]),
    "interval_95", and "passed": whether the expected error is not below the 95% interval of the measured error.

    Raises:
        ValueError: if a view was not measured.
    """
    rows = []
    for name, percent in expected.items():
        view, k = naming.EXPECTED[name]
        if view not in result:
            raise ValueError(f"`expect` must name views that were measured. Received: {name}={percent:g}")
        interval = result[view][f"{k}_error_interval_95"]
        rows.append(
            {
                "name": f"{view.replace('_', ' ')}, {k.replace('top', 'top-')}",
                "expected": percent / 100,
                "measured": result[view][f"{k}_error"],
                "interval_95": interval,
                "passed": interval[0] <= percent / 100,
            }
        )
    return rows


def as_markdown(result: dict) -> str:
    """Formats results as tables: errors by model and of their average, as in table 2; calibration; errors by class.

    Args:
        result: the results from `evaluate_models`.
    """
    views = [view for view in VIEWS if view in result]
    columns = [*(f"top-{k}" for k in _ranks(result)), "class mean"]
    header = [f"{column}, {_words(view)}" for view in views for column in columns]
    lines = [f"# {result['images']:,} images of {result['split']}", ""]
    lines += ["Errors in percent, and the 95% confidence interval.", ""]
    lines += [f"| model | {' | '.join(header)} |", "|---" * (len(header) + 1) + "|"]
    lines += [_errors_row(model["name"], [model[view] for view in views], _ranks(result)) for model in result["models"]]
    if len(result["models"]) > 1:
        lines.append(_errors_row(f"{len(result['models'])} averaged", [result[view] for view in views], _ranks(result)))
    lines += [_errors_row(_words(name), [result[name]] * len(views), _ranks(result)) for name in _BASELINES]
    lines += ["", *_calibration_and_classes(result[views[-1]], views[-1], _ranks(result))]
    return "\n".join(lines) + "\n"


def _words(name):
    return name.replace("_", " ")


def _ranks(result):
    """Which errors say something: with at most five classes, every prediction is right by the top-5 error."""
    return (1, 5) if result["chance"]["top5_error"] else (1,)


def _errors_row(name, errors_of_views, ranks):
    cells = []
    for errors in errors_of_views:
        for k in ranks:
            low, high = errors.get(f"top{k}_error_interval_95", (None, None))
            interval = "" if low is None else f" ({100 * low:.2f} to {100 * high:.2f})"
            cells.append(f"{100 * errors[f'top{k}_error']:.2f}{interval}")
        cells.append(f"{100 * errors['class_mean_error']:.2f}" if "class_mean_error" in errors else "")
    return f"| {escape(name)} | {' | '.join(cells)} |"


def _calibration_and_classes(errors, view, ranks):
    calibration, classes = errors["calibration"], errors["classes"]
    lines = [
        f"For {_words(view)}: expected calibration error {100 * calibration['expected_calibration_error']:.2f}%, "
        f"negative log-likelihood {calibration['negative_log_likelihood']:.4f}.",
        "",
        f"| class | images | {' | '.join(f'top-{k} error, %' for k in ranks)} | most often predicted as |",
        "|---" * (3 + len(ranks)) + "|",
    ]
    for row in classes[:_CLASSES_IN_TABLE]:
        percents = " | ".join(f"{100 * row[f'top{k}_error']:.2f}" for k in ranks)
        lines.append(f"| {escape(row['name'])} | {row['images']:,} | {percents} | {escape(row['taken_for'] or '')} |")
    if len(classes) > _CLASSES_IN_TABLE:
        lines.append(f"\nThe {_CLASSES_IN_TABLE} worst of {len(classes)} classes; all are in evaluation.json.")
    return lines


def as_text(result: dict) -> str:
    """Formats the errors of the average of all models for the terminal.

    Args:
        result: the results from `evaluate_models`.
    """
    heading = f"{result['images']:,} images of {result['split']}"
    with_top5 = 5 in _ranks(result)
    top5 = f"{'top-5 error':>11}" if with_top5 else ""
    lines = [f"{heading:<26}{'top-1 error (95% interval)':<31}{top5}{'class-mean error':>20}"]
    for name in (*VIEWS, *_BASELINES):
        if name not in result:
            continue
        errors = result[name]
        low, high = errors.get("top1_error_interval_95", (None, None))
        interval = "" if low is None else f"({low:.2%} to {high:.2%})"
        class_mean = f"{errors['class_mean_error']:.2%}" if "class_mean_error" in errors else ""
        top5 = f"{errors['top5_error']:>11.2%}" if with_top5 else ""
        cells = f"{errors['top1_error']:>9.2%} {interval:<21}{top5}{class_mean:>20}"
        lines.append(f"  {_words(name):<24}{cells}".rstrip())
    return "\n".join(lines)


def comparison(rows: Sequence[dict]) -> str:
    """Formats the rows from `compare` for the terminal."""
    lines = ["Comparison with the expected errors:", f"  {'error':<24}{'expected':>10}{'measured':>10} (95% interval)"]
    for row in rows:
        low, high = row["interval_95"]
        verdict = "pass" if row["passed"] else "FAIL"
        if row["expected"] > high:
            verdict = "pass, significantly lower"
        lines.append(
            f"  {row['name']:<24}{row['expected']:>10.2%}{row['measured']:>10.2%} ({low:.2%} to {high:.2%})  {verdict}"
        )
    return "\n".join(lines)


def write(output_dir: str | pathlib.Path, result: dict, models: Sequence[Predictions]) -> None:
    """Writes `naming.REPORT`. evaluation.json comes last: where it exists, the others do.

    Args:
        output_dir: folder of the files, created if it does not exist.
        result: the results from `evaluate_models` for `models`.
        models: predictions of the same images. The pictures show their average in the last common view.
    """
    output_dir = pathlib.Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(output_dir / "evaluation.md", as_markdown(result))
    view = _common_views(models)[-1]
    labels, class_names = models[0].labels, models[0].class_names
    predicted = metrics.average([model.views[view] for model in models]).argmax(axis=1)
    plots.save_png(output_dir / "confusion_matrix.png", plots.confusion_matrix(labels, predicted, class_names))
    plots.save_png(output_dir / "calibration.png", plots.reliability_diagram(result[view]["calibration"]))
    write_json(output_dir / "evaluation.json", result)
