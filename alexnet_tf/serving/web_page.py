"""A web page that shows a network at work: static files that run in a browser and send nothing."""

import itertools
import pathlib
import shutil
from typing import Any

import keras
import numpy as np
from PIL import Image

from alexnet_tf.figures import image_grids, strongest_images
from alexnet_tf.files import write_json
from alexnet_tf.layers import GroupedConv2D, LocalResponseNormalization
from alexnet_tf.model import count_parameters, variant_name
from alexnet_tf.networks import receptive_fields, structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.serving import browser_runtime, conversion
from alexnet_tf.serving.formats import ExportConfig
from alexnet_tf.tfrecords import images as image_files
from alexnet_tf.tfrecords import reader, schema

_SOURCES = pathlib.Path(__file__).parent / "web"
_SAMPLE_LICENSE = pathlib.Path(__file__).parents[1] / "tfrecords" / "fashion_mnist_sample" / "LICENSE"
_EXAMPLES = 8  # images of the data set to choose from
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_STRONGEST = 5  # training images of each map
_PATCH_PX = 40  # maximum side of these
_CELLS_PER_ROW = 40  # in a sprite
_BATCH = 32
_ASPECT = 3 / 8  # width by height of a layer's maps, of all columns below each other


def write(
    folder: pathlib.Path,
    model: keras.Model,
    description: schema.DatasetDescription,
    config: ExportConfig,
    training: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Writes the page: the files in `web`, and what they show.

    page.json describes the network: its layers with their layout, their steps and receptive fields, its classes, its
    files. model.onnx is from `conversion.write_with_activations`. kernels.bin has the weights of the convolutions.
    `examples` has the images of config.examples. With a data set, it also has some of its validation images, and
    `strongest` has the parts of its training images that activate each map most.

    Args:
        folder: where to write.
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes), without nested models.
        description: the data it was trained on.
        config: precision, runtime and data set.
        training: (images, labels) of the data set that are searched for strong activations, uint8 (n, side, side, 3)
            and int (n,).

    Raises:
        ValueError: if the runtime or the data set is invalid.
    """
    for path in _SOURCES.iterdir():
        shutil.copy(path, folder)
    conversion.write_with_activations(folder, model, str(config.precision))
    stages = structure.stages(model)
    variant = VARIANTS.get(variant_name(model))
    page: dict[str, Any] = {
        "title": variant.title if variant else model.name,
        "parameters": count_parameters(model),
        "classes": list(description.class_names),
        "columns": structure.num_columns(model),
        "image_px": description.image_px,
        "crop_px": model.input_shape[1],
        "exif_orientation": description.exif_orientation,
        "resize": description.resize,
        "model_bytes": (folder / "model.onnx").stat().st_size,
        "runtime": browser_runtime.write(folder, config.runtime),
        "layers": [_describe_stage(model, stage) for stage in stages],
        "examples": [],
    }
    _write_kernels(folder / "kernels.bin", stages, page["layers"])
    (folder / "examples").mkdir()
    if config.examples:
        page["examples"] = _write_example_files(folder, config.examples, description)
    if config.data_dir and training:
        measured = schema.load_description(config.data_dir)
        source = str(measured.settings.get("source", config.data_dir))
        page["data"] = {"source": pathlib.PurePath(source).name, "searched": len(training[0])}  # paths may be private
        if source == "fashion_mnist":
            shutil.copy(_SAMPLE_LICENSE, folder / "LICENSE.images.txt")
            page["data"] |= {"source": "Fashion-MNIST, © Zalando SE", "license": "LICENSE.images.txt"}
        page["typical"] = _typical_ranges(training[0])
        page["examples"] += _write_examples(folder, config.data_dir, measured)
        _write_strongest(folder, model, page["layers"], *training)
    write_json(folder / "page.json", page)


def _typical_ranges(images):
    """The ranges of 98 % of the images, in gray levels, by which the page recognizes images unlike them: of the mean
    difference between a pixel's largest and smallest channel, and of the mean brightness at the image's edges.
    """
    edges = np.ones(images.shape[1:3], bool)
    edges[1:-1, 1:-1] = False
    measures = {"color": np.ptp(images, axis=-1).mean(axis=(1, 2)), "border": images[:, edges].mean(axis=(1, 2))}
    return {name: np.percentile(values, [1, 99]).round(1).tolist() for name, values in measures.items()}


def _describe_stage(model, stage):
    """What the page needs to know of a layer: its place in figure 2, its steps, its maps and their receptive fields."""
    shape = structure.features(model, [stage.activation]).output[stage.activation].shape
    maps = shape[-1] // stage.columns
    wanted_rows = (maps / (_ASPECT * structure.num_columns(model))) ** 0.5
    rows = min((k for k in range(1, maps + 1) if maps % k == 0), key=lambda k: abs(k - wanted_rows))
    return {
        "name": stage.layer.name,
        "output": stage.activation,
        "maps": shape[-1],
        "side": shape[1] if len(shape) == 4 else 1,
        "boxes": stage.columns,
        "grid": [rows, maps // rows],
        "connections": stage.connections,
        "joins_columns": stage.joins_columns,
        "steps": _describe_steps(model, stage),
        "field": receptive_fields.receptive_field(model, stage.activation)._asdict(),
    }


def _describe_steps(model, stage):
    """How a unit gets its value: the layer with a kernel, and the layers from there to the next kernel."""
    found = structure.network_layers(model)
    first = found.index(stage.layer)
    steps = [_describe_kernel(stage, found[first - 1])]
    for below, layer in itertools.pairwise(found[first:]):
        described = None if structure.has_kernel(layer) else _describe_step(below, layer)
        if described is None:  # the next kernel, or a layer such as Flatten
            break
        if not isinstance(structure.column_layer(layer), keras.layers.Dropout):  # which does nothing here
            steps.append(described)
    return steps


def _shape(layer):
    shape = structure.output_shape(layer)
    return {"output": layer.name, "maps": shape[-1], "side": shape[0] if len(shape) == 3 else 1}


def _describe_kernel(stage, below):
    step = {"title": stage.layer.name, "input": _shape(below)} | _shape(stage.layer)
    if isinstance(stage.layer, GroupedConv2D):
        return step | {"kind": "convolution", **receptive_fields.input_window(stage.layer)._asdict()}
    return step | {"kind": "sum", "inputs": int(np.prod(structure.merged_weights(stage.layer)["kernel"].shape[:-1]))}


def _describe_step(below, layer):
    """The step of a layer without a kernel; None if it changes the maps' shape otherwise than by max-pooling."""
    step, inner = _shape(layer), structure.column_layer(layer)
    if isinstance(inner, keras.layers.MaxPooling2D):
        return step | {"kind": "pooling", **receptive_fields.input_window(layer)._asdict()}
    if structure.output_shape(layer) != structure.output_shape(below):
        return None
    if isinstance(inner, keras.layers.ReLU | keras.layers.Activation | keras.layers.Softmax):
        function = getattr(inner, "activation", None)
        return step | {
            "kind": "activation",
            "function": function.__name__ if function else type(inner).__name__.lower(),
        }
    if isinstance(inner, LocalResponseNormalization):
        config = {name: inner.get_config()[name] for name in ("k", "n", "alpha", "beta")}
        config["alpha"] /= inner.n if inner.alpha_divided_by_n else 1
        columns = len(layer.output) if inner is not layer else inner.groups
        return step | {"kind": "normalization", **config, "neighborhood": step["maps"] // columns}
    return step | {"kind": "other", "title": type(inner).__name__}


def _write_kernels(path, stages, layers):
    """Writes the weights of the convolutions, float16 (maps, channels x rows x columns + 1): the bias is the last."""
    parts, offset = [], 0
    for stage, described in zip(stages, layers, strict=True):
        if isinstance(stage.layer, GroupedConv2D):
            weights = structure.merged_weights(stage.layer)
            kernels = weights["kernel"].transpose(3, 2, 0, 1)
            biases = weights.get("bias", np.zeros(len(kernels)))
            parts.append(np.c_[kernels.reshape(len(kernels), -1), biases].astype("<f2"))
            described["kernel"] = {"offset": offset, "channels": kernels.shape[1], "side": kernels.shape[2]}
            offset += parts[-1].size
    path.write_bytes(b"".join(part.tobytes() for part in parts))


def _write_examples(folder, data_dir, description):
    """Writes one validation image of each of the first classes."""
    labels = reader.read_labels(data_dir, description, "validation")
    _, numbers = np.unique(labels, return_index=True)
    numbers = numbers[:_EXAMPLES]
    squares = reader.read_images(data_dir, description, "validation", numbers)
    return [
        _write_example(folder, str(number), square, description.class_names[labels[number]])
        for number, square in zip(numbers, squares, strict=True)
    ]


def _write_example_files(folder, source, description):
    """Writes the images of a folder, prepared for the network."""
    examples, upright = [], bool(description.exif_orientation)
    for path in sorted(pathlib.Path(source).iterdir()):
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            square = image_files.prepare_image(
                path, description.image_px, exif_orientation=upright, resize=description.resize
            )
            name = f"file-{len(examples) + 1}"  # its own may be that of another example, or contain a "?"
            examples.append(_write_example(folder, name, square, path.stem))
    return examples


def _write_example(folder, name, square, title):
    url = f"examples/{name}.png"
    (folder / url).write_bytes(image_files.encode_image(square, "png", 0))
    return {"url": url, "title": title}


def _write_strongest(folder, model, layers, images, labels):
    """Writes a sprite for each convolution, with the receptive fields of its strongest activations, and one with all
    images for the layers above. strongest.bin has, layer after layer, uint16 (maps, images, 2): the image's cell in the
    sprite and its label.
    """
    batches = (images[first : first + _BATCH] for first in range(0, len(images), _BATCH))
    names = [described["output"] for described in layers]
    found = strongest_images.find_strongest_images(model, names, batches, min(_STRONGEST, len(images)))
    (folder / "strongest").mkdir()
    tables, offset = [], 0
    for described in layers:
        strongest = found[described["output"]]
        if described["side"] == 1:
            name, cells, cell_px = "images", strongest.indices, min(_PATCH_PX, images.shape[1])
            if not (folder / "strongest" / "images.jpg").exists():
                _write_sprite(folder / "strongest" / "images.jpg", images, cell_px)
        else:
            field = receptive_fields.Window(**described["field"])
            places = zip(strongest.indices.ravel(), strongest.rows.ravel(), strongest.columns.ravel(), strict=True)
            patches = [strongest_images.crop_receptive_field(images[index], field, *place) for index, *place in places]
            name, cells, cell_px = described["name"], np.arange(len(patches)), min(_PATCH_PX, field.size)
            _write_sprite(folder / "strongest" / f"{name}.jpg", patches, cell_px)
        tables.append(np.stack([cells.ravel(), labels[strongest.indices.ravel()]], axis=-1).astype("<u2"))
        described["strongest"] = {
            "url": f"strongest/{name}.jpg",
            "offset": offset,
            "images": strongest.indices.shape[1],
            "cell_px": cell_px,
            "cells_per_row": _CELLS_PER_ROW,
        }
        offset += tables[-1].size
    (folder / "strongest.bin").write_bytes(np.concatenate(tables).tobytes())


def _write_sprite(path, patches, cell_px):
    """Writes images as the cells of one JPEG, row by row."""
    cells = [Image.fromarray(patch).resize((cell_px, cell_px), Image.Resampling.BILINEAR) for patch in patches]
    sprite = image_grids.tile([np.asarray(cell) for cell in cells], min(len(cells), _CELLS_PER_ROW))
    Image.fromarray(sprite).save(path, quality=85, subsampling=0)
