"""A page that shows a network at work: static files that a browser computes with, and nothing that it sends."""

import pathlib
import shutil

import keras
import numpy as np
from PIL import Image

from alexnet_tf.figures import strongest_images
from alexnet_tf.files import write_json
from alexnet_tf.layers import GroupedConv2D
from alexnet_tf.model import count_parameters, layer_output, variant_name
from alexnet_tf.networks import structure
from alexnet_tf.networks.variants import VARIANTS
from alexnet_tf.serving import browser_runtime, conversion, parity
from alexnet_tf.tfrecords import images as image_files
from alexnet_tf.tfrecords import reader, schema

_SOURCES = pathlib.Path(__file__).parent / "web"
_SAMPLE_LICENSE = pathlib.Path(__file__).parents[1] / "tfrecords" / "fashion_mnist_sample" / "LICENSE"
_EXAMPLES = 8  # images to start with
_STRONGEST = 5  # training images of each map
_PATCH_PX = 40  # side of these, at most
_CELLS_PER_ROW = 40  # in a sprite
_BATCH = 32


def write(
    folder: pathlib.Path,
    model: keras.Model,
    description: schema.DatasetDescription,
    precision: str = "int8",
    runtime: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path | None = None,
    num_images: int = 1000,
) -> None:
    """Writes the page: index.html, page.js and style.css, and what they show.

    page.json describes the network to the page: its layers with their receptive fields, its classes, its files.
    model.onnx is that of `conversion.write_with_activations`; kernels.bin holds the convolutions' kernels. With a data
    set, `examples` holds some of its validation images, and `strongest` the parts of its training images that excite
    each map most.

    Args:
        folder: where to write.
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        description: of the data that it was trained on.
        precision: "int8" or "float16".
        runtime: None, or what `browser_runtime.open_package` takes. Without it the page loads its runtime from a CDN.
        data_dir: None, or a data set of the same classes.
        num_images: training images of it that are searched, at most.

    Raises:
        ValueError: if the runtime or the data set is not as described.
    """
    for path in _SOURCES.iterdir():
        shutil.copy(path, folder)
    conversion.write_with_activations(folder, model, precision)
    page = {
        "title": VARIANTS[variant_name(model)].title if variant_name(model) in VARIANTS else model.name,
        "parameters": count_parameters(model),
        "classes": list(description.class_names),
        "columns": conversion.count_columns(model),
        "image_px": description.image_px,
        "crop_px": model.input_shape[1],
        "exif_orientation": bool(description.exif_orientation),
        "resize": description.resize,
        "model_bytes": (folder / "model.onnx").stat().st_size,
        "runtime": browser_runtime.write(folder, runtime),
        "layers": [
            _describe_layer(model, name, output) for name, output in conversion.activation_layers(model).items()
        ],
        "examples": [],
    }
    _write_kernels(folder / "kernels.bin", model, page["layers"])
    if data_dir:
        measured = schema.load_description(data_dir)
        source = str(measured.settings.get("source", data_dir))
        shown = {"source": pathlib.PurePath(source).name}  # of a folder: where it lies is nobody's business
        if source == "fashion_mnist":
            shutil.copy(_SAMPLE_LICENSE, folder / "LICENSE.images.txt")
            shown = {"source": "Fashion-MNIST, © Zalando SE", "license": "LICENSE.images.txt"}
        page["examples"] = _write_examples(folder / "examples", data_dir, measured)
        searched = _write_strongest(folder, model, page["layers"], data_dir, measured, num_images)
        page["data"] = {"searched": searched, **shown}
    write_json(folder / "page.json", page)


def _describe_layer(model, name, output):
    """What the page needs to know of a layer: its maps, and the pixels that a unit of it depends on."""
    layer, shape = model.get_layer(name), layer_output(model, output).shape
    size, step, start = structure.receptive_field(model, output)
    return {
        "name": name,
        "output": output,
        "maps": shape[-1],
        "side": shape[1] if len(shape) == 4 else 1,
        "field": {"size": size, "step": step, "start": start},
        "connected": "own" if layer.groups > 1 and layer.input_columns == "own" else "all",
    }


def _write_kernels(path, model, layers):
    """Writes the kernels of the convolutions, int8 (maps, channels, rows, columns), each scaled by its largest."""
    parts, offset = [], 0
    for described in layers:
        layer = model.get_layer(described["name"])
        if isinstance(layer, GroupedConv2D):
            kernels = np.concatenate([keras.ops.convert_to_numpy(kernel) for kernel in layer.kernels], axis=-1)
            kernels = kernels.transpose(3, 2, 0, 1)
            largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
            parts.append(np.rint(127 * kernels / np.where(largest > 0, largest, 1)).astype("int8"))
            described["kernel"] = {"offset": offset, "channels": kernels.shape[1], "side": kernels.shape[2]}
            offset += parts[-1].size
    path.write_bytes(b"".join(part.tobytes() for part in parts))


