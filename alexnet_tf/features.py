"""Writes the outputs of layers for each image of a split: for nearest neighbors, or for another classifier."""

import pathlib

from absl import flags

from alexnet_tf import cli


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("split", "validation", "Which images: train or validation.")
    flags.DEFINE_list(
        "layers",
        ["relu7"],
        "Whose outputs: relu7 is fc7 as the classifier sees it, before dropout's factor; relu6 fc6.",
    )
    flags.DEFINE_alias("layer", "layers")
    flags.DEFINE_string(
        "output",
        None,
        "File to write: .npz, which alexnet-neighbours reads, or .tfrecord. Of several layers each has a file, a.npz "
        "with the layer's name in it: a_relu7.npz.",
        required=True,
    )
    flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    output = pathlib.Path(flag.output)
    if output.suffix not in (".npz", ".tfrecord"):
        raise ValueError(f"`output` must end in .npz or .tfrecord. Received: {flag.output}")
    paths = [output]
    if len(flag.layers) > 1:
        paths = [output.with_stem(f"{output.stem}_{layer}") for layer in flag.layers]
    cli.check_outputs("output", paths, flag.overwrite)

    # Not with the module: TensorFlow takes seconds to import, which --help and mistakes in flags need not wait for.
    from alexnet_tf.evaluation import features
    from alexnet_tf.model import load_model
    from alexnet_tf.tfrecords import schema

    model, _ = load_model(flag.model)
    description = schema.load_description(flag.data_dir)
    schema.split_of(description, flag.split)
    extracted = features.extract(model, flag.layers, flag.data_dir, description, flag.split, flag.batch_size)
    for of_layer, path in zip(extracted, paths, strict=True):
        (of_layer.save if path.suffix == ".npz" else of_layer.save_tfrecord)(path)
        count, units = of_layer.vectors.shape
        print(f"{of_layer.layer}: {count:,} vectors of {units:,} numbers. Written: {path}")


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
