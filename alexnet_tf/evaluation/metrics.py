"""Metrics of predicted probabilities: top-k errors, errors by class, calibration; and averages of several models."""

from collections.abc import Sequence

import numpy as np

_Z_95 = 1.959964  # a normal distribution has 95% of its mass within this many standard deviations of the mean


def top_k(probabilities: np.ndarray, k: int) -> np.ndarray:
    """The labels of the k most probable classes, the most probable first.

    Among equal probabilities, the class with the lower label comes first.

    Args:
        probabilities: float (..., classes).
        k: number of classes; all if there are fewer.

    Returns: int64 (..., min(k, classes)).
    """
    return np.argsort(-np.asarray(probabilities), axis=-1, kind="stable")[..., :k]


def top_k_wrong(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each image's class is not among the k most probable classes.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        k: number of classes; all if there are fewer.

    Returns: bool (n,).

    Source: section 2.
    """
    return ~np.any(top_k(probabilities, k) == labels[:, None], axis=1)


def interval_95(wrong: np.ndarray) -> list[float]:
    """Wilson's 95% confidence interval of an error rate, which also holds for rates near 0 and for few images.

    Args:
        wrong: bool (n,), whether each image is misclassified; or whether it is correct, for an accuracy's interval.

    Returns: [low, high], floats in [0, 1].
    """
    count, share = len(wrong), np.mean(wrong)
    center = (share + _Z_95**2 / (2 * count)) / (1 + _Z_95**2 / count)
    half = _Z_95 * np.sqrt(share * (1 - share) / count + (_Z_95 / (2 * count)) ** 2) / (1 + _Z_95**2 / count)
    return [float(max(center - half, 0)), float(min(center + half, 1))]


def errors(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Top-1 and top-5 error with their confidence intervals, and the class-mean error.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).

    Returns: a JSON-serializable dict: "top1_error" and "top5_error", floats in [0, 1]; "top1_error_interval_95" and
    "top5_error_interval_95", as returned by `interval_95`; "class_mean_error", the mean of the classes' top-1 errors,
    where each class counts the same, whatever its number of images.
    """
    result = {}
    for k in (1, 5):
        wrong = top_k_wrong(probabilities, labels, k)
        result[f"top{k}_error"] = float(np.mean(wrong))
        result[f"top{k}_error_interval_95"] = interval_95(wrong)
    wrong = top_k_wrong(probabilities, labels, 1)
    result["class_mean_error"] = float(np.mean([wrong[labels == label].mean() for label in np.unique(labels)]))
    return result


def baselines(labels: np.ndarray, num_classes: int) -> dict[str, dict]:
    """The errors of predictions that do not depend on the images.

    Args:
        labels: int (n,).
        num_classes: number of classes.

    Returns: a JSON-serializable dict with the "top1_error" and "top5_error" of "chance", random predictions, and of
    "most_frequent_class", which always predicts the classes with the most images.
    """
    counts = np.sort(np.bincount(labels, minlength=num_classes))[::-1]
    return {
        "chance": {f"top{k}_error": 1 - min(k, num_classes) / num_classes for k in (1, 5)},
        "most_frequent_class": {f"top{k}_error": float(1 - counts[:k].sum() / len(labels)) for k in (1, 5)},
    }


def errors_by_class(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict]:
    """The errors of each class that has images, the largest top-1 error first.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        class_names: names in the order of the labels.

    Returns: a list of dicts: "name", "images", "top1_error", "top5_error", and "taken_for", the class predicted most
    often for its misclassified images, or None if there are none.
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
    """How well an image's confidence, its largest probability, matches the accuracy.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        bins: number of equal ranges of confidence.

    Returns: a JSON-serializable dict: "bins", a list with a dict for each range that has images: "images", the means
    "confidence" and "accuracy", and "accuracy_interval_95"; "expected_calibration_error", the mean absolute difference
    between confidence and accuracy, weighted by images; and "negative_log_likelihood", the mean over all images.

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
    return np.mean([probabilities.astype("float64") for probabilities in model_probabilities], axis=0)
