"""Converts other programs' weights files, and this project's models between merged and split columns.

Examples:

    alexnet-convert --input=bvlc_alexnet.caffemodel --output_dir=models/caffe
    alexnet-convert --input=runs/paper --columns=split --output_dir=models/two_devices
"""

import pathlib

from absl import flags, logging

from alexnet_tf import cli
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import schema


def define_flags():
    """Defines the flags. At import, the flags of two programs would collide."""
    flags.DEFINE_string(
        "input",
        None,
        "Weights to convert: a .caffemodel, a .npy dictionary made from one, a .pth or .safetensors state dict of "
        "torchvision's alexnet, an .onnx graph of one of these, published weights by name "
        "(alexnet-describe --weights lists them), or a model of this "
        "project: a folder, .keras, .h5 or hf://USER/NAME.",
        required=True,
    )
    flags.DEFINE_string("output_dir", None, "New folder for the model, like a run folder.", required=True)
    flags.DEFINE_enum("variant", None, sorted(VARIANTS), "Network to build; by default the one that the input holds.")
    flags.DEFINE_enum(
        "columns",
        None,
        ["split", "merged"],
        "Whether a layer that is connected to every column is one layer per column, for two devices, or a single "
        "layer; by default as in the variant.",
    )
    flags.DEFINE_string(
        "mean_image", None, "Caffe's mean image, .binaryproto or .npy; by default, its mean color is subtracted."
    )
    flags.DEFINE_bool(
        "zipped",
        True,
        "Save the network as one file, model.keras. --nozipped writes the files that "
        'keras.saving.load_model("hf://USER/NAME") reads from the Hugging Face Hub.',
    )
    flags.DEFINE_string("license", None, "License of the weights for the model card, such as MIT.")
    flags.DEFINE_string(
        "class_names", None, "File with a class name per line, or a dataset.json; by default ImageNet's."
    )


def main(arguments):
    # Imported here, so that --help and flag errors do not wait for TensorFlow.
    from alexnet_tf import model
    from alexnet_tf.networks import descriptions, layer_table
    from alexnet_tf.serving import model_card
    from alexnet_tf.weights import caffe_files, pretrained, pretrained_files, published, transfer

    flag = flags.FLAGS
    path = pathlib.Path(flag.input)
    license_name, described, run = flag.license, None, None
    name = pretrained.published_name(flag.input)
    if name or flag.input.startswith("hf://"):
        source = model.load_model(flag.input)
        described = source.description
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
    is_foreign = isinstance(source, pretrained_files.PretrainedWeights)
    if is_foreign:
        found, num_classes = source.variant, source.num_classes
    else:
        found, num_classes = model.variant_name(source), source.output_shape[-1]
    variant = flag.variant or found
    if variant is None:
        raise ValueError(f"{path} does not say which network it is. Give --variant: caffe, caffenet or another.")
    if variant != found in VARIANTS:
        difference = layer_table.describe(variant, found, num_classes)
        logging.warning(
            "%s holds weights of %s: they compute something else in %s.\n%s", path, found, variant, difference
        )
    merge = None if flag.columns is None else flag.columns == "merged"
    converted = model.build_alexnet(variant, num_classes, initializer="zeros", merge_columns=merge)
    try:
        (transfer.load_pretrained if is_foreign else transfer.copy_weights)(source, converted)
    except ValueError as error:
        raise ValueError(f"{path} does not fit --variant={variant}: {error}") from error
    if flag.mean_image:
        converted.get_layer("mean_image").set_mean_image(caffe_files.read_mean(flag.mean_image))
    description = transfer.describe_data(described, flag.class_names, converted, path)
    descriptions.set_description(converted, description)
    name = pathlib.Path(flag.output_dir).name
    card = model_card.collect(converted, description, run, name, 1, None if is_foreign else source)
    page = model_card.as_hub_page(card | {"format": "keras", "precision": "float32"}, license_name)
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
