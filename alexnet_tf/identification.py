"""Tells which AlexNet a file or folder holds, how it differs from the paper's, and how to use it."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence

import h5py
import keras
import numpy as np

from alexnet_tf import layers, model
from alexnet_tf.networks import layer_table, rows, structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import ilsvrc, schema
from alexnet_tf.weights import caffe_files, pretrained_files, published
from alexnet_tf.weights.downloads import File


@dataclasses.dataclass(frozen=True)
class _Description:
    """What a file holds.

    Attributes:
        variants: those that it may be.
        num_classes: units of its classifier; 0 without one.
        facts: sentences about it.
        commands: lines of code that use it.
    """

    variants: Sequence[str]
    num_classes: int
    facts: Sequence[str]
    commands: Sequence[str]


def describe_file(path: str | pathlib.Path) -> str:
    """Describes what a file or folder holds. No code in it is run.

    Args:
        path: a file that `pretrained_files.read_pretrained` reads; a .keras, .h5 or .weights.h5 file of this project; a
            run's folder, one of its checkpoints, or an export; or Caffe's mean image.

    Returns: which AlexNet it is, its classes, its preprocessing, the errors if it is a published file, how to use it,
    and how it differs from the paper's.

    Raises:
        ValueError: if it can't be read, or holds no network of the table of variants.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"File or folder not found: {path}")
    known = published.identify(path) if path.is_file() else None
    if known and known[1] == published.PUBLISHED[known[0]].mean_image:
        return _describe_mean_image(path, known[1])
    if path.is_dir() and (cards := sorted(path.glob("**/model_card.json"), key=lambda card: card.stat().st_mtime)):
        description = _describe_export(path, cards[-1])
    elif path.name.endswith(".weights.h5"):
        description = _describe_weights_h5(path)
    elif path.is_dir() or path.suffix in (".keras", ".h5"):
        description = _describe_model(path)
    elif path.suffix in pretrained_files.READERS:
        description = _describe_pretrained(path, known)
    else:
        extensions = ", ".join((*pretrained_files.READERS, ".keras", ".h5"))
        raise ValueError(f"The name of a weights file must end in one of {extensions}. Received: {path}")
    return _format(path, description)


def _describe_pretrained(path: pathlib.Path, known: tuple[str, File] | None) -> _Description:
    """Describes another program's file; `known` is what `published.identify` says of it."""
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
    if known:
        name, row = known[0], published.PUBLISHED[known[0]]
        weights = f'"{name}"'
        errors = f"Errors, center crop: top-1 {row.top1_error}%, top-5 {row.top5_error}%, on images resized with "
        errors += f"{published.RESIZED[row.resize]}; source: {row.source}."
        facts = [
            f"Its checksum is that of the published file {name!r}. {errors if row.include_top else ''}".strip(),
            f"License: {row.license}. To cite: {row.citation}.",
            *facts,
            f"Copied to {row.file.path}, it is found by its name, {name}, without a download.",
        ]
    classes = network.num_classes if "fc8" in network.weights else 0
    if not classes:
        return _Description(variants, 0, facts, _build_lines(variants, 0, weights))
    flags += "" if classes == 1000 else " --class_names=FILE_WITH_A_NAME_PER_LINE"
    commands = [
        *_build_lines(variants, classes, weights),
        "",
        f"alexnet-convert --input={shlex.quote(str(path))}{flags} --output_dir=converted",
        "alexnet-predict --model=converted IMAGE.jpg",
    ]
    return _Description(variants, classes, facts, commands)


def _describe_model(path: pathlib.Path) -> _Description:
    """Describes a network of this project, as Keras saves it."""
    opened = model.open_model(path)
    side, classifier = opened.input_shape[1], structure.classifier(opened)
    num_classes = 0 if classifier is None else structure.output_shape(classifier)[-1]
    variants = [name for name, row in VARIANTS.items() if _is_variant(opened, row.replace(image_px=side), num_classes)]
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
        names = _first(data.class_names)
        facts.append(f"Trained on {data.settings.get('source')}, {data.image_px} pixels: {names}")
    else:
        facts.append(f"No {schema.DATASET_FILE} found next to it: its classes have no names.")
    commands = ["import alexnet_tf", f'model = alexnet_tf.load_model("{path}")']
    if num_classes:
        commands += ["", f"alexnet-predict --model={shlex.quote(str(path))} IMAGE.jpg"]
    return _Description(variants, num_classes, facts, commands)


def _is_variant(network: keras.Model, row: rows.Variant, num_classes: int) -> bool:
    """Whether a network has the layers of a variant from the first on, and no others with columns."""

    def norm_settings(each):
        return each.k, each.n, each.alpha, each.beta, each.alpha_divided_by_n

    found = structure.network_layers(network)
    expected = [(shape.name, shape.output_shape) for shape in rows.trace(row, num_classes)]
    outputs = [(layer.name, structure.output_shape(layer)) for layer in found]
    common = [each for each in outputs if each in expected]  # without the pooling or classifier of a user's own
    columns = {layer.name for layer in found if isinstance(layer, layers.ColumnLayer)}
    inner = [layer.layer if isinstance(layer, layers.ColumnWise) else layer for layer in found]
    norms = [norm_settings(layer) for layer in inner if isinstance(layer, layers.LocalResponseNormalization)]
    return (
        common == expected[: len(common)]
        and columns <= dict(common).keys()
        and norms == [norm_settings(each) for each in row.select(rows.LRN)]
    )


