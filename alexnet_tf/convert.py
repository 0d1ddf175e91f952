"""Converts weights: other programs' files, and this project's models between merged and split columns."""

import pathlib

from absl import flags, logging

from alexnet_tf.tfrecords import program, schema
from alexnet_tf.variants import VARIANTS


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "input",
        None,
        "A .caffemodel (bvlc_alexnet, bvlc_reference_caffenet), a .npy dictionary made from one, a .pth or "
        ".safetensors state dict of torchvision's alexnet, an .onnx graph of one of these, or a model of this "
        "project: a folder, .keras or .h5.",
        required=True,
    )
    flags.DEFINE_string("output_dir", None, "A new folder, like the run folders of alexnet-train.", required=True)
    flags.DEFINE_enum(
        "variant",
        None,
        sorted(VARIANTS),
        "The network to make; by default the one in the file, from the kind of file and the order of its layers.",
    )
    flags.DEFINE_enum(
        "columns",
        None,
        ["split", "merged"],
        "Whether layers that are connected to every column are one per column, as on two devices, or one for all; by "
        "default as in the variant.",
    )
    flags.DEFINE_string(
        "mean_image", None, "Caffe's mean image, .binaryproto or .npy; without it, its mean color is subtracted."
    )
    flags.DEFINE_string(
        "class_names",
        None,
        "A file with a class name per line, or a dataset.json; by default ImageNet's.",
    )


def main(arguments):
    # Imported here, so that --help and mistakes in flags are answered at once.
    from alexnet_tf import model
    from alexnet_tf.visualization import layer_table
    from alexnet_tf.weights import caffe_files, pretrained_files, transfer

    flag = flags.FLAGS
    merge = None if flag.columns is None else flag.columns == "merged"
    path = pathlib.Path(flag.input)
    if path.is_dir() or path.suffix in (".keras", ".h5"):
        source = model.open_model(path)
        found = model.variant_name(source)
        num_classes = source.output_shape[-1]
        described = (path if path.is_dir() else path.parent) / schema.DATASET_FILE
        names_file = flag.class_names or (described if described.exists() else None)
    else:
        source = pretrained_files.read_pretrained(path)
        found = source.variant
        num_classes = source.num_classes
        names_file = flag.class_names
    variant = flag.variant or found
    if variant is None:
        raise ValueError(f"{path} does not say which network it is. Give --variant: caffe, caffenet or another.")
    if variant != found in VARIANTS:
        difference = layer_table.describe(variant, found, num_classes)
        logging.warning(
            "%s holds weights of %s: in %s they compute something else.\n%s", path, found, variant, difference
        )
    converted = model.build_alexnet(variant, num_classes, initializer="zeros", merge_columns=merge)
    try:
        if isinstance(source, pretrained_files.PretrainedWeights):
            transfer.load_pretrained(source, converted)
        else:
            transfer.copy_weights(source, converted)
    except ValueError as error:
        raise ValueError(f"{path} does not fit --variant={variant}: {error}") from error
    class_names = transfer.read_class_names(names_file, num_classes)
    if flag.mean_image:
        converted.get_layer("mean_image").set_mean_image(caffe_files.read_mean(flag.mean_image))
    transfer.save_converted(converted, class_names, path.name, flag.output_dir)
    print(
        f"Converted {path} to {flag.output_dir}: {variant}, {model.count_parameters(converted):,} parameters, "
        f"{num_classes} classes."
    )


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
