"""Says which AlexNet a file or folder holds, where it departs from the paper's, and what to do with it."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence

import h5py
import numpy as np

from alexnet_tf import layers, model
from alexnet_tf.networks import layer_table, rows
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.tfrecords import ilsvrc, schema
from alexnet_tf.weights import caffe_files, pretrained_files, published, transfer
from alexnet_tf.weights.downloads import RemoteFile

_Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a file holds.

    Attributes:
        variants: those that it may be.
        classes: outputs of its classifier; 0 without one.
        facts: sentences.
        commands: what to do with it.
    """

    variants: Sequence[str]
    classes: int
    facts: Sequence[str]
    commands: Sequence[str]


def describe_file(path: str | pathlib.Path) -> str:
    """Describes what a file or folder holds. No code in it is run.

    Args:
        path: a file that `pretrained_files.read_pretrained` reads; a .keras, .h5 or .weights.h5 file of this project; a
            run's folder, one of its checkpoints, or an export; or Caffe's mean image.

    Returns: which AlexNet it is, its classes, its preprocessing, the errors if it is a published file, what to do with
    it, and how it differs from the paper's.

    Raises:
        ValueError: if it can't be read, or holds no network of the table of variants.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"There is no file or folder {path}.")
    known = published.identify(path) if path.is_file() else None
    if known and known[1] == published.PUBLISHED[known[0]].mean_image:
        return _describe_mean_image(path, known[1])
    if path.is_dir() and (cards := sorted(path.glob("**/model_card.json"), key=lambda card: card.stat().st_mtime)):
        found = _of_export(path, cards[-1])
    elif path.name.endswith(".weights.h5"):
        found = _of_weights_h5(path)
    elif path.is_dir() or path.suffix in (".keras", ".h5"):
        found = _of_model(path)
    elif path.suffix in pretrained_files.READERS:
        found = _of_pretrained(path, known)
    else:
        kinds = ", ".join((*pretrained_files.READERS, ".keras", ".h5"))
        raise ValueError(f"The name of a weights file must end in one of {kinds}. Received: {path}")
    return _page(path, found)


def _of_pretrained(path: pathlib.Path, known: tuple[str, RemoteFile] | None) -> _Found:
    """Another program's file."""
    network = pretrained_files.read_pretrained(path)
    shapes = {name: kernel.shape for name, (kernel, _) in network.weights.items()}
    variants = [network.variant] if network.variant else []
    fitting = pretrained_files.fitting_variants(shapes)
    variants = [name for name in variants if name in fitting] or fitting or _refuse(path, shapes)
    of_caffe = network.mean_color == pretrained_files.CAFFE_MEAN_COLOR
    arithmetic = f"subtracts the mean color {_numbers(network.mean_color)}"
    if set(network.input_scale) != {1}:
        arithmetic += f" and divides by {_numbers(1 / np.array(network.input_scale))}"
    colors = "blue, green, red" if of_caffe else "red, green, blue"
    facts = [
        f"Preprocessing: RGB pixels from 0 to 255; the first layer {arithmetic}. (In the file, conv1 takes {colors}.)"
    ]
    weights, flags = f'"{path}"', "" if len(variants) == 1 else f" --variant={'|'.join(variants)}"
    if of_caffe:
        facts.append("Caffe's networks were trained with a mean image, which --mean_image gives to alexnet-convert.")
        flags += " --mean_image=ilsvrc_2012_mean.npy"
    if known:
        row = published.PUBLISHED[known[0]]
        facts = [*_published_facts(known[0]), *facts]
        facts.append(f"Copied to {row.file.path}, it is found by its name, {known[0]}, and nothing is downloaded.")
        weights = f'"{known[0]}"'
    flags += "" if network.num_classes == 1000 else " --class_names=FILE_WITH_A_NAME_PER_LINE"
    commands = [
        *_build_lines(variants, network.num_classes, weights),
        "",
        f"alexnet-convert --input={shlex.quote(str(path))}{flags} --output_dir=converted",
        "alexnet-predict --model=converted IMAGE.jpg",
    ]
    return _Found(variants, network.num_classes, facts, commands)


def _published_facts(name: str) -> list[str]:
    row = published.PUBLISHED[name]
    return [
        f"By its checksum it is the published file of {name!r}. Errors, center crop: top-1 {row.top1_error}%, "
        f"top-5 {row.top5_error}%, on images resized with {published.RESIZED[row.resize]}; source: {row.source}.",
        f"License: {row.license}. To cite: {row.citation}.",
    ]


def _of_model(path: pathlib.Path) -> _Found:
    """A network of this project, as Keras saves it."""
    opened = model.open_model(path)
    kernels = (layer for layer in opened.layers if isinstance(layer, layers.GroupedConv2D | layers.ColumnDense))
    shapes = {layer.name: transfer.merged_weights(layer)["kernel"].shape for layer in kernels}
    outputs = [(layer.name, layer.output.shape[1:]) for layer in opened.layers[2:]]
    side, classes = opened.input_shape[1], _classes(shapes)
    norms = [layer for layer in opened.layers if isinstance(layer, layers.LocalResponseNormalization)]
    variants = []
    for name, row in VARIANTS.items():
        expected = [(each.name, each.output_shape) for each in rows.trace(row.replace(image_px=side), classes)]
        own = [
            each for each in outputs if each in expected
        ]  # without the average that may stand above the last pooling
        if own == expected[: len(own)] and set(shapes) <= dict(own).keys() and _same_norms(norms, row):
            variants.append(name)
    named = model.variant_name(opened)
    variants = [named] if named in variants else variants or _refuse(path, shapes)
    facts = [
        f"Preprocessing: RGB pixels from 0 to 255 of a center crop of {side} x {side}; the first layer does the rest."
    ]
    folder = path if path.is_dir() else path.parent
    if (folder / schema.DATASET_FILE).exists():
        description = schema.load_description(folder)
        facts.append(f"Trained on {description.settings.get('source')}, {description.image_px} pixels: ")
        facts[-1] += _some(description.class_names)
    else:
        facts.append(f"Its classes have no names: no {schema.DATASET_FILE} lies beside it.")
    commands = [
        "import alexnet_tf",
        f'model, description = alexnet_tf.load_model("{path}")',
        "",
        f"alexnet-predict --model={shlex.quote(str(path))} IMAGE.jpg",
    ]
    return _Found(variants, classes, facts, commands if classes else commands[:2])


