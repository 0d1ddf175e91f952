"""Metrics of predicted probabilities: top-k errors, errors by class, calibration, and averages of several models."""

from collections.abc import Sequence

import numpy as np

_Z_95 = 1.959964  # 95 % of a normal distribution lie within so many standard deviations of its mean


def top_k(probabilities: np.ndarray, k: int) -> np.ndarray:
    """The labels of the k most probable classes, the most probable first.

    Among equal probabilities the class with the lower label comes first.

    Args:
        probabilities: float (..., classes).
        k: number of classes; all if there are fewer.

    Returns: int64 (..., min(k, classes)).
    """
    return np.argsort(-np.asarray(probabilities), axis=-1, kind="stable")[..., :k]


def top_k_wrong(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each image's class is not among the k most probable.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        k: number of classes that count; all if there are fewer.

    Returns: bool (n,).

    Source: section 2.
    """
    return ~np.any(top_k(probabilities, k) == labels[:, None], axis=1)


def interval_95(wrong: np.ndarray) -> list[float]:
    """Wilson's 95 % confidence interval of an error rate. It holds for rates near 0 and for few images too.

    Args:
        wrong: bool (n,); or whether each is correct, for the interval of an accuracy.

    Returns: [low, high], floats in [0, 1].
    """
    count, share = len(wrong), np.mean(wrong)
    center = (share + _Z_95**2 / (2 * count)) / (1 + _Z_95**2 / count)
    half = _Z_95 * np.sqrt(share * (1 - share) / count + (_Z_95 / (2 * count)) ** 2) / (1 + _Z_95**2 / count)
    return [float(max(center - half, 0)), float(min(center + half, 1))]


def errors(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Top-1 and top-5 error with their confidence intervals, as a JSON-serializable dict.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).

    Returns: a dict with "top1_error" and "top5_error", floats in [0, 1], and "top1_error_interval_95" and
    "top5_error_interval_95", as `interval_95` returns them.
    """
    result = {}
    for k in (1, 5):
        wrong = top_k_wrong(probabilities, labels, k)
        result[f"top{k}_error"] = float(np.mean(wrong))
        result[f"top{k}_error_interval_95"] = interval_95(wrong)
    return result


def errors_by_class(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict]:
    """The errors of each class that has images, the largest top-1 error first.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        class_names: names in the order of the labels.

    Returns: a list of dicts: "name", "images", "top1_error", "top5_error", and "taken_for", the class most often
    predicted for its misclassified images, or None if there are none.
    """
    predictions = probabilities.argmax(axis=1)
    wrong = {k: top_k_wrong(probabilities, labels, k) for k in (1, 5)}
    rows = []
    for label in np.unique(labels):
        own = labels == label
        mistaken = np.bincount(predictions[own & wrong[1]], minlength=len(class_names))
        rows.append(
            {
                "name": class_names[int(label)],
                "images": int(own.sum()),
                "top1_error": float(wrong[1][own].mean()),
                "top5_error": float(wrong[5][own].mean()),
                "taken_for": class_names[int(mistaken.argmax())] if mistaken.any() else None,
            }
        )
    return sorted(rows, key=lambda row: -row["top1_error"])


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict:
    """How well confidence, the largest probability of an image, matches accuracy.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        bins: number of equal ranges of confidence.

    Returns: a dict: "bins", a list of dicts with "images", "confidence" and "accuracy" (means over a range) and
    "accuracy_interval_95", without empty ranges; "expected_calibration_error", the mean of the absolute difference of
    the two, weighted by images; and "negative_log_likelihood", the mean over all images.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    confidences = probabilities.max(axis=1)
    correct = ~top_k_wrong(probabilities, labels, 1)
    bin_numbers = np.minimum((confidences * bins).astype(int), bins - 1)
    rows = [
        {
            "images": int(own.sum()),
            "confidence": float(confidences[own].mean()),
            "accuracy": float(correct[own].mean()),
            "accuracy_interval_95": interval_95(correct[own]),
        }
        for own in (bin_numbers == number for number in range(bins))
        if own.any()
    ]
    difference = sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(labels)
    likelihoods = np.maximum(probabilities[np.arange(len(labels)), labels].astype("float64"), 1e-30)
    return {
        "bins": rows,
        "expected_calibration_error": float(difference),
        "negative_log_likelihood": float(-np.log(likelihoods).mean()),
    }


def average(model_probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """The average of the probabilities of several models.

    Args:
        model_probabilities: float (n, classes) of each model.

    Returns: float64 (n, classes).

    Source: section 6: "averaging the predictions".
    """
    return sum(probabilities.astype("float64") for probabilities in model_probabilities) / len(model_probabilities)
