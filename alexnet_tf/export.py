"""Exports a trained model as a numbered version: a SavedModel for TF Serving, or another format."""

import pathlib

from absl import flags

from alexnet_tf.serving import formats
from alexnet_tf.tfrecords import program


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
    flags.DEFINE_integer("version", None, "The version; by default the one after the largest there.", lower_bound=1)
    flags.DEFINE_enum("format", "savedmodel", sorted(formats.PRECISIONS), "Format of the model.")
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16", "float16", "int8"],
        "Of the weights; bfloat16, for a SavedModel, and int8, for the other formats: of products too.",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "A data set of the same classes: the export is compared with the trained model on its validation images, and "
        "int8 is calibrated on its training images.",
    )
    flags.DEFINE_integer("num_images", 1000, "Images of --data_dir that are used, at most.", lower_bound=1)
    flags.DEFINE_integer(
        "max_pixels",
        formats.MAX_PIXELS,
        "Pixels that an image sent to the server may have: bounds the memory for decoding it.",
        lower_bound=1,
    )


def main(arguments):
    flag = flags.FLAGS
    formats.check(flag.format, flag.precision, flag.data_dir)
    # Not with the module: --help and wrong flags are answered without TensorFlow.
    from alexnet_tf.model import load_model
    from alexnet_tf.serving import exporter
    from alexnet_tf.weights import pretrained

    model, description = load_model(flag.model)
    run = None if pretrained.published_name(flag.model) else pathlib.Path(flag.model)
    folder = exporter.export_model(
        model,
        description,
        flag.export_dir,
        version=flag.version,
        model_format=flag.format,
        precision=flag.precision,
        max_pixels=flag.max_pixels,
        run=run.parent if run and run.is_file() else run,
        data_dir=flag.data_dir,
        num_images=flag.num_images,
    )
    report = folder / exporter.ASSETS / "parity.md"
    if report.exists():
        print(report.read_text(encoding="utf-8"))
    print(f"Exported: {folder} ({formats.size_mb(folder):,.0f} MB)")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
