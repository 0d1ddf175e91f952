"""Downloads models from the Hugging Face Hub by addresses such as hf://USER/NAME."""

import importlib
import pathlib
import re


def local_folder(path: str | pathlib.Path) -> pathlib.Path | None:
    """Downloads a model, unless it is in the Hub's cache.

    Args:
        path: "hf://USER/NAME", or any other path.

    Returns: the folder with the model's files; None if `path` is not an address of the Hub.

    Raises:
        ValueError: if huggingface_hub is not installed, or the model can't be downloaded.
    """
    address = re.fullmatch(r"hf:/+(.+)", str(path))  # pathlib turns // into /
    if address is None:
        return None
    try:
        huggingface_hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(f"huggingface_hub is needed for hf://{address[1]}: pip install --editable '.[hub]'") from error
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(address[1], library_name="keras"))
    except Exception as error:  # of its own classes, or its HTTP client's
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"hf://{address[1]} can't be downloaded: {reason} If you have its files, give their folder instead."
        ) from error


def find_model(path: str | pathlib.Path) -> pathlib.Path:
    """Finds the saved model that a path stands for.

    Args:
        path: a folder with model.keras, or with the files that Keras saves unzipped; a .keras or .h5 file; or an
            address of the Hub.

    Returns: the file, or the folder of an unzipped model.

    Raises:
        ValueError: if there is none, or it can't be downloaded.
    """
    path = local_folder(path) or pathlib.Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if file.is_file():
        return file
    if (path / "config.json").is_file():
        return path  # unzipped, as Keras saves to the Hub
    raise ValueError(
        f"No model found: {file} does not exist. Give a run folder, a .keras file, or the name of published weights "
        "(alexnet-describe --weights lists them)."
    )
