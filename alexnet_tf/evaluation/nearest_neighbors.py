"""Exact search for the nearest neighbors of feature vectors."""

import csv
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from alexnet_tf.files import write_atomically, write_text

METRICS = ("cosine", "euclidean")

_BLOCK = 16_384  # vectors that are compared at once; 268 MB for vectors of 4,096 numbers


def exact_search(
    queries: np.ndarray, vectors: np.ndarray, count: int, metric: str = "cosine", skip_itself: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest vectors.

    Args:
        queries: float32 (n, units).
        vectors: float32 (m, units), the vectors to search.
        count: number of neighbors per query.
        metric: "cosine", 1 minus the cosine of the angle between two vectors (1 if one is zero); or "euclidean".
        skip_itself: whether the queries are the vectors: no vector is then its own neighbor.

    Returns:
        (indices, distances): int64 and float32 (n, count), the nearest first. Among equally near vectors, the one with
        the lower index comes first.

    Raises:
        ValueError: if the vectors differ in length, there are fewer than `count`, or `metric` is neither of the two.

    Source: section 6.1 uses Euclidean distance. Deviation: for 430 photographs of five kinds of flowers, the nearest of
    3,887 others (pool5, published weights) was of the same class for 63% by cosine and 53% by Euclidean distance.
    """
    if metric not in METRICS:
        raise ValueError(f"`metric` must be one of {', '.join(METRICS)}. Received: metric={metric!r}")
    if queries.shape[1] != vectors.shape[1]:
        raise ValueError(f"Vectors must be of the same length. Received: {queries.shape[1]} and {vectors.shape[1]}")
    others = len(vectors) - skip_itself
    if not 1 <= count <= others:
        raise ValueError(f"`count` must be from 1 to the number of other vectors, {others}. Received: {count}")
    nearest = np.full((len(queries), count), np.inf)
    indices = np.zeros((len(queries), count), "int64")
    queries = _scaled(queries, metric)
    squares = np.square(queries).sum(axis=1)[:, None]
    for begin in tqdm(range(0, len(vectors), _BLOCK), unit="block", disable=len(vectors) <= _BLOCK):
        block = _scaled(vectors[begin : begin + _BLOCK], metric)
        # One matrix product instead of a difference for each pair. In float64, because near vectors would cancel.
        products = queries @ block.T
        distances = 1 - products if metric == "cosine" else squares - 2 * products + np.square(block).sum(axis=1)
        if skip_itself:
            np.fill_diagonal(distances[begin:], np.inf)
        both = np.concatenate([nearest, distances], axis=1)
        block_indices = np.broadcast_to(np.arange(begin, begin + len(block)), distances.shape)
        both_indices = np.concatenate([indices, block_indices], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :count]
        nearest = np.take_along_axis(both, order, axis=1)
        indices = np.take_along_axis(both_indices, order, axis=1)
    nearest = np.maximum(nearest, 0)
    return indices, (nearest if metric == "cosine" else np.sqrt(nearest)).astype("float32")


def _scaled(vectors: np.ndarray, metric: str) -> np.ndarray:
    """The vectors in float64; for cosine distances of length 1, or 0."""
    vectors = vectors.astype("float64")
    if metric == "euclidean":
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def save(
    path: pathlib.Path,
    indices: np.ndarray,
    distances: np.ndarray,
    query_names: Sequence[str] | np.ndarray,
    names: Sequence[str] | np.ndarray,
) -> None:
    """Writes the results of a search.

    Args:
        path: an .npz file, with arrays `indices`, `distances`, `queries` and `neighbors`, the images' names; or a .csv
            file with a row for each neighbor.
        indices, distances: from `exact_search`.
        query_names, names: names of the queries' and of the searched images.
    """
    neighbors = np.asarray(names, str)[indices]
    if path.suffix == ".npz":
        queries = np.asarray(query_names, str)
        write_atomically(
            path,
            lambda file: np.savez_compressed(
                file, indices=indices, distances=distances, queries=queries, neighbors=neighbors
            ),
        )
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "neighbor", "distance"])
    for query, *found in zip(query_names, neighbors, distances, strict=True):
        for rank, (neighbor, distance) in enumerate(zip(*found, strict=True), 1):
            writer.writerow([query, rank, neighbor, f"{distance:.6g}"])
    write_text(path, text.getvalue())
