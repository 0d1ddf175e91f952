"""Writes the results of an evaluation as JSON, Markdown, pictures, and text for the terminal."""

import json
import pathlib
from collections.abc import Sequence

from alexnet_tf.evaluation import metrics, results
from alexnet_tf.evaluation.predictions import Predictions
from alexnet_tf.figures import plots
from alexnet_tf.files import write_text
from alexnet_tf.networks.layer_table import escape

_CLASSES_IN_TABLE = 20


def as_markdown(result: dict) -> str:
    """Formats results as tables: a row for each model and one for their average, as in table 2; calibration; classes.

    Args:
        result: what `results.evaluate_models` returns.
    """
    views = [view for view in ("center_crop", "ten_views") if view in result]
    header = [f"{k}, {view.replace('_', ' ')}" for view in views for k in ("top-1", "top-5")]
    table_head = [f"| model | {' | '.join(header)} |", "|---" * (len(header) + 1) + "|"]
    lines = [f"# {result['images']:,} images of {result['split']}", ""]
    lines += ["Errors in percent, and the 95% confidence interval.", "", *table_head]
    lines += [_errors_row(model["name"], [model[view] for view in views]) for model in result["models"]]
    if len(result["models"]) > 1:
        lines.append(_errors_row(f"{len(result['models'])} averaged", [result[view] for view in views]))
    chance = [f"{100 * result['chance'][f'top{k}_error']:.2f}" for _ in views for k in (1, 5)]
    lines.append(f"| chance | {' | '.join(chance)} |")
    lines += ["", *_calibration_and_classes(result[views[-1]], views[-1])]
    return "\n".join(lines) + "\n"


def _errors_row(name, errors_of_views):
    cells = []
    for errors in errors_of_views:
        for k in (1, 5):
            low, high = errors[f"top{k}_error_interval_95"]
            cells.append(f"{100 * errors[f'top{k}_error']:.2f} ({100 * low:.2f} to {100 * high:.2f})")
    return f"| {escape(name)} | {' | '.join(cells)} |"


def _calibration_and_classes(of_view, view):
    calibration = of_view["calibration"]
    lines = [
        f"Of {view.replace('_', ' ')}: expected calibration error "
        f"{100 * calibration['expected_calibration_error']:.2f}%, negative log-likelihood "
        f"{calibration['negative_log_likelihood']:.4f}.",
        "",
        "| class | images | top-1 error, % | top-5 error, % | most often predicted as |",
        "|---|---|---|---|---|",
    ]
    for of_class in of_view["classes"][:_CLASSES_IN_TABLE]:
        lines.append(
            f"| {escape(of_class['name'])} | {of_class['images']:,} | {100 * of_class['top1_error']:.2f} | "
            f"{100 * of_class['top5_error']:.2f} | {escape(of_class['taken_for'] or '')} |"
        )
    if len(of_view["classes"]) > _CLASSES_IN_TABLE:
        lines.append(
            f"\nThe {_CLASSES_IN_TABLE} worst of {len(of_view['classes'])} classes; all are in evaluation.json."
        )
    return lines


def as_text(result: dict) -> str:
    """Formats the errors of the average of all models for the terminal.

    Args:
        result: what `results.evaluate_models` returns.
    """
    lines = [f"{result['images']:,} images of {result['split']}  top-1 error (95% interval)     top-5 error"]
    for name in ("center_crop", "ten_views", "chance"):
        if name not in result:
            continue
        errors = result[name]
        low, high = errors.get("top1_error_interval_95", (None, None))
        interval = "" if low is None else f"({low:.2%} to {high:.2%})"
        lines.append(
            f"  {name.replace('_', ' '):<24}{errors['top1_error']:>9.2%} {interval:<20}{errors['top5_error']:>13.2%}"
        )
    return "\n".join(lines)


def comparison(rows: Sequence[dict]) -> str:
    """Formats what `results.compare` returns for the terminal."""
    lines = ["Compared with what is expected:", f"  {'error':<24}{'expected':>10}{'measured':>10} (95% interval)"]
    for row in rows:
        low, high = row["interval_95"]
        verdict = "pass" if row["passed"] else "FAIL"
        if row["expected"] > high:
            verdict = "pass, lower than chance explains"
        lines.append(
            f"  {row['name']:<24}{row['expected']:>10.2%}{row['measured']:>10.2%} ({low:.2%} to {high:.2%})  {verdict}"
        )
    return "\n".join(lines)


def write(output_dir: str | pathlib.Path, result: dict, models: Sequence[Predictions]) -> None:
    """Writes `files.REPORT`.

    Args:
        output_dir: their folder, which is created if it does not exist.
        result: what `results.evaluate_models` returns for `models`.
        models: predictions of the same images, whose average the pictures show, in the last view that all have.
    """
    output_dir = pathlib.Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("evaluation.json", json.dumps(result, indent=2) + "\n"),
        ("evaluation.md", as_markdown(result)),
    ):
        write_text(output_dir / name, text)
    view = results.common_views(models)[-1]
    predicted = metrics.average([model.views[view] for model in models]).argmax(axis=1)
    plots.save_png(
        output_dir / "confusion_matrix.png",
        plots.confusion_matrix(models[0].labels, predicted, models[0].class_names),
    )
    plots.save_png(output_dir / "calibration.png", plots.reliability_diagram(result[view]["calibration"]))
