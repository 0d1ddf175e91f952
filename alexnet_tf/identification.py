"""Tells which AlexNet a file or folder holds, how it differs from the paper's, and how to use it."""

import pathlib
import shlex
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from alexnet_tf import layers, model
from alexnet_tf.networks import layer_table, rows, structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import ilsvrc, schema
from alexnet_tf.weights import pretrained_files, published


def describe_file(path: str | pathlib.Path) -> str:
    """Describes the network that a file or folder holds. No code in it is run.

    Args:
        path: a file that `pretrained_files.read_pretrained` reads; or a .keras or .h5 file of this project, a run's
            folder, or one of its checkpoints.

    Returns: which AlexNet it is, its classes, its preprocessing, the errors if it is a published file, how to use it,
    and how it differs from the paper's.

    Raises:
        ValueError: if it can't be read, or holds no network of the table of variants.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"File or folder not found: {path}")
    if path.name.endswith(".weights.h5"):
        raise ValueError(f"{path} holds weights without their network. build_alexnet(VARIANT, weights={path}) reads it")
    if path.is_dir() or path.suffix in (".keras", ".h5"):
        return _describe_model(path)
    if path.suffix in pretrained_files.READERS:
        return _describe_pretrained(path)
    extensions = ", ".join((*pretrained_files.READERS, ".keras", ".h5"))
    raise ValueError(f"The name of a weights file must end in one of {extensions}. Received: {path}")


def _describe_pretrained(path: pathlib.Path) -> str:
    """Describes another program's file."""
    network = pretrained_files.read_pretrained(path)
    shapes = {name: kernel.shape for name, (kernel, _) in network.weights.items()}
    variants = pretrained_files.fitting_variants(shapes)
    if not variants:
        raise pretrained_files.no_variant_error(path, shapes)
    if network.variant in variants:
        variants = [network.variant]
    is_caffe = network.mean_color == pretrained_files.CAFFE_MEAN_COLOR
    arithmetic = f"subtracts the mean color {_numbers(network.mean_color)}"
    if set(network.input_scale) != {1}:
        arithmetic += f" and divides by {_numbers(1 / np.array(network.input_scale))}"
    colors = "blue, green, red" if is_caffe else "red, green, blue"
    facts = [
        f"Preprocessing: RGB pixels from 0 to 255; the first layer {arithmetic}. (In the file, conv1 takes {colors}.)"
    ]
    weights, flags = f'"{path}"', "" if len(variants) == 1 else f" --variant={'|'.join(variants)}"
    if is_caffe:
        facts.append("Caffe's networks were trained with a mean image: alexnet-convert takes it by --mean_image.")
        flags += " --mean_image=ilsvrc_2012_mean.npy"
    if name := published.identify(path):
        row, weights = published.PUBLISHED[name], f'"{name}"'
        errors = f"Errors, center crop: top-1 {row.top1_error}%, top-5 {row.top5_error}%, on images resized with "
        errors += f"{published.RESIZED[row.resize]}; source: {row.source}."
        facts = [
            f"Its checksum is that of the published file {name!r}. {errors if row.include_top else ''}".strip(),
            f"License: {row.license}. To cite: {row.citation}.",
            *facts,
            f"Copied to {row.file.path}, it is found by its name, {name}, without a download.",
        ]
    classes = network.num_classes if "fc8" in network.weights else 0
    variant = f'"{variants[0]}"' if len(variants) == 1 else "VARIANT"
    number = "" if classes in (0, 1000) else f", {classes}"
    top = "" if classes else ", include_top=False"
    commands = ["import alexnet_tf", f"model = alexnet_tf.build_alexnet({variant}{number}, weights={weights}{top})"]
    names = ""
    if classes == 1000:
        first = [f"{class_id} {words.split(',')[0]}" for class_id, words in ilsvrc.read_classes().items()]
        names = f", assumed to be ImageNet's: {_first(first)}"
    elif classes:
        flags += " --class_names=FILE_WITH_A_NAME_PER_LINE"
    if classes:
        commands += [
            "",
            f"alexnet-convert --input={shlex.quote(str(path))}{flags} --output_dir=converted",
            "alexnet-predict --model=converted IMAGE.jpg",
        ]
    return _format(path, variants, classes, names, facts, commands)


