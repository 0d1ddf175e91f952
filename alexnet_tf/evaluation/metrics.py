"""What probabilities are worth: errors and how sure they are, single classes, calibration, averages of models."""

import numpy as np

_Z_95 = 1.959964  # 95 % of a normal distribution lie within so many standard deviations of its mean


def top_k_wrong(probabilities, labels, k):
    """Whether each image's class is not among the k most probable.

    Among equal probabilities the class of the lower number counts as the more probable.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        k: how many classes count; with fewer classes than k, all.

    Returns: bool (n,).

    Source: section 2.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return ~np.any(best == labels[:, None], axis=1)


def interval_95(wrong):
    """Wilson's 95 % confidence interval of a share, of which it is right even where the share is 0 or the images few.

    Args:
        wrong: bool (n,).

    Returns: [low, high], floats in [0, 1].
    """
    count, share = len(wrong), np.mean(wrong)
    center = (share + _Z_95**2 / (2 * count)) / (1 + _Z_95**2 / count)
    half = _Z_95 * np.sqrt(share * (1 - share) / count + (_Z_95 / (2 * count)) ** 2) / (1 + _Z_95**2 / count)
    return [float(max(center - half, 0)), float(min(center + half, 1))]


def errors(probabilities, labels):
    """Top-1 and top-5 error with their intervals, as a dict that JSON can hold."""
    result = {}
    for k in (1, 5):
        wrong = top_k_wrong(probabilities, labels, k)
        result[f"top{k}_error"] = float(np.mean(wrong))
        result[f"top{k}_error_interval_95"] = interval_95(wrong)
    return result


def errors_by_class(probabilities, labels, class_names):
    """A row for each class that has images, the one with the largest error first.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        class_names: names in the order of the labels.

    Returns: a list of dicts: "name", "images", "top1_error", "top5_error", and "taken_for", the name of the class that
    its wrongly classified images were most often taken for, or None.
    """
    predictions = probabilities.argmax(axis=1)
    wrong = {k: top_k_wrong(probabilities, labels, k) for k in (1, 5)}
    rows = []
    for label in np.unique(labels):
        own = labels == label
        mistaken = np.bincount(predictions[own & wrong[1]], minlength=len(class_names))
        rows.append(
            {
                "name": class_names[label],
                "images": int(own.sum()),
                "top1_error": float(wrong[1][own].mean()),
                "top5_error": float(wrong[5][own].mean()),
                "taken_for": class_names[mistaken.argmax()] if mistaken.any() else None,
            }
        )
    return sorted(rows, key=lambda row: -row["top1_error"])


def calibration(probabilities, labels, bins=15):
    """Whether the network is right as often as it says.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        bins: how many ranges of confidence, the largest probability of an image, are told apart.

    Returns: a dict: "bins", a list of dicts with "images", "confidence" and "accuracy" (means over a range), without
    the empty ones; "expected_calibration_error", their mean difference, weighted by images; and
    "negative_log_likelihood", the mean over all images.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    confidences = probabilities.max(axis=1)
    right = ~top_k_wrong(probabilities, labels, 1)
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    rows = [
        {"images": int(own.sum()), "confidence": float(confidences[own].mean()), "accuracy": float(right[own].mean())}
        for own in (places == place for place in range(bins))
        if own.any()
    ]
    difference = sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(labels)
    likelihoods = np.maximum(probabilities[np.arange(len(labels)), labels].astype("float64"), 1e-30)
    return {
        "bins": rows,
        "expected_calibration_error": float(difference),
        "negative_log_likelihood": float(-np.log(likelihoods).mean()),
    }


def average(of_models, weights=None):
    """The probabilities of several models, averaged.

    Args:
        of_models: list of float (n, classes).
        weights: one for each, of the sum 1; None for equal ones.

    Returns: float64 (n, classes).

    Source: section 6: "averaging the predictions".
    """
    weights = np.full(len(of_models), 1 / len(of_models)) if weights is None else weights
    return sum(
        weight * probabilities.astype("float64") for weight, probabilities in zip(weights, of_models, strict=True)
    )


def search_weights(of_models, labels, steps=1000):
    """The weights under which the average gives the true classes the highest likelihood.

    Args:
        of_models: list of float (n, classes).
        labels: int (n,).
        steps: of the expectation-maximization, each of which improves them. The likelihood is concave in the weights,
            so there is one best.

    Returns: float64 (models,), of the sum 1, none negative.

    Deviation: the original program searched its ensembles' weights on validation images too, but does not say how.
    """
    likelihoods = np.stack([p[np.arange(len(labels)), labels].astype("float64") for p in of_models])
    likelihoods = np.maximum(likelihoods, 1e-30)
    weights = np.full(len(of_models), 1 / len(of_models))
    for _ in range(steps):
        shares = weights[:, None] * likelihoods
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return weights
