"""The results of an evaluation: errors, calibration and classes of models and of their average."""

from collections.abc import Mapping, Sequence

from alexnet_tf.evaluation import files, metrics
from alexnet_tf.evaluation.predictions import VIEWS, Predictions


def common_views(models: Sequence[Predictions]) -> list[str]:
    """The views that all models have predictions for, in the order of `VIEWS`."""
    return [view for view in VIEWS if all(view in model.views for model in models)]


def evaluate_models(models: Sequence[Predictions], records_skipped: int = 0) -> dict:
    """Evaluates models and their average in every view that all of them have.

    Args:
        models: each model's predictions of the same images.
        records_skipped: number of unreadable records of the split, for the report.

    Returns: the content of evaluation.json, a dict.
    """
    labels, class_names, views = models[0].labels, models[0].class_names, common_views(models)
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
        expected: errors in percent, by the names in `files.EXPECTED`.

    Returns: a JSON-serializable dict for each expected error: "name", "expected" and "measured" (errors in [0, 1]),
    "interval_95", and "passed": whether the expected error is not below the 95% interval of the measured error.

    Raises:
        ValueError: if a view was not measured.
    """
    rows = []
    for name, percent in expected.items():
        view, k = files.EXPECTED[name]
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
