"""Writes the outputs of layers for each image of a split: for nearest neighbors, or to train another classifier."""

import pathlib

from absl import flags

from alexnet_tf import cli
from alexnet_tf.evaluation import files


def define_flags():
    """Defines the flags. Not at import, so that two programs can be imported together."""
    flags.DEFINE_string(
        "model", None, "Folder of a run (the --run_dir of alexnet-train), or a .keras file.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("split", "validation", "train or validation.")
    flags.DEFINE_list(
        "layers",
        ["relu7"],
        "Layers whose outputs are written. relu7 is fc7 before dropout, the input of the classifier; relu6 is fc6.",
    )
    flags.DEFINE_string(
        "output",
        None,
        "File to write: .npz, which alexnet-neighbours reads, or .tfrecord. For several layers, one file each, with "
        "the layer's name: a_relu7.npz for a.npz.",
        required=True,
    )
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    output = pathlib.Path(flag.output)
    if output.suffix not in (".npz", ".tfrecord"):
        raise ValueError(f"`output` must end in .npz or .tfrecord. Received: {flag.output}")
    files.check_unique("layers", flag.layers)
    paths = [output]
    if len(flag.layers) > 1:
        paths = [output.with_stem(f"{output.stem}_{layer}") for layer in flag.layers]
    cli.check_outputs("output", paths, flag.overwrite)

    # Imported after the checks, because TensorFlow takes seconds to import.
    from alexnet_tf.evaluation import features
    from alexnet_tf.model import load_model
    from alexnet_tf.tfrecords import schema

    model = load_model(flag.model)
    description = schema.load_description(flag.data_dir)
    schema.split_of(description, flag.split)
    extracted = features.extract(model, flag.layers, flag.data_dir, description, flag.split, flag.batch_size)
    for layer_features, path in zip(extracted, paths, strict=True):
        save = layer_features.save if path.suffix == ".npz" else layer_features.save_tfrecord
        save(path)
        count, units = layer_features.vectors.shape
        print(f"{layer_features.layer}: {count:,} vectors of {units:,} numbers. Written: {path}")


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
