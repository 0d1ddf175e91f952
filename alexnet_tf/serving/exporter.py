"""Exports of a trained model: numbered versions, each complete or not there."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from alexnet_tf.files import sync
from alexnet_tf.networks import precision as precisions
from alexnet_tf.serving import conversion, formats, model_card, parity, signatures, warm_up, web_page
from alexnet_tf.tfrecords import schema

ASSETS = "assets"  # labels, model card and parity report, where a SavedModel keeps files that go with it


@contextlib.contextmanager
def new_version(
    base_dir: str | pathlib.Path, version: int | None = None
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A folder to write a version of a model into, which gets its number once it is complete, or never.

    Args:
        base_dir: the model's base path for TF Serving.
        version: the number; None for the one after the largest there.

    Yields: the path of an empty folder, and the path that it will have.

    Raises:
        ValueError: if the version exists already, or another process exports there.
    """
    base_dir = pathlib.Path(base_dir)
    base_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(base_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Another process exports into `export_dir` {base_dir}. Wait for it.") from error
        except OSError:  # some shared disks have no locks
            pass
        if version is None:
            version = 1 + max((int(path.name) for path in base_dir.glob("*") if path.name.isdigit()), default=0)
        target = base_dir / str(version)
        if target.exists():
            raise ValueError(f"`version` must not exist yet: a server may be reading it. Received: {target}")
        # TF Serving takes any child whose name is a number, half-written or not; it ignores a name with a dot.
        temporary = base_dir / f".tmp-{version}"
        shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed: the lock shows that none runs
        temporary.mkdir()
        try:
            yield temporary, target
            for path in [*temporary.rglob("*"), temporary]:
                sync(path)
            temporary.rename(target)
            sync(base_dir)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        os.close(lock)


def write_saved_model(
    folder: str | pathlib.Path,
    model: keras.Model,
    class_names: Sequence[str],
    image_px: int,
    max_pixels: int = formats.MAX_PIXELS,
    exif_orientation: bool | None = True,
    resize: str = "crop",
) -> None:
    """Writes a SavedModel with the functions of `signatures.make_signatures`, which has the same arguments.

    It holds each weight once, no optimizer and no device names, and needs none of this project's code.
    """
    archive = keras.export.ExportArchive()
    # No `archive.track(model)`, which would write every weight twice.
    for name, function in signatures.make_signatures(
        model, class_names, image_px, max_pixels, exif_orientation, resize
    ).items():
        archive.add_endpoint(name, function)
    archive.write_out(str(folder), verbose=False)  # pyright: ignore[reportAttributeAccessIssue] # by backend
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
    updater.replace_method_name(signatures.CLASSIFY, "tensorflow/serving/classify", "serve")
    updater.save()


def export_model(
    model: keras.Model,
    description: schema.DatasetDescription,
    base_dir: str | pathlib.Path,
    *,
    version: int | None = None,
    model_format: str = "savedmodel",
    precision: str = "float32",
    max_pixels: int = formats.MAX_PIXELS,
    run: pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    num_images: int = 1000,
    runtime: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes a version of a model: the model itself, and in `assets` the files that go with it.

    `labels.txt` names the classes, one a line; `model_card.json` and `.md` describe the model and its origin;
    `parity.json` and `.md`, given a data set, measure how far it is from the trained model; and TF Serving runs
    `tf_serving_warmup_requests` before it serves a new version.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        description: of the data that it was trained on.
        base_dir, version: see `new_version`.
        model_format, precision: see `formats.check`.
        max_pixels: pixels that an encoded image may have, for a SavedModel.
        run: None, or the run's folder, for the model card.
        data_dir: None, or a data set of the same classes: its training images calibrate int8, and parity is measured
            on its validation images.
        num_images: how many of either are used, at most.
        runtime: of a page, see `web_page.write`, which shows images of the data set as well.

    Returns: the path of the folder written.

    Raises:
        ValueError: if the format does not exist in the precision, its packages are not installed, the version exists
            already, or the data set has other classes.
    """
    formats.check(model_format, precision, data_dir)
    class_names = description.class_names
    measured = schema.load_description(data_dir) if data_dir else None
    if measured and measured.class_names != class_names:
        raise ValueError(
            f"`data_dir` must hold the classes that the model learned, {', '.join(class_names[:3])}, ... "
            f"Received: {data_dir} with {', '.join(measured.class_names[:3])}, ..."
        )
    model = precisions.in_float32(model)  # which it was trained in or not: it runs on any machine
    with new_version(base_dir, version) as (folder, target):
        if model_format == "savedmodel":
            decoding = (description.image_px, max_pixels, description.exif_orientation, description.resize)
            written = precisions.stored_in_bfloat16(model) if precision == "bfloat16" else model
            write_saved_model(folder, written, class_names, *decoding)
            if not warm_up.write(folder, target.parent.name, model.input_shape[1]):
                print("No warm-up requests are written: they need `pip install alexnet-tf[serving]`.")
        elif model_format == "web":
            web_page.write(folder, model, description, precision, runtime, data_dir, num_images)
        else:
            images = None
            if data_dir and measured:
                images, _ = parity.read_images(data_dir, measured, "train", model, num_images)
            conversion.write(folder, model, model_format, precision, images)
        assets = folder / ASSETS
        assets.mkdir(exist_ok=True)
        (assets / "labels.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        card = model_card.collect(model, description, run, target.parent.name, int(target.name))
        model_card.write(assets, card | {"format": model_format, "precision": precision})
        if data_dir and measured:
            images, labels = parity.read_images(data_dir, measured, "validation", model, num_images)
            report = _measure_parity(folder, model, description, (model_format, precision), images, labels)
            parity.write(assets, report | {"format": model_format, "precision": precision})
    return target


def _measure_parity(folder: pathlib.Path, model, description, written: tuple[str, str], images, labels) -> dict:
    """Compares the float32 SavedModel with the model in Keras, and others with that SavedModel."""
    if written == ("savedmodel", "float32"):
        report = parity.measure(formats.open_predictor(folder), model.predict_on_batch, images, labels)
        name, reference_mb = "the trained model in Keras", sum(weight.nbytes for weight in model.get_weights()) / 1e6
    else:
        with tempfile.TemporaryDirectory() as reference:
            write_saved_model(reference, model, description.class_names, description.image_px)
            baseline = formats.open_predictor(reference)
            report = parity.measure(formats.open_predictor(folder), baseline, images, labels)
            name, reference_mb = "the float32 SavedModel", formats.size_mb(reference)
    return report | {"megabytes": formats.size_mb(folder), "reference_megabytes": reference_mb, "reference": name}
