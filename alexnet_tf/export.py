"""Exports a trained model as a SavedModel for TF Serving."""

import os
import pathlib
import shutil

import keras
import tensorflow as tf
from absl import app, flags

from alexnet_tf import checkpoint, preprocessing
from alexnet_tf.tfrecords import program


def export_model(model, class_names, image_px, base_dir, version=None):
    """Writes a SavedModel into a numbered folder, which appears whole or not at all.

    Signatures, each for any number of images:
        serving_default: `images`, string (batch,), encoded JPEG, PNG, GIF or BMP files; to the most probable classes,
            five at most, the most probable first: `class_names` string (batch, 5), `class_ids` int32 (batch, 5) and
            `probabilities` float32 (batch, 5).
        predict: `pixels`, float32 (batch, side, side, 3), RGB from 0 to 255; to `probabilities`, float32 (batch,
            classes), in the order of the labels.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        class_names: the names of the classes, in the order of the labels.
        image_px: side to which the shorter side of an encoded image is brought, in pixels.
        base_dir: the model's base path for TF Serving.
        version: the number; None for the one after the largest there.

    Returns: the path of the folder written.

    Raises:
        ValueError: where the names are not as many as the model's classes, or the version exists already.
    """
    classes, crop_px = model.output_shape[-1], model.input_shape[1]
    if len(class_names) != classes:
        raise ValueError(f"`class_names` must name the model's {classes} classes. Received: {len(class_names)} names")
    base_dir = pathlib.Path(base_dir)
    base_dir.mkdir(parents=True, exist_ok=True)
    if version is None:
        version = 1 + max((int(path.name) for path in base_dir.glob("*") if path.name.isdigit()), default=0)
    target = base_dir / str(version)
    if target.exists():
        raise ValueError(f"`version` must not exist yet: a server may be reading it. Received: {target}")

    def classify(images):
        probabilities = model(preprocessing.decode_images(images, image_px, crop_px), training=False)
        best, ids = tf.math.top_k(probabilities, min(5, classes))
        return {"class_names": tf.gather(tf.constant(class_names), ids), "class_ids": ids, "probabilities": best}

    def predict(pixels):
        return {"probabilities": model(pixels, training=False)}

    archive = keras.export.ExportArchive()
    # No `archive.track(model)`: with it every weight is written twice.
    for name, function, spec in (
        ("serving_default", classify, tf.TensorSpec((None,), tf.string, name="images")),
        ("predict", predict, tf.TensorSpec((None, crop_px, crop_px, 3), tf.float32, name="pixels")),
    ):
        archive.add_endpoint(name, tf.function(function, input_signature=[spec], autograph=False))

    # TF Serving takes any child whose name is a number, a half-written one too; a name with a dot it leaves alone.
    temporary = base_dir / f".tmp-{version}"
    shutil.rmtree(temporary, ignore_errors=True)
    archive.write_out(str(temporary), verbose=False)
    for path in [*temporary.rglob("*"), temporary]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    temporary.rename(target)
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


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"This program takes flags only. Received: {argv[1:]}")
    flag = flags.FLAGS
    model, description = checkpoint.load_model(flag.model)
    folder = export_model(model, description.class_names, description.image_px, flag.export_dir, flag.version)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"Exported: {folder} ({megabytes:,.0f} MB)")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
