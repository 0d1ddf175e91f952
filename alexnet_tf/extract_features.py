"""Writes the outputs of layers for image files or a data set: for nearest neighbors, or to train another classifier.

Examples:

    alexnet-features --model=torchvision_features --output=features.csv photos
    alexnet-features --model=runs/photos --data_dir=runs/photos/data --output=features.npz
"""

import pathlib
import sys

from absl import flags

from alexnet_tf import cli
from alexnet_tf.serving import image_requests
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import published


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string("model", None, f"Model with the layers: {cli.MODELS}.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords, instead of image files.")
    flags.DEFINE_string("split", "validation", "Split of --data_dir: train or validation.")
    flags.DEFINE_list(
        "layers",
        None,
        "Layers whose outputs are written, such as relu6,pool5. Default: the last hidden layer before dropout (relu7, "
        "the output of fc7), or the last layer of a network without its top.",
    )
    flags.DEFINE_string(
        "output",
        None,
        "File to write: .npz (for alexnet-neighbours), .csv or .tfrecord. For several layers, one file each, with the "
        "layer's name: a_relu7.npz for a.npz.",
        required=True,
    )
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    output = pathlib.Path(flag.output)
    if output.suffix not in (".npz", ".csv", ".tfrecord"):
        raise ValueError(f"`output` must end in .npz, .csv or .tfrecord. Received: {flag.output}")
    if bool(arguments) == bool(flag.data_dir):
        raise ValueError(f"Give either image files or folders, or --data_dir. Received: {arguments}, {flag.data_dir=}")
    layers = flag.layers or []
    cli.check_unique("layers", layers)
    paths = [output]
    if len(layers) > 1:
        paths = [output.with_stem(f"{output.stem}_{layer}") for layer in layers]
    cli.check_outputs("output", paths, flag.overwrite)
    published.check_model(flag.model)
    description = schema.load_description(flag.data_dir) if flag.data_dir else None
    images = [] if flag.data_dir else image_requests.find_files(arguments)

    # Imported after the checks, because TensorFlow takes seconds to import.
    from alexnet_tf.evaluation import features
    from alexnet_tf.model import load_model
    from alexnet_tf.networks import structure

    model, failed = load_model(flag.model), []
    layers = layers or [structure.last_features(model)]
    if description:
        schema.split_of(description, flag.split)
        extracted = features.extract(model, layers, flag.data_dir, description, flag.split, flag.batch_size)
    else:
        batches = _read_files(images, model, flag.batch_size, failed)
        extracted = features.extract_from_files(model, layers, batches)
    for layer_features, path in zip(extracted, paths, strict=True):
        saves = {
            ".npz": layer_features.save,
            ".csv": layer_features.save_csv,
            ".tfrecord": layer_features.save_tfrecord,
        }
        saves[path.suffix](path)
        count, units = layer_features.vectors.shape
        print(f"{layer_features.layer}: {count:,} vectors of {units:,} numbers. Written: {path}")
    if failed:
        sys.exit(1)


def _read_files(paths, model, batch_size, failed):
    """Yields (paths, images) of image files. Adds unreadable files to `failed`."""
    import numpy as np
    from tqdm import tqdm

    from alexnet_tf import notebook

    names, images = [], []
    for path in tqdm(paths, unit=" images"):
        try:
            images.append(notebook.preprocess(path, model)[0])
        except ValueError as error:
            tqdm.write(cli.printable(f"{path}: not an image that can be read: {error.__cause__}"), file=sys.stderr)
            failed.append(path)
            continue
        names.append(str(path))
        if len(names) == batch_size:
            yield names, np.stack(images)
            names, images = [], []
    if names:
        yield names, np.stack(images)


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "[IMAGE|FOLDER ...]")


if __name__ == "__main__":
    run()
