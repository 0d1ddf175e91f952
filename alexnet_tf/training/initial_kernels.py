"""The first layer's kernels before training: figures show what training has added to them."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_tf.evaluation import naming
from alexnet_tf.files import write_atomically

_INITIAL_KERNELS = "initial_kernels.npz"  # in a run's folder


def save_initial_kernels(run_dir: str | pathlib.Path, kernels: Sequence[Any]) -> None:
    """Writes the initial kernels of a run into its folder, unless an earlier start did."""
    path = pathlib.Path(run_dir) / _INITIAL_KERNELS
    if not path.exists():
        write_atomically(path, lambda file: np.savez(file, *map(np.asarray, kernels)))


def load_initial_kernels(model: str | pathlib.Path) -> list[np.ndarray] | None:
    """The initial kernels of a run, or None if it has none.

    Args:
        model: a run's folder, a folder of its checkpoints, or a .keras file in one of them.
    """
    folder = naming.run_folder(pathlib.Path(model).absolute())
    for path in (folder / _INITIAL_KERNELS, folder.parent.parent / _INITIAL_KERNELS):
        if path.is_file():
            with np.load(path) as arrays:
                return list(arrays.values())
    return None
