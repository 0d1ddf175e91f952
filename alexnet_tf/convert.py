"""Converts weights: other programs' files, and this project's models between merged and split columns."""

import pathlib

from absl import flags, logging

from alexnet_tf import cli
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import schema


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "input",
        None,
        "A .caffemodel (bvlc_alexnet, bvlc_reference_caffenet), a .npy dictionary made from one, a .pth or "
        ".safetensors state dict of torchvision's alexnet, an .onnx graph of one of these, the name of published "
        "weights, or a model of this project: a folder, .keras, .h5 or hf://USER/NAME.",
        required=True,
    )
    flags.DEFINE_string(
        "output_dir", None, "A new folder, like the run folders of alexnet-train, to use or to upload.", required=True
    )
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
    flags.DEFINE_bool(
        "zipped",
        True,
        "Whether the network is one file, model.keras. --nozipped writes the files that "
        'keras.saving.load_model("hf://USER/NAME") reads from the Hugging Face Hub.',
    )
    flags.DEFINE_string("license", None, "License of the weights, for the model card, such as MIT.")
    flags.DEFINE_string(
        "class_names",
        None,
        "A file with a class name per line, or a dataset.json; by default ImageNet's.",
    )


def main(arguments):
    # Imported here, so that --help and mistakes in flags are answered at once.
    from alexnet_tf import model
    from alexnet_tf.networks import layer_table
    from alexnet_tf.serving import model_card
    from alexnet_tf.weights import caffe_files, pretrained, pretrained_files, published, transfer

    flag = flags.FLAGS
    merge = None if flag.columns is None else flag.columns == "merged"
    path = pathlib.Path(flag.input)
    license_name, described, run = flag.license, None, None
    name = pretrained.published_name(flag.input)
    if name or flag.input.startswith("hf://"):
        source, described = model.load_model(flag.input)
        license_name = license_name or (published.PUBLISHED[name].license if name else None)
    elif path.is_dir() or path.suffix in (".keras", ".h5"):
        source = model.open_model(path)
        run = path if path.is_dir() else path.parent
        if (run / schema.DATASET_FILE).exists():
            described = schema.load_description(run)
        elif not path.is_dir():
            run = None
    else:
        source = pretrained_files.read_pretrained(path)
        known = published.identify(path)
        license_name = license_name or (published.PUBLISHED[known[0]].license if known else None)
    if isinstance(source, pretrained_files.PretrainedWeights):
        found, num_classes = source.variant, source.num_classes
    else:
        found, num_classes = model.variant_name(source), source.output_shape[-1]
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
    if flag.mean_image:
        converted.get_layer("mean_image").set_mean_image(caffe_files.read_mean(flag.mean_image))
    description = transfer.describe_data(described, flag.class_names, converted, path)
    name = pathlib.Path(flag.output_dir).name
    measured = None if isinstance(source, pretrained_files.PretrainedWeights) else source
    card = model_card.collect(converted, description, run, name, 1, measured)
    card |= {"format": "keras", "precision": "float32"}
    page = model_card.as_hub_page(card, license_name)
    transfer.save_converted(converted, description, page, flag.output_dir, flag.zipped)
    print(
        f"Converted {path} to {flag.output_dir}: {variant}, {model.count_parameters(converted):,} parameters, "
        f"{num_classes} classes."
    )


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
