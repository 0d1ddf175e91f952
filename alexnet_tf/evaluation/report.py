"""What an evaluation found, as JSON, Markdown and pictures."""

import json
import pathlib

import numpy as np

from alexnet_tf.evaluation import metrics
from alexnet_tf.tfrecords import schema
from alexnet_tf.visualization import plots

FILES = ("evaluation.json", "evaluation.md", "confusion_matrix.png", "calibration.png")
_CLASSES_IN_TABLE = 20


def as_markdown(result):
    """The result as tables: one row a model and one for their average, as in table 2; calibration; classes."""
    views = [view for view in ("center_crop", "ten_views") if view in result]
    header = [f"{k}, {view.replace('_', ' ')}" for view in views for k in ("top-1", "top-5")]
    lines = [
        f"# {result['images']:,} images of {result['split']}",
        "",
        "Errors in percent, and the 95 % confidence interval.",
        "",
        f"| model | {' | '.join(header)} |",
        "|---" * (len(header) + 1) + "|",
    ]

    def row(name, of_views):
        cells = []
        for errors in of_views:
            for k in (1, 5):
                low, high = errors[f"top{k}_error_interval_95"]
                cells.append(f"{100 * errors[f'top{k}_error']:.2f} ({100 * low:.2f} to {100 * high:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for model in result["models"]:
        row(model["name"], [model[view] for view in views])
    if len(result["models"]) > 1:
        row(f"{len(result['models'])} averaged", [result[view] for view in views])
    of_chance = [f"{100 * result['chance'][f'top{k}_error']:.2f}" for _ in views for k in (1, 5)]
    lines.append(f"| chance | {' | '.join(of_chance)} |")
    if "searched" in result:
        searched = [result["searched"][view] for view in views]
        lines += ["", f"Weights searched on every second image; errors on the other {searched[0]['images']:,}:", ""]
        lines += lines[4:6]
        row("equal weights", [of_view["equal_weights"] for of_view in searched])
        row("searched weights", [of_view["searched_weights"] for of_view in searched])
        for view, of_view in zip(views, searched, strict=True):
            weights = ", ".join(
                f"{model['name']} {weight:.3f}"
                for model, weight in zip(result["models"], of_view["weights"], strict=True)
            )
            lines.append(f"\nWeights, {view.replace('_', ' ')}: {weights}.")
    best = result[views[-1]]
    lines += [
        "",
        f"Of {views[-1].replace('_', ' ')}: expected calibration error "
        f"{100 * best['calibration']['expected_calibration_error']:.2f} %, negative log-likelihood "
        f"{best['calibration']['negative_log_likelihood']:.4f}.",
        "",
        "| class | images | top-1 error, % | top-5 error, % | most often taken for |",
        "|---|---|---|---|---|",
    ]
    for of_class in best["classes"][:_CLASSES_IN_TABLE]:
        lines.append(
            f"| {of_class['name']} | {of_class['images']:,} | {100 * of_class['top1_error']:.2f} | "
            f"{100 * of_class['top5_error']:.2f} | {of_class['taken_for'] or ''} |"
        )
    if len(best["classes"]) > _CLASSES_IN_TABLE:
        lines.append(f"\nThe {_CLASSES_IN_TABLE} worst of {len(best['classes'])} classes; all are in evaluation.json.")
    return "\n".join(lines) + "\n"


def write(output_dir, result, models, view, class_names):
    """Writes `FILES`.

    Args:
        output_dir: their folder, which is made where there is none.
        result: a dict, as `as_markdown` takes it.
        models: list of `predictions.Predictions` of the same images, whose average the pictures show.
        view: "center_crop" or "ten_views".
        class_names: names in the order of the labels.
    """
    output_dir = pathlib.Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("evaluation.json", json.dumps(result, indent=2) + "\n"),
        ("evaluation.md", as_markdown(result)),
    ):
        schema.write_whole(output_dir / name, lambda file, text=text: file.write(text.encode()))
    probabilities = metrics.average([model.views[view] for model in models])
    pictures = {
        "confusion_matrix.png": plots.confusion_matrix(models[0].labels, np.argmax(probabilities, axis=1), class_names),
        "calibration.png": plots.reliability_diagram(result[view]["calibration"]),
    }
    for name, picture in pictures.items():
        plots.save_png(output_dir / name, picture)
