"""Converts other programs' weights files, and this project's models between merged and split columns.

Examples:

    alexnet-convert --input=bvlc_alexnet.caffemodel --output_dir=models/caffe
    alexnet-convert --input=runs/paper --columns=split --output_dir=models/two_devices
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from absl import flags, logging

from alexnet_tf import cli, files
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import published


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
    flag = flags.FLAGS
    output_dir = pathlib.Path(flag.output_dir)
    if output_dir.exists() or output_dir.is_symlink():
        raise ValueError(f"`output_dir` must not exist yet. Received: {flag.output_dir}")

    published.check_model(flag.input)
    # Imported here, so that --help and flag errors do not wait for TensorFlow.
    from alexnet_tf import model
    from alexnet_tf.networks import descriptions, layer_table
    from alexnet_tf.serving import model_card
    from alexnet_tf.weights import caffe_files, pretrained, pretrained_files, transfer

    path, run, described = pathlib.Path(flag.input), None, None
    name = pretrained.published_name(flag.input)
    is_foreign = not (name or flag.input.startswith("hf://") or path.is_dir() or path.suffix in (".keras", ".h5"))
    if is_foreign:
        source, name = pretrained_files.read_pretrained(path), published.identify(path)
        found, num_classes = source.variant, source.num_classes
    else:
        source = model.load_model(flag.input)
        described, folder = source.description, path if path.is_dir() else path.parent
        run = folder if not name and (path.is_dir() or (folder / schema.DATASET_FILE).exists()) else None
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
    description = _describe_data(described, flag.class_names, converted, path)
    descriptions.set_description(converted, description)
    card = model_card.collect(converted, description, run, output_dir.name, 1, None if is_foreign else source)
    license_name = flag.license or (published.PUBLISHED[name].license if name else None)
    page = model_card.as_hub_page(card | {"format": "keras", "precision": "float32"}, license_name)
    _save(converted, description, page, output_dir, flag.zipped)
    print(
        f"Converted {path} to {flag.output_dir}: {variant}, {model.count_parameters(converted):,} parameters, "
        f"{num_classes} classes."
    )


def _describe_data(known, names_file, converted, path):
    """The description of the data of a converted network: `known`, or that of another program's file."""
    from alexnet_tf.networks import descriptions  # imports Keras

    classes = converted.output_shape[-1]
    if known and not names_file:
        return known
    names = read_class_names(names_file, classes)
    if known:
        return dataclasses.replace(known, class_names=tuple(names))
    resize = "warp" if path.suffix in (".caffemodel", ".npy") else "crop"  # as Caffe resizes images
    image_px = max(256, converted.input_shape[1])  # section 2
    return descriptions.make_description(names, image_px, f"converted from {path.name}", resize)


def _save(converted, description, card, output_dir, zipped):
    """Writes the network, dataset.json and README.md. An interrupted call leaves no folder."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".tmp-{output_dir.name}-", dir=output_dir.parent))
    try:
        if zipped:
            converted.save(temporary / "model.keras")
        else:
            converted.save(temporary, zipped=False)
        description.save(temporary)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        temporary.chmod(0o755)
        files.publish(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_class_names(path: str | pathlib.Path | None, num_classes: int) -> Sequence[str]:
    """Reads class names.

    Args:
        path: a file with a name per line, or a dataset.json; None for ImageNet's, such as "n01440764 tench, Tinca
            tinca", sorted by their ids: the order of Caffe's and torchvision's labels.
        num_classes: the expected number of names.

    Raises:
        ValueError: if there are more or fewer names than classes, a name is empty or occurs twice, or the file has
            another format.
    """
    if path is None:
        from alexnet_tf.tfrecords import ilsvrc  # imports NumPy

        if num_classes != 1000:
            raise ValueError(
                f"`class_names` must be given: only ImageNet's 1000 are known. Received: {num_classes} classes"
            )
        return [f"{class_id} {words}" for class_id, words in ilsvrc.read_classes().items()]
    content = pathlib.Path(path).read_bytes()
    if str(path).endswith(".json"):
        try:
            content = "\n".join(json.loads(content)["class_names"]).encode()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"`class_names` must be a dataset.json or a text file. {path}: {error!r}") from error
    names = schema.parse_class_names(content, path)
    if len(names) != num_classes:
        raise ValueError(f"`class_names` must name the {num_classes} classes. Received: {len(names)} names in {path}")
    return names


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
