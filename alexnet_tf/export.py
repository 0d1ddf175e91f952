"""Exports a trained model as a numbered version: a SavedModel for TF Serving, or another format."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf
from absl import flags

from alexnet_tf.model import load_model
from alexnet_tf.serving import formats, model_card, parity, preprocessing, signatures, warm_up
from alexnet_tf.tfrecords import program, schema
from alexnet_tf.training import checkpoints

ASSETS = "assets"  # labels, model card and parity report, where a SavedModel keeps files that go with it


@contextlib.contextmanager
def new_version(base_dir, version=None):
    """A folder to write a version of a model into, which gets its number when it is whole, or never.

    Args:
        base_dir: the model's base path for TF Serving.
        version: the number; None for the one after the largest there.

    Yields: the path of an empty folder, and the path that it will have.

    Raises:
        ValueError: where the version exists already, or another process exports there.
    """
    base_dir = pathlib.Path(base_dir)
    base_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(base_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"Another process exports into `export_dir` {base_dir}. Wait for it.") from error
        except OSError:  # some shared disks know no locks
            pass
        if version is None:
            version = 1 + max((int(path.name) for path in base_dir.glob("*") if path.name.isdigit()), default=0)
        target = base_dir / str(version)
        if target.exists():
            raise ValueError(f"`version` must not exist yet: a server may be reading it. Received: {target}")
        # TF Serving takes any child whose name is a number, a half-written one too; one with a dot it leaves alone.
        temporary = base_dir / f".tmp-{version}"
        shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed: the lock says that none is alive
        temporary.mkdir()
        try:
            yield temporary, target
            for path in [*temporary.rglob("*"), temporary]:
                checkpoints.sync(path)
            temporary.rename(target)
            checkpoints.sync(base_dir)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        os.close(lock)


def write_saved_model(folder, model, class_names, image_px, max_pixels=preprocessing.MAX_PIXELS):
    """Writes a SavedModel with the functions of `signatures.make_signatures`, which has the arguments.

    No weight is in it twice, no optimizer and no name of a device; it needs none of this project's code.
    """
    archive = keras.export.ExportArchive()
    # No `archive.track(model)`: with it every weight is written twice.
    for name, function in signatures.make_signatures(model, class_names, image_px, max_pixels).items():
        archive.add_endpoint(name, function)
    archive.write_out(str(folder), verbose=False)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
    updater.replace_method_name(signatures.CLASSIFY, "tensorflow/serving/classify", "serve")
    updater.save()


def export_model(
    model,
    description,
    base_dir,
    *,
    version=None,
    model_format="savedmodel",
    precision="float32",
    max_pixels=preprocessing.MAX_PIXELS,
    run=None,
    data_dir=None,
    num_images=1000,
):
    """Writes a version of a model: the model itself, and in `assets` what belongs to it.

    `labels.txt` names the classes, one a line; `model_card.json` and `.md` tell where the model comes from;
    `parity.json` and `.md`, of images of a data set, how far it is from the trained model; and
    `tf_serving_warmup_requests` are what TF Serving answers before it takes a new version into use.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        description: `schema.DatasetDescription` of what it learned.
        base_dir, version: as `new_version` takes them.
        model_format, precision: as `formats.check` takes them.
        max_pixels: how many pixels an encoded image may have, for a SavedModel.
        run: None, or the run's folder, for the model card.
        data_dir: None, or a data set of the same classes: its training images calibrate int8, its validation images
            are what parity is measured on.
        num_images: of each at most so many.

    Returns: the path of the folder written.

    Raises:
        ValueError: where the format does not exist in the precision, its packages are not installed, the version
            exists already, or the data set is of other classes.
    """
    formats.check(model_format, precision, data_dir)
    class_names = description.class_names
    measured = schema.load_description(data_dir) if data_dir else None
    if measured and measured.class_names != class_names:
        raise ValueError(
            f"`data_dir` must hold the classes that the model learned, {', '.join(class_names[:3])}, ... "
            f"Received: {data_dir} with {', '.join(measured.class_names[:3])}, ..."
        )
    with new_version(base_dir, version) as (folder, target), tempfile.TemporaryDirectory() as reference:
        if model_format == "savedmodel":
            write_saved_model(folder, model, class_names, description.image_px, max_pixels)
        else:
            calibration = parity.read_images(data_dir, measured, "train", model, num_images) if measured else None
            formats.write(folder, model, model_format, precision, calibration)
        assets = folder / ASSETS
        assets.mkdir(exist_ok=True)
        (assets / "labels.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        card = model_card.collect(model, description, run, target.parent.name, int(target.name))
        model_card.write(assets, card | {"format": model_format, "precision": precision})
        if model_format == "savedmodel" and not warm_up.write(folder, target.parent.name, model.input_shape[1]):
            print("No warm-up requests are written: they need `pip install alexnet-tf[serving]`.")
        if measured:
            if model_format == "savedmodel":
                baseline, name = model.predict_on_batch, "the trained model in Keras"
                reference_megabytes = sum(weight.nbytes for weight in model.get_weights()) / 1e6
            else:
                write_saved_model(reference, model, class_names, description.image_px)
                baseline, name = formats.open_predictor(reference), "the float32 SavedModel"
                reference_megabytes = formats.size(reference)
            images = parity.read_images(data_dir, measured, "validation", model, num_images)
            report = parity.measure(formats.open_predictor(folder), baseline, *images)
            sizes = {"megabytes": formats.size(folder), "reference_megabytes": reference_megabytes}
            parity.write(assets, report | sizes | {"format": model_format, "precision": precision, "reference": name})
    return target


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file in one.", required=True
    )
    flags.DEFINE_string(
        "export_dir",
        None,
        "TF Serving's base path of the model: the export becomes a numbered folder in it.",
        required=True,
    )
    flags.DEFINE_integer("version", None, "The number; by default the one after the largest there.", lower_bound=1)
    flags.DEFINE_enum("format", "savedmodel", sorted(formats.PRECISIONS), "What is written.")
    flags.DEFINE_enum("precision", "float32", ["float32", "float16", "int8"], "Of the weights; int8: of all products.")
    flags.DEFINE_string(
        "data_dir",
        None,
        "A data set of the same classes: on its validation images the export is compared with the trained model, on "
        "its training images int8 is calibrated.",
    )
    flags.DEFINE_integer("num_images", 1000, "How many images of --data_dir are used at most.", lower_bound=1)
    flags.DEFINE_integer(
        "max_pixels",
        preprocessing.MAX_PIXELS,
        "How many pixels an image sent to the server may have: what bounds the memory that decoding takes.",
        lower_bound=1,
    )


def main(arguments):
    flag = flags.FLAGS
    formats.check(flag.format, flag.precision, flag.data_dir)
    model, description = load_model(flag.model)
    run = pathlib.Path(flag.model)
    folder = export_model(
        model,
        description,
        flag.export_dir,
        version=flag.version,
        model_format=flag.format,
        precision=flag.precision,
        max_pixels=flag.max_pixels,
        run=run if run.is_dir() else run.parent,
        data_dir=flag.data_dir,
        num_images=flag.num_images,
    )
    report = folder / ASSETS / "parity.md"
    if report.exists():
        print(report.read_text(encoding="utf-8"))
    print(f"Exported: {folder} ({formats.size(folder):,.0f} MB)")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