def _describe_model(path: pathlib.Path) -> str:
    """Describes a network of this project."""
    opened = model.open_model(path)
    side, classifier = opened.input_shape[1], structure.classifier(opened)
    classes = 0 if classifier is None else structure.output_shape(classifier)[-1]
    variants = [name for name, row in VARIANTS.items() if _is_variant(opened, row.replace(image_px=side), classes)]
    if not variants:
        kernels = [layer for layer in structure.network_layers(opened) if structure.has_kernel(layer)]
        shapes = {layer.name: structure.merged_weights(layer)["kernel"].shape for layer in kernels}
        raise pretrained_files.no_variant_error(path, shapes)
    if model.variant_name(opened) in variants:
        variants = [model.variant_name(opened)]
    facts = [
        f"Preprocessing: RGB pixels from 0 to 255 of a center crop of {side} x {side}; the first layer does the rest."
    ]
    folder = path if path.is_dir() else path.parent
    if (folder / schema.DATASET_FILE).exists():
        data = schema.load_description(folder)
        facts.append(f"Trained on {data.settings.get('source')}, {data.image_px} pixels: {_first(data.class_names)}")
    else:
        facts.append(f"No {schema.DATASET_FILE} found next to it: its classes have no names.")
    commands = ["import alexnet_tf", f'model = alexnet_tf.load_model("{path}")']
    if classes:
        commands += ["", f"alexnet-predict --model={shlex.quote(str(path))} IMAGE.jpg"]
    return _format(path, variants, classes, "", facts, commands)


def _is_variant(network: keras.Model, row: rows.Variant, num_classes: int) -> bool:
    """Whether a network has the layers of a variant from the first on, and no others with columns."""

    def norm_settings(each):
        return each.k, each.n, each.alpha, each.beta, each.alpha_divided_by_n

    found = structure.network_layers(network)
    expected = [(shape.name, shape.output_shape) for shape in rows.trace(row, num_classes)]
    outputs = [(layer.name, structure.output_shape(layer)) for layer in found]
    common = [each for each in outputs if each in expected]  # without the pooling or classifier of a user's own
    columns = {layer.name for layer in found if isinstance(layer, layers.ColumnLayer)}
    norms = [each for each in map(structure.column_layer, found) if isinstance(each, layers.LocalResponseNormalization)]
    return (
        common == expected[: len(common)]
        and columns <= dict(common).keys()
        and [*map(norm_settings, norms)] == [*map(norm_settings, row.select(rows.LRN))]
    )


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in values) + ")"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _format(
    path: pathlib.Path,
    variants: Sequence[str],
    num_classes: int,
    class_names: str,
    facts: Sequence[str],
    commands: Sequence[str],
) -> str:
    """Formats the text about a file. `num_classes` is 0 for a network without its classifier."""
    if len(variants) == 1:
        (variant,) = variants
        lines = [f"{path}: variant {variant}, {VARIANTS[variant].title}."]
        differences = layer_table.describe(variant, "paper", num_classes or 1000)
    else:
        lines = [f"{path}: an AlexNet. Its layers fit several variants:"]
        lines += [f"  {name}: {VARIANTS[name].title}" for name in variants]
        differences = "alexnet-describe --variant=VARIANT --against=paper shows how each differs from the paper's.\n"
    lines.append(f"{num_classes:,} classes{class_names}." if num_classes else "Without its fully-connected layers.")
    lines += [*facts, "", *(f"    {command}".rstrip() for command in commands), ""]
    return "\n".join(lines) + "\n" + differences