def _write_examples(folder, data_dir, description):
    """Writes validation images as PNG files: one each of the first classes, or as many as there are."""
    labels = reader.read_labels(data_dir, description, "validation")
    _, numbers = np.unique(labels, return_index=True)
    numbers = numbers[:_EXAMPLES]
    folder.mkdir()
    examples = []
    for index, square in enumerate(reader.read_images(data_dir, description, "validation", numbers)):
        name = f"{folder.name}/{index}.png"
        (folder.parent / name).write_bytes(image_files.encode_image(square, "png", 0))
        examples.append({"url": name, "label": int(labels[numbers[index]])})
    return examples


def _write_strongest(folder, model, layers, data_dir, description, num_images):
    """Writes a sprite for each layer: the receptive fields of its strongest activations, and for the layers above the
    convolutions one of all images searched. strongest.bin has each map's cells in the sprite, and the images' labels:
    uint16 (maps, images, 2), layer after layer.

    Returns: how many images were searched.
    """
    images, labels = parity.read_images(data_dir, description, "train", model, num_images)
    found = _find_strongest(model, [described["output"] for described in layers], images)
    (folder / "strongest").mkdir()
    tables, offset, thumbnails = [], 0, None
    for described, (numbers, rows, columns) in zip(layers, found, strict=True):
        if described["side"] == 1:
            name, cells, cell_px = "images", numbers, min(_PATCH_PX, images.shape[1])
            thumbnails = thumbnails or _write_sprite(folder / "strongest" / "images.jpg", images, cell_px)
        else:
            field = tuple(described["field"].values())
            patches = [
                strongest_images.crop_receptive_field(images[number], field, row, column)
                for number, row, column in zip(numbers.ravel(), rows.ravel(), columns.ravel(), strict=True)
            ]
            name, cells, cell_px = described["name"], np.arange(numbers.size), min(_PATCH_PX, field[0])
            _write_sprite(folder / "strongest" / f"{name}.jpg", patches, cell_px)
        tables.append(np.stack([cells.ravel(), labels[numbers.ravel()]], axis=-1).astype("<u2"))
        described["strongest"] = {
            "url": f"strongest/{name}.jpg",
            "offset": offset,
            "images": numbers.shape[1],
            "cell_px": cell_px,
            "cells_per_row": _CELLS_PER_ROW,
        }
        offset += tables[-1].size
    (folder / "strongest.bin").write_bytes(np.concatenate(tables).tobytes())
    return len(images)


def _find_strongest(model, outputs, images):
    """For each output: (numbers, rows, columns), ints (maps, images): the images that excite its maps most, and where.

    As `strongest_images.find_strongest_images`.
    """
    network = keras.Model(model.input, [layer_output(model, output) for output in outputs])
    peaks = []
    for first in range(0, len(images), _BATCH):
        batch = []
        for values in network.predict_on_batch(images[first : first + _BATCH]):
            flat = values.reshape(len(values), -1, values.shape[-1])
            places = flat.argmax(axis=1)
            side = values.shape[2] if values.ndim == 4 else 1
            batch.append((np.take_along_axis(flat, places[:, None], axis=1)[:, 0], places // side, places % side))
        peaks.append(batch)
    found = []
    for parts in zip(*peaks, strict=True):
        values, rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
        numbers = np.argsort(-values, axis=0, kind="stable")[:_STRONGEST]
        found.append([array.T for array in (numbers, *(np.take_along_axis(a, numbers, 0) for a in (rows, columns)))])
    return found


def _write_sprite(path, patches, cell_px):
    """Writes images as the cells of one JPEG, row by row."""
    rows = -(-len(patches) // _CELLS_PER_ROW)
    sprite = Image.new("RGB", (min(len(patches), _CELLS_PER_ROW) * cell_px, rows * cell_px))
    for index, patch in enumerate(patches):
        cell = Image.fromarray(patch).resize((cell_px, cell_px), Image.Resampling.BILINEAR)
        sprite.paste(cell, (index % _CELLS_PER_ROW * cell_px, index // _CELLS_PER_ROW * cell_px))
    sprite.save(path, quality=85, subsampling=0)
    return sprite
