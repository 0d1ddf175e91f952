"""Writes a trained model as a numbered version that is complete or does not exist."""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf import files
from alexnet_tf.networks import precision as precisions
from alexnet_tf.networks import structure
from alexnet_tf.serving import conversion, formats, model_card, parity, signatures, warm_up, web_page
from alexnet_tf.tfrecords import schema

_DEFAULT = formats.ExportConfig()
ASSETS = "assets"  # labels, model card and parity report; a SavedModel's folder for additional files


@contextlib.contextmanager
def new_version(
    base_dir: str | pathlib.Path, version: int | None = None
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Creates a folder for a version, and renames it to the version's number at the end of the block.

    Args:
        base_dir: the model's base path for TensorFlow Serving.
        version: version number; None for one more than the largest there.

    Yields: the path of an empty folder, and the path after the block. If the block raises, neither is left.

    Raises:
        ValueError: if the version exists, or another process exports there.
    """
    base_dir = pathlib.Path(base_dir)
    base_dir.mkdir(parents=True, exist_ok=True)
    with files.sole_user(base_dir, f"Another process exports into `export_dir` {base_dir}. Wait for it."):
        if version is None:
            version = 1 + max((int(path.name) for path in base_dir.glob("*") if path.name.isdigit()), default=0)
        target = base_dir / str(version)
        if target.exists():
            raise ValueError(f"`version` must not exist, since a server may be reading it. Received: {target}")
        # TensorFlow Serving loads every subfolder whose name is a number, also an incomplete one.
        temporary = base_dir / f".tmp-{version}"
        shutil.rmtree(temporary, ignore_errors=True)  # left by an export that was killed: the lock excludes others
        temporary.mkdir()
        try:
            yield temporary, target
            files.publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_saved_model(folder: pathlib.Path, functions: Mapping[str, Callable]) -> None:
    """Writes a SavedModel with each weight once, which runs without this project's code."""
    archive = keras.export.ExportArchive()
    # Not `archive.track(model)`, which stores every weight twice.
    for name, function in functions.items():
        archive.add_endpoint(name, function)
    archive.write_out(str(folder), verbose=False)  # pyright: ignore[reportAttributeAccessIssue] # by backend
    if signatures.CLASSIFY in functions:
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
        updater.replace_method_name(signatures.CLASSIFY, "tensorflow/serving/classify", "serve")
        updater.save()


def export_model(
    model: keras.Model,
    description: schema.DatasetDescription,
    base_dir: str | pathlib.Path,
    config: formats.ExportConfig = _DEFAULT,
    run: pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes a version of a model, with additional files in its folder `assets`.

    `labels.txt` has a class name per line; `model_card.json` and `.md` describe the model and its origin;
    `parity.json` and `.md` compare it with the trained model, if there is a data set. A SavedModel also gets
    `tf_serving_warmup_requests`, which TensorFlow Serving runs before it serves a new version. A network without its
    top gets no labels and no parity report.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes); or a network without its top.
        description: the data it was trained on.
        base_dir: see `new_version`.
        config: the format and its options.
        run: the folder of the model's run, for the model card.

    Returns: the folder of the version.

    Raises:
        ValueError: if the version exists, the model's outputs are not probabilities, or the data set has other classes.
    """
    if config.format == "savedmodel":
        formats.check_path(base_dir)
    has_top = structure.classifier(model) is not None
    _check_outputs(model, has_top)
    if not has_top:
        if config.format == "web":
            raise ValueError(f"A web page needs a classifier. Received: {model.name}, a network without its top")
        description = dataclasses.replace(description, class_names=())
    model = precisions.in_float32(structure.flatten(model))  # float32 runs on any processor
    training, validation = None, None
    if config.data_dir:
        measured = schema.load_description(config.data_dir)
        if has_top and measured.class_names != description.class_names:
            raise ValueError(
                f"`data_dir` must have the model's classes, {', '.join(description.class_names[:3])}, ... "
                f"Received: {config.data_dir} with {', '.join(measured.class_names[:3])}, ..."
            )
        if config.format == "web" or config.precision == "int8":
            training = parity.read_crops(config.data_dir, measured, "train", model, config.num_images)
        if has_top and config.parity:
            validation = parity.read_crops(config.data_dir, measured, "validation", model, config.num_images)
    with new_version(base_dir, config.version) as (folder, target):
        if config.format == "savedmodel":
            written = precisions.stored_in_bfloat16(model) if config.precision == "bfloat16" else model
            functions = signatures.make_signatures(written, description, config.max_pixels)
            _write_saved_model(folder, functions)
            if not warm_up.write(folder, target.parent.name, functions):
                print("No warm-up requests were written: they need pip install --editable '.[serving]'.")
        elif config.format == "web":
            web_page.write(folder, model, description, config, training)
        else:
            conversion.write(folder, model, config.format, str(config.precision), training and training[0])
        assets = folder / ASSETS
        assets.mkdir(exist_ok=True)
        if has_top:
            files.write_text(assets / "labels.txt", "".join(f"{name}\n" for name in description.class_names))
        written_as = {"format": config.format, "precision": config.precision}
        card = model_card.collect(model, description, run, target.parent.name, int(target.name)) | written_as
        files.write_json(assets / "model_card.json", card)
        files.write_text(assets / "model_card.md", model_card.as_markdown(card))
        if validation:
            report = parity.measure(formats.open_predictor(folder), model.predict_on_batch, *validation) | written_as
            report["megabytes"] = formats.size_mb(folder)
            report["reference_megabytes"] = sum(weight.nbytes for weight in model.get_weights()) / 1e6
            files.write_json(assets / "parity.json", report)
            files.write_text(assets / "parity.md", parity.as_markdown(report))
    return target


def _check_outputs(model: keras.Model, has_top: bool) -> None:
    """Raises ValueError if weights, or outputs for random pixels, are not finite or, with a top, don't sum to 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:])).astype("float32")
    sums = np.asarray(model.predict_on_batch(pixels), "float32").sum(axis=-1)
    if not all(np.isfinite(each).all() for each in [sums, *model.get_weights()]):  # pooling on a CPU ignores NaN
        raise ValueError("The model's weights or outputs are not finite (NaN or infinity): its training diverged.")
    if has_top and np.abs(sums - 1).max() > 0.01:
        raise ValueError(f"The model's outputs must be probabilities, from a softmax. Received: sums of {sums}")
