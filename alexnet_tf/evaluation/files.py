"""Names of the files of an evaluation. Imports nothing heavy, so that a program can check them at its start."""

import pathlib

REPORT = ("evaluation.json", "evaluation.md", "confusion_matrix.png", "calibration.png")
KERNELS = "conv1_kernels.png"


def run_folder(path: str | pathlib.Path) -> pathlib.Path:
    """The run's folder of a model: `path` itself, or the folder that holds the .keras or .h5 file at `path`."""
    path = pathlib.Path(path)
    return path.parent if path.suffix in (".keras", ".h5") and not path.is_dir() else path


def model_name(path: str | pathlib.Path) -> str:
    """The name of a model: that of its run's folder, and of a checkpoint in one the step too, as in "demo-00000150"."""
    folder = run_folder(pathlib.Path(path).absolute())
    return f"{folder.parents[1].name}-{folder.name}" if folder.parent.name == "checkpoints" else folder.name


def is_saved(path: str | pathlib.Path) -> bool:
    """Whether a path is one of saved predictions and not of a model."""
    return pathlib.Path(path).suffix == ".npz"
