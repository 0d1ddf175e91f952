"""Draws the paper's figures from one's own run: what the network is, what it learned, and what it says."""

import pathlib

import numpy as np
from absl import flags

from alexnet_tf import features, neighbours
from alexnet_tf.model import layer_output, load_model
from alexnet_tf.tfrecords import program, reader, schema
from alexnet_tf.visualization import architecture, plots, relu_vs_tanh, top_activations

FIGURES = {
    "relu_against_tanh": "figure 1: the training error of two four-layer networks by epoch; trains both",
    "architecture": "figure 2, as SVG and PNG",
    "kernels": "figure 3: the first layer's kernels, column by column",
    "strongest": "for maps of each layer the images that excite them most; not in the paper",
    "panel": "figure 4, left: eight validation images and their five most probable classes",
    "neighbours": "figure 4, right: validation images and the training images nearest in fc7's space",
}
_OF_A_MODEL = tuple(name for name in FIGURES if name != "relu_against_tanh")


def draw_strongest(model, layer, data_dir, description, split, num_maps, count):
    """For maps spread evenly over a layer the pixels that their most excited units see, a row a map.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities.
        layer: name of one of its layers.
        data_dir, description, split: of the images.
        num_maps: how many maps; all where the layer has fewer.
        count: how many images for each.

    Returns: uint8 (rows, columns, 3).
    """
    field = top_activations.receptive_field(model, layer)
    units = layer_output(model, layer).shape[-1]
    maps = np.unique(np.linspace(0, units - 1, num_maps).round().astype(int))
    numbers, values, rows, columns = top_activations.strongest(model, layer, maps, data_dir, description, split, count)
    side = model.input_shape[1]
    margin = (description.image_px - side) // 2
    images = reader.read_images(data_dir, description, split, numbers.ravel())
    images = images[:, margin : margin + side, margin : margin + side].reshape(*numbers.shape, side, side, 3)
    patches = [
        [top_activations.seen_pixels(images[m, i], field, rows[m, i], columns[m, i]) for i in range(count)]
        for m in range(len(maps))
    ]
    answers = layer in (each.name for each in model.layers[-2:])  # the classifier and its softmax
    titles = [description.class_names[number] if answers else f"map {number}" for number in maps]
    names = [f"{layer}\n{title}\n{value:.3g}" for title, value in zip(titles, values[:, 0], strict=True)]
    return plots.patch_rows(patches, names)


def draw_panel(model, data_dir, description, count=8):
    """Images spread evenly over the validation split with the bars of their five most probable classes."""
    numbers = np.linspace(0, description.splits["validation"].count - 1, count).round().astype(int)
    images = reader.read_images(data_dir, description, "validation", numbers)
    labels = reader.read_labels(data_dir, description, "validation")[numbers]
    margin = (description.image_px - model.input_shape[1]) // 2
    inside = slice(margin, margin + model.input_shape[1])
    answers = []
    for probabilities in model.predict(images[:, inside, inside], verbose=0):
        best = np.argsort(-probabilities, kind="stable")[:5]
        answers.append(([description.class_names[c] for c in best], probabilities[best]))
    return plots.prediction_panel(images, answers, [description.class_names[label] for label in labels])


def _files_of(figure, layers):
    if figure == "architecture":
        return ["architecture.svg", "architecture.png"]
    if figure == "strongest":
        return [f"strongest_{layer}.png" for layer in layers]
    return ["conv1_kernels.png" if figure == "kernels" else f"{figure}.png"]


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    described = "; ".join(f"{name}: {text}" for name, text in FIGURES.items())
    flags.DEFINE_multi_enum("figure", list(_OF_A_MODEL), list(FIGURES), f"Which; may be repeated. {described}.")
    flags.DEFINE_string("model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file in one.")
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the pictures.", required=True)
    flags.DEFINE_list("layers", ["conv1", "conv3", "conv5", "fc8"], "strongest: of which layers.")
    flags.DEFINE_integer("maps", 8, "strongest: how many maps of each layer.", lower_bound=1)
    flags.DEFINE_integer("images", 9, "strongest: how many images for each map.", lower_bound=1)
    flags.DEFINE_enum("split", "train", schema.SPLITS, "strongest: of which images.")
    flags.DEFINE_list("learning_rates", ["0.001", "0.002"], "relu_against_tanh: rates tried with both networks.")
    flags.DEFINE_float("goal_error", 0.25, "relu_against_tanh: the training error at which a training ends.")
    program.define_overwrite()
    flags.DEFINE_integer("most_epochs", 60, "relu_against_tanh: where a training is given up.", lower_bound=1)


def main(arguments):
    flag = flags.FLAGS
    asked = [name for name in FIGURES if name in flag.figure]
    if any(name in _OF_A_MODEL for name in asked) and not flag.model:
        raise ValueError(f"`model` must be given for {', '.join(_OF_A_MODEL)}. --figure chooses others.")
    try:
        rates = [float(rate) for rate in flag.learning_rates]
    except ValueError as error:
        raise ValueError(f"`learning_rates` must be numbers. Received: {flag.learning_rates}") from error
    folder = pathlib.Path(flag.output_dir)
    outputs = [folder / name for figure in asked for name in _files_of(figure, flag.layers)]
    program.check_outputs("output_dir", outputs, flag.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    description = schema.load_description(flag.data_dir)
    model = load_model(flag.model)[0] if flag.model else None

    def save(name, pixels):
        plots.save_png(folder / name, pixels)
        print(f"Written: {folder / name}", flush=True)

    if "architecture" in asked:
        variant = model.name.removeprefix("alexnet_")
        for path in (folder / "architecture.svg", folder / "architecture.png"):
            architecture.save_architecture(path, variant, model.output_shape[-1])
            print(f"Written: {path}", flush=True)
    if "kernels" in asked:
        save("conv1_kernels.png", plots.kernel_sheet(model.get_layer("conv1")))
    if "strongest" in asked:
        for layer in flag.layers:
            arguments = (model, layer, flag.data_dir, description, flag.split, flag.maps, flag.images)
            save(f"strongest_{layer}.png", draw_strongest(*arguments))
    if "panel" in asked:
        save("panel.png", draw_panel(model, flag.data_dir, description))
    if "neighbours" in asked:
        searched, queries = (
            features.extract(model, "relu7", flag.data_dir, description, split, 128)
            for split in ("train", "validation")
        )
        numbers, _ = neighbours.nearest(queries.vectors, searched.vectors, 6)
        save("neighbours.png", neighbours.draw(queries, searched, numbers, flag.data_dir, description, 5))
    if "relu_against_tanh" in asked:
        best = relu_vs_tanh.compare(flag.data_dir, folder, rates, flag.goal_error, flag.most_epochs)
        for variant, (rate, errors) in best.items():
            epochs = relu_vs_tanh.epochs_to(errors, flag.goal_error)
            reached = f"{epochs:.1f} epochs" if epochs else f"not in {len(errors)} epochs"
            print(f"{variant}, learning rate {rate:g}: {reached} to {flag.goal_error:.0%} training error")
        print(f"Written: {folder / 'relu_against_tanh.png'}")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
