"""The results of an evaluation: errors, calibration and classes of several models, alone and averaged."""

from collections.abc import Mapping, Sequence

from alexnet_tf.evaluation import files, metrics
from alexnet_tf.evaluation.predictions import Predictions


def evaluate(models: Sequence[Predictions], view: str, class_names: Sequence[str]) -> dict:
    """Measures the average of one or several models.

    Args:
        models: predictions of the same images by each model.
        view: "center_crop" or "ten_views".
        class_names: names in the order of the labels.

    Returns: a JSON-serializable dict: the errors of the models' average with equal weights (of one model, its own), its
    calibration, and its errors by class.
    """
    labels = models[0].labels
    probabilities = metrics.average([model.views[view] for model in models])
    return {
        **metrics.errors(probabilities, labels),
        "calibration": metrics.calibration(probabilities, labels),
        "classes": metrics.errors_by_class(probabilities, labels, class_names),
    }


def common_views(models: Sequence[Predictions]) -> list[str]:
    """The views that all models predicted from, of "center_crop" and "ten_views" in this order."""
    return [view for view in ("center_crop", "ten_views") if all(view in model.views for model in models)]


def evaluate_models(models: Sequence[Predictions], records_skipped: int = 0) -> dict:
    """Measures models and their average in every view that all of them have.

    Args:
        models: predictions of the same images by each model.
        records_skipped: number of unreadable records of the split, for the report.

    Returns: the content of evaluation.json, a dict.
    """
    class_names = models[0].class_names
    views = common_views(models)
    result = {
        "split": models[0].split,
        "images": len(models[0].labels),
        "records_left_out": records_skipped,
        "chance": {f"top{k}_error": 1 - min(k, len(class_names)) / len(class_names) for k in (1, 5)},
        "models": [
            {"name": model.name, "weights": model.weights}
            | {view: metrics.errors(model.views[view], model.labels) for view in views}
            for model in models
        ],
    }
    result |= {view: evaluate(models, view, class_names) for view in views}
    return result


def compare(result: dict, expected: Mapping[str, float]) -> list[dict]:
    """Compares measured errors with expected ones.

    Args:
        result: what `evaluate_models` returns.
        expected: errors in percent, by the names of `files.EXPECTED`.

    Returns: for each a JSON-serializable dict: "name", "expected" and "measured" (errors in [0, 1]), "interval_95", and
    "passed", whether the measured error is not above the expected one by more than chance explains: whether its
    interval begins at or below it.

    Raises:
        ValueError: if a view was not measured.
    """
    rows = []
    for name, percent in expected.items():
        view, k = files.EXPECTED[name]
        if view not in result:
            raise ValueError(f"`expect` must be of views that were measured. Received: {name}={percent:g}")
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