def _describe_weights_h5(path: pathlib.Path) -> _Description:
    """Describes weights that Keras saved without their network."""
    shapes: dict[str, tuple[int, ...]] = {}
    names, side = set(), 0
    try:
        with h5py.File(path) as file:
            for group in file["layers"].values():
                name = str(group["vars"].attrs["name"])
                arrays = [variable.shape for variable in group["vars"].values()]
                kernels = [shape for shape in arrays if len(shape) in (2, 4)]
                names.add(name)
                if name == "mean_image":
                    side = arrays[0][0]
                elif kernels:
                    shapes[name] = (*kernels[0][:-1], sum(shape[-1] for shape in kernels))
    except Exception as error:  # a damaged file raises one of half a dozen classes
        raise ValueError(f"{path} is not a .weights.h5 file from Keras: {error}") from error
    num_classes = _num_classes(shapes)
    variants = [
        name
        for name in pretrained_files.fitting_variants(shapes)
        if {row.name for row in VARIANTS[name].layers if num_classes or row.name in names} <= names
        and VARIANTS[name].image_px == side
    ]
    if not variants:
        raise pretrained_files.no_variant_error(path, shapes)
    facts = ["Weights and mean image of a network of this project, without the names of its classes."]
    return _Description(variants, num_classes, facts, _build_lines(variants, num_classes, f'"{path}"'))


def _describe_export(path: pathlib.Path, file: pathlib.Path) -> _Description:
    """Describes an export by its model card."""
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        network, data = card["network"], card["data"]
        facts = [f"An export from alexnet-export: {card['format']} in {card['precision']}, version {card['version']}."]
        facts += [f"Preprocessing: {data['preprocessing']}.", f"Trained on {data['source']}."]
        facts.append(f"The complete card: {file.with_suffix('.md')}")
        variants, num_classes = [network["variant"]], int(data["classes"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not a model card from alexnet-export: {error!r}") from error
    if variants[0] not in VARIANTS:
        raise ValueError(f"{path} holds no network of alexnet-describe's list. Received: {variants[0]}")
    command = f"alexnet-predict --model={shlex.quote(str(file.parents[1]))} IMAGE.jpg"
    return _Description(variants, num_classes, facts, [command])


def _describe_mean_image(path: pathlib.Path, file: File) -> str:
    mean = caffe_files.read_mean(path)
    names = [name for name, row in published.PUBLISHED.items() if row.mean_image == file]
    return (
        f"{path}: the mean image of ILSVRC2012 that Caffe computed, {mean.shape[0]} x {mean.shape[1]} pixels, "
        f"mean color {_numbers(mean.mean(axis=(0, 1)))}.\nBy its checksum it belongs to {', '.join(names)}. "
        f"Copied to {file.path}, it is found with them.\n"
    )


def _num_classes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Units of the last dense layer; 0 without dense layers."""
    return next((shape[-1] for shape in reversed(list(shapes.values())) if len(shape) == 2), 0)


def _build_lines(variants: Sequence[str], num_classes: int, weights: str) -> list[str]:
    variant = f'"{variants[0]}"' if len(variants) == 1 else "VARIANT"
    number = "" if num_classes in (0, 1000) else f", {num_classes}"
    top = "" if num_classes else ", include_top=False"
    return ["import alexnet_tf", f"model = alexnet_tf.build_alexnet({variant}{number}, weights={weights}{top})"]


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in values) + ")"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _format(path: pathlib.Path, description: _Description) -> str:
    """Formats the text about a file."""
    if len(description.variants) == 1:
        (variant,) = description.variants
        lines = [f"{path}: variant {variant}, {VARIANTS[variant].title}."]
        differences = layer_table.describe(variant, "paper", description.num_classes or 1000)
    else:
        lines = [f"{path}: an AlexNet. Its layers fit several variants:"]
        lines += [f"  {name}: {VARIANTS[name].title}" for name in description.variants]
        differences = "alexnet-describe --variant=VARIANT --against=paper shows how each differs from the paper's.\n"
    if description.num_classes == 1000 and not any("Trained on" in fact for fact in description.facts):
        names = [f"{class_id} {words.split(',')[0]}" for class_id, words in ilsvrc.read_classes().items()]
        lines.append(f"1,000 classes, assumed to be ImageNet's: {_first(names)}.")
    elif description.num_classes:
        lines.append(f"{description.num_classes:,} classes.")
    else:
        lines.append("Without its fully-connected layers.")
    lines += [*description.facts, "", *(f"    {command}".rstrip() for command in description.commands), ""]
    return "\n".join(lines) + "\n" + differences
