"""Names of an evaluation's models, files and errors. Imports nothing heavy: programs check them at their start."""

import pathlib
from collections.abc import Sequence

from alexnet_tf import options

REPORT = ("evaluation.json", "evaluation.md", "confusion_matrix.png", "calibration.png")
KERNELS = "conv1_kernels.png"
VIEWS = ("center_crop", "ten_views")
EXPECTED = {  # names in --expect to views and errors
    "top1": ("center_crop", "top1"),
    "top5": ("center_crop", "top5"),
    "ten_view_top1": ("ten_views", "top1"),
    "ten_view_top5": ("ten_views", "top5"),
}


def parse_expected(items: Sequence[str]) -> dict[str, float]:
    """Returns {"top1": 43.45} for ["top1=43.45"].

    Raises:
        ValueError: if an item is not of that form, or a name occurs twice.
    """
    expected = options.parse_numbers_by_name("expect", items)
    for name, percent in expected.items():
        if name not in EXPECTED or not 0 <= percent <= 100:
            raise ValueError(
                f"`expect` must be errors in percent by name, such as top1=43.45. The names are {', '.join(EXPECTED)}. "
                f"Received: {name}={percent:g}"
            )
    return expected


def run_folder(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of a model: `path` itself, or the folder of the .keras or .h5 file at `path`."""
    path = pathlib.Path(path)
    return path.parent if path.suffix in (".keras", ".h5") and not path.is_dir() else path


def model_name(path: str | pathlib.Path) -> str:
    """The name of a model: the name of its run's folder, with the step if it is a checkpoint ("demo-00000150")."""
    folder = run_folder(pathlib.Path(path).absolute())
    return f"{folder.parents[1].name}-{folder.name}" if folder.parent.name == "checkpoints" else folder.name


def is_saved(path: str | pathlib.Path) -> bool:
    """Whether a path names saved predictions instead of a model."""
    return pathlib.Path(path).suffix == ".npz"
