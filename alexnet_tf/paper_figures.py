"""Draws the paper's figures from a trained model, and what it sees: architecture, kernels, activations, predictions."""

import pathlib

from absl import flags

from alexnet_tf import cli
from alexnet_tf.tfrecords import schema

FIGURES = {
    "relu_against_tanh": "figure 1: the training error of two four-layer networks by epoch; trains both",
    "architecture": "figure 2, as SVG and PNG",
    "kernels": "figure 3: the first layer's kernels, column by column, and what training added to them",
    "activations": "figure 2 with an image's feature maps in it",
    "strongest": "the images that activate some feature maps of each layer most",
    "optimized": "the inputs that excite some feature maps of each layer most, found by gradient ascent",
    "occlusion": "the network's answers while a gray square covers one part of an image after the other",
    "panel": "figure 4, left: eight validation images and their five most probable classes",
    "neighbours": "figure 4, right: validation images and the training images nearest in fc7's space",
}
_OF_A_MODEL = tuple(name for name in FIGURES if name != "relu_against_tanh")
_OF_IMAGES = ("activations", "occlusion")  # the user's, or a data set's
_OF_A_DATA_SET = ("strongest", "panel", "neighbours", "relu_against_tanh")


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    described = "; ".join(f"{name}: {text}" for name, text in FIGURES.items())
    flags.DEFINE_multi_enum("figure", list(_OF_A_MODEL), list(FIGURES), f"Which; may be repeated. {described}.")
    flags.DEFINE_string("model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file in one.")
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of TFRecords made by alexnet-tfrecords. Not needed for architecture, kernels and optimized, nor for "
        "activations and occlusion with --image.",
    )
    flags.DEFINE_multi_string(
        "image",
        None,
        "occlusion, and the first of them activations: an image file; may be repeated. The default are three "
        "validation images.",
    )
    flags.DEFINE_string("output_dir", None, "Folder for the pictures.", required=True)
    flags.DEFINE_list("layers", ["conv1", "conv3", "conv5", "fc8"], "strongest, optimized: of which layers.")
    flags.DEFINE_integer("maps", 8, "strongest, optimized: feature maps of each layer.", lower_bound=1)
    flags.DEFINE_integer("images", 9, "strongest: number of images for each feature map.", lower_bound=1)
    flags.DEFINE_enum("split", "train", schema.SPLITS, "strongest: of which images.")
    flags.DEFINE_list("learning_rates", ["0.001", "0.002"], "relu_against_tanh: rates tried with both networks.")
    flags.DEFINE_float("goal_error", 0.25, "relu_against_tanh: the training error at which a training ends.")
    flags.DEFINE_integer(
        "max_epochs", 60, "relu_against_tanh: epochs after which a training is stopped.", lower_bound=1
    )
    flags.DEFINE_alias("most_epochs", "max_epochs")
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    figures = [name for name in FIGURES if name in flag.figure]
    needed = {"model": _OF_A_MODEL, "data_dir": _OF_A_DATA_SET + (() if flag.image else _OF_IMAGES)}
    for name, which in needed.items():
        if not flag[name].value and any(figure in which for figure in figures):
            raise ValueError(f"`{name}` must be given for {', '.join(which)}. --figure chooses others.")
    try:
        rates = [float(rate) for rate in flag.learning_rates]
    except ValueError as error:
        raise ValueError(f"`learning_rates` must be numbers. Received: {flag.learning_rates}") from error
    folder = pathlib.Path(flag.output_dir)
    outputs = [folder / name for figure in figures for name in _files_of(figure, flag.layers)]
    cli.check_outputs("output_dir", outputs, flag.overwrite, makes_folder=True)

    # Not with the module: TensorFlow takes seconds to import, which --help and mistakes in flags need not wait for.
    from alexnet_tf.model import load_model

    description = schema.load_description(flag.data_dir) if flag.data_dir else None
    model, own_description = load_model(flag.model) if flag.model else (None, None)
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        if figure in _OF_A_MODEL:
            _draw(figure, model, description or own_description, folder)
    if "relu_against_tanh" in figures:
        _compare_relu_and_tanh(folder, rates)


def _files_of(figure, layers):
    if figure == "architecture":
        return ["architecture.svg", "architecture.png"]
    if figure in ("strongest", "optimized"):
        return [f"{figure}_{layer}.png" for layer in layers]
    return ["conv1_kernels.png" if figure == "kernels" else f"{figure}.png"]


def _draw(figure, model, description, folder):
    """Writes a figure of a model."""
    from alexnet_tf.evaluation import panels
    from alexnet_tf.figures import (
        activations,
        architecture,
        kernels,
        occlusion,
        optimized_inputs,
        plots,
        top_activations,
    )

    flag, names = flags.FLAGS, description.class_names
    paths = [folder / name for name in _files_of(figure, flag.layers)]
    match figure:
        case "architecture":
            for path in paths:
                architecture.save_architecture(path, model.name.removeprefix("alexnet_"), model.output_shape[-1])
        case "kernels":
            from alexnet_tf.training import initial_kernels

            initial = initial_kernels.load_initial_kernels(flag.model)
            plots.save_png(paths[0], kernels.draw_kernels(model.get_layer("conv1").kernels, initial))
        case "activations":
            image = _images(model, description, count=1)[0]
            plots.save_png(paths[0], activations.draw_activations(model, image, names))
        case "strongest":
            for layer, path in zip(flag.layers, paths, strict=True):
                picture = top_activations.draw_top_activations(
                    model, layer, flag.data_dir, description, flag.split, flag.maps, flag.images
                )
                plots.save_png(path, picture)
        case "optimized":
            for layer, path in zip(flag.layers, paths, strict=True):
                plots.save_png(path, optimized_inputs.draw_optimized_inputs(model, layer, flag.maps, names))
        case "occlusion":
            images = _images(model, description, count=3)
            plots.save_png(paths[0], occlusion.draw_occlusion(model, images, names))
        case "panel":
            plots.save_png(paths[0], panels.draw_predictions(model, flag.data_dir, description))
        case "neighbours":
            plots.save_png(paths[0], panels.draw_nearest_training_images(model, flag.data_dir, description))
    print(f"Written: {', '.join(map(str, paths))}", flush=True)


def _images(model, description, count):
    """The images of --image, or some spread evenly over the validation split, as the network sees them."""
    import numpy as np

    from alexnet_tf import notebook
    from alexnet_tf.tfrecords import crops, reader

    flag = flags.FLAGS
    if flag.image:
        upright = bool(description.exif_orientation)
        return notebook.preprocess(flag.image, model, image_px=description.image_px, exif_orientation=upright)
    indices = np.linspace(0, description.splits["validation"].count - 1, count).round().astype(int)
    images = reader.read_images(flag.data_dir, description, "validation", indices)
    return crops.center_crop(images, model.input_shape[1])


def _compare_relu_and_tanh(folder, rates):
    from alexnet_tf.training import relu_vs_tanh

    flag = flags.FLAGS
    best = relu_vs_tanh.compare(flag.data_dir, folder, rates, flag.goal_error, flag.max_epochs)
    for variant, (rate, errors) in best.items():
        epochs = relu_vs_tanh.epochs_to(errors, flag.goal_error)
        reached = f"{epochs:.1f} epochs" if epochs else f"not in {len(errors)} epochs"
        print(f"{variant}, learning rate {rate:g}: {reached} to {flag.goal_error:.0%} training error")
    print(f"Written: {folder / 'relu_against_tanh.png'}")


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