def _same_norms(norms: Sequence[layers.LocalResponseNormalization], row: rows.Variant) -> bool:
    def settings(each):
        return each.k, each.n, each.alpha, each.beta, each.alpha_divided_by_n

    return [settings(each) for each in norms] == [settings(each) for each in row.select(rows.LRN)]


def _of_weights_h5(path: pathlib.Path) -> _Found:
    """Weights that Keras saved without their network."""
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
    except (OSError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is not a .weights.h5 file of Keras's: {error}") from error
    fitting = [
        name
        for name in pretrained_files.fitting_variants(shapes)
        if {row.name for row in VARIANTS[name].layers if _classes(shapes) or row.name in names} <= names
        and VARIANTS[name].image_px == side
    ]
    variants = fitting or _refuse(path, shapes)
    facts = ["Weights and mean image of a network of this project, without the names of its classes."]
    return _Found(variants, _classes(shapes), facts, _build_lines(variants, _classes(shapes), f'"{path}"'))


def _of_export(path: pathlib.Path, file: pathlib.Path) -> _Found:
    """An export, by its model card."""
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        network, data, recipe = card["network"], card["data"], card["recipe"]
        facts = [f"An export of alexnet-export: {card['format']} in {card['precision']}, version {card['version']}."]
        facts += [f"Preprocessing: {data['preprocessing']}.", f"Trained on {data['source']}."]
        if recipe:
            facts.append(f"Trained for {recipe['steps']:,} steps. The whole card: {file.with_suffix('.md')}")
        variants, classes = [network["variant"]], int(data["classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a model card of alexnet-export: {error!r}") from error
    if variants[0] not in VARIANTS:
        raise ValueError(f"{path} holds no network of this project's table. Received: {variants[0]}")
    return _Found(variants, classes, facts, [f"alexnet-predict --model={shlex.quote(str(file.parents[1]))} IMAGE.jpg"])


def _describe_mean_image(path: pathlib.Path, file: RemoteFile) -> str:
    mean = caffe_files.read_mean(path)
    names = [name for name, row in published.PUBLISHED.items() if row.mean_image == file]
    return (
        f"{path}: the mean image of ILSVRC2012 that Caffe computed, {mean.shape[0]} x {mean.shape[1]} pixels, "
        f"mean color {_numbers(mean.mean(axis=(0, 1)))}.\nBy its checksum it belongs to {', '.join(names)}. "
        f"Copied to {file.path}, it is found with them.\n"
    )


def _classes(shapes: _Shapes) -> int:
    """Outputs of the classifier; 0 without dense layers."""
    return next((shape[-1] for shape in reversed(list(shapes.values())) if len(shape) == 2), 0)


def _refuse(path: pathlib.Path, shapes: _Shapes):
    """Raises ValueError for kernels that no variant has, with those of the variant that has most of them."""
    expected = {name: rows.kernel_shapes(row, _classes(shapes)) for name, row in VARIANTS.items()}
    nearest = max(expected, key=lambda name: len(expected[name].items() & shapes.items()))
    name = next((name for name in expected[nearest] if expected[nearest][name] != shapes.get(name)), "")
    raise ValueError(
        f"{path} holds no network of alexnet-describe's list. The nearest is {nearest}, whose {name} has kernels of "
        f"{expected[nearest][name]}. Received: {shapes.get(name, f'no {name}')}"
    )


def _build_lines(variants: Sequence[str], classes: int, weights: str) -> list[str]:
    variant = f'"{variants[0]}"' if len(variants) == 1 else "VARIANT"
    number = "" if classes in (0, 1000) else f", {classes}"
    top = "" if classes else ", include_top=False"
    return ["import alexnet_tf", f"model = alexnet_tf.build_alexnet({variant}{number}, weights={weights}{top})"]


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in values) + ")"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _page(path: pathlib.Path, found: _Found) -> str:
    """The text about a file."""
    if len(found.variants) == 1:
        (variant,) = found.variants
        lines = [f"{path}: variant {variant}, {VARIANTS[variant].title}."]
        differences = layer_table.describe(variant, "paper", found.classes or 1000)
    else:
        lines = [f"{path}: an AlexNet, and its layers do not say which. They are those of"]
        lines += [f"  {name}: {VARIANTS[name].title}" for name in found.variants]
        differences = "Each differs from the paper's as alexnet-describe --variant=VARIANT --against=paper says.\n"
    if found.classes == 1000 and not any("Trained on" in fact for fact in found.facts):
        names = [f"{class_id} {words.split(',')[0]}" for class_id, words in ilsvrc.read_classes().items()]
        lines.append(f"1,000 classes, taken for those of ImageNet: {_some(names)}.")
    else:
        lines.append(f"{found.classes:,} classes." if found.classes else "Without its fully-connected layers.")
    lines += [*found.facts, "", *(f"    {command}".rstrip() for command in found.commands), ""]
    return "\n".join(lines) + "\n" + differences
