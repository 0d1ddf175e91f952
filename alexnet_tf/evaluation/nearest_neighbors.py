"""Exact search for the nearest neighbors of feature vectors."""

import pathlib

import numpy as np
from tqdm import tqdm

from alexnet_tf.files import write_atomically

_BLOCK = 16_384  # vectors that are compared at once; 268 MB for vectors of 4,096 numbers


def exact_search(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest vectors by Euclidean distance.

    Args:
        queries: float32 (n, units).
        vectors: float32 (m, units), the vectors to search.
        count: number of neighbors per query.

    Returns:
        (indices, distances): int64 and float32 (n, count), the nearest first. Among equally near vectors, the one with
        the lower index comes first.

    Raises:
        ValueError: if the vectors differ in length, or there are fewer than `count`.
    """
    if queries.shape[1] != vectors.shape[1]:
        raise ValueError(f"Vectors must be of the same length. Received: {queries.shape[1]} and {vectors.shape[1]}")
    if not 1 <= count <= len(vectors):
        raise ValueError(f"`count` must be from 1 to the number of vectors, {len(vectors)}. Received: {count}")
    nearest = np.full((len(queries), count), np.inf)
    indices = np.zeros((len(queries), count), "int64")
    squares = np.square(queries, dtype="float64").sum(axis=1)[:, None]
    for begin in tqdm(range(0, len(vectors), _BLOCK), unit="block", disable=len(vectors) <= _BLOCK):
        block = vectors[begin : begin + _BLOCK].astype("float64")
        # One matrix product instead of a difference for each pair. In float64, because near vectors would cancel.
        distances = squares - 2 * queries @ block.T + np.square(block).sum(axis=1)
        both = np.concatenate([nearest, distances], axis=1)
        block_indices = np.broadcast_to(np.arange(begin, begin + len(block)), distances.shape)
        both_indices = np.concatenate([indices, block_indices], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :count]
        nearest = np.take_along_axis(both, order, axis=1)
        indices = np.take_along_axis(both_indices, order, axis=1)
    return indices, np.sqrt(np.maximum(nearest, 0)).astype("float32")


def save(path: str | pathlib.Path, indices: np.ndarray, distances: np.ndarray) -> None:
    """Writes the results of a search as an .npz file with arrays `numbers`, the indices, and `distances`."""
    write_atomically(path, lambda file: np.savez_compressed(file, numbers=indices, distances=distances))
