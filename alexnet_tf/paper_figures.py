"""Draws the paper's figures from a trained model, and what it responds to.

Examples:

    alexnet-figures --model=runs/photos --data_dir=runs/photos/data --output_dir=figures
    alexnet-figures --model=runs/photos --figure=activations --image=photo.jpg --output_dir=figures
"""

import pathlib
from typing import Any

from absl import flags

from alexnet_tf import cli
from alexnet_tf.tfrecords import schema
from alexnet_tf.weights import published

FIGURES = {
    "relu_against_tanh": "figure 1: training error of two four-layer networks by epoch; trains both",
    "architecture": "figure 2, as SVG and PNG",
    "kernels": "figure 3: the first layer's kernels by column, and what training added to them",
    "activations": "figure 2 with an image's feature maps",
    "strongest": "the images that activate some feature maps of each layer most",
    "optimized": "synthetic inputs that activate some feature maps of each layer most, by gradient ascent",
    "occlusion": "the predictions while a gray square covers one part of an image after another",
    "panel": "figure 4, left: eight validation images with their five most probable classes",
    "neighbours": "figure 4, right: validation images with the training images nearest in fc7's feature space",
}
_OF_A_MODEL = tuple(name for name in FIGURES if name != "relu_against_tanh")
_OF_A_CLASSIFIER = ("occlusion", "panel", "neighbours")
_OF_IMAGES = ("activations", "occlusion")  # from --image or from the data set
_OCCLUDED = 3  # images of the data set
_OF_A_DATA_SET = ("strongest", "panel", "neighbours", "relu_against_tanh")


def define_flags():
    """Defines the command-line flags."""
    described = "; ".join(f"{name}: {text}" for name, text in FIGURES.items())
    flags.DEFINE_multi_enum("figure", list(_OF_A_MODEL), list(FIGURES), f"Figure to draw; repeatable. {described}.")
    flags.DEFINE_string("model", None, f"Model to draw: {cli.MODELS}.")
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of TFRecords made by alexnet-tfrecords. Not needed for architecture, kernels and optimized, nor for "
        "activations and occlusion with --image.",
    )
    flags.DEFINE_multi_string(
        "image",
        None,
        "Image file for occlusion and, the first one, for activations; repeatable. Default: validation images, for "
        "occlusion three that the network is not sure of.",
    )
    flags.DEFINE_string("output_dir", None, "Folder for the pictures.", required=True)
    flags.DEFINE_list("layers", ["conv1", "conv3", "conv5", "fc8"], "Layers for strongest and optimized.")
    flags.DEFINE_integer("maps", 8, "Feature maps per layer for strongest and optimized.", lower_bound=1)
    flags.DEFINE_integer("images", 9, "Images per feature map for strongest.", lower_bound=1)
    flags.DEFINE_enum("split", "train", schema.SPLITS, "Split for strongest.")
    flags.DEFINE_list(
        "learning_rates",
        ["0.001", "0.003", "0.0003", "0.01"],
        "Learning rates for relu_against_tanh. Each network is trained with each; its best training is drawn.",
    )
    flags.DEFINE_float("goal_error", 0.25, "Training error at which relu_against_tanh stops.")
    flags.DEFINE_integer("max_epochs", 60, "Maximum number of epochs for relu_against_tanh.", lower_bound=1)
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    figures = [name for name in FIGURES if name in flag.figure]
    needed = {"model": _OF_A_MODEL, "data_dir": _OF_A_DATA_SET + (() if flag.image else _OF_IMAGES)}
    for name, which in needed.items():
        if not flag[name].value and any(figure in which for figure in figures):
            raise ValueError(f"`{name}` is required for {', '.join(which)}. Choose other figures with --figure.")
    try:
        rates = [float(rate) for rate in flag.learning_rates]
    except ValueError as error:
        raise ValueError(f"`learning_rates` must be numbers. Received: {flag.learning_rates}") from error
    cli.check_unique("layers", flag.layers)
    folder = pathlib.Path(flag.output_dir)
    paths = {figure: [folder / name for name in _file_names(figure, flag.layers)] for figure in figures}
    outputs = [path for of_figure in paths.values() for path in of_figure]
    cli.check_outputs("output_dir", outputs, flag.overwrite, makes_folder=True)
    if flag.model:
        published.check_model(flag.model)
    cli.check_exists(*flag.image or ())
    description = schema.load_description(flag.data_dir) if flag.data_dir else None

    # Imported after the checks, because TensorFlow takes seconds to import.
    from alexnet_tf.model import load_model, variant_name
    from alexnet_tf.networks import structure
    from alexnet_tf.networks.variants import VARIANTS

    model = load_model(flag.model) if flag.model else None
    folder.mkdir(parents=True, exist_ok=True)
    for number, figure in enumerate(figures, 1):
        print(f"Drawing {figure} ({number} of {len(figures)}) ...", flush=True)
        if figure == "architecture" and variant_name(model) not in VARIANTS:
            print(f"Not drawn: architecture, because {model.name} is not one of the variants.", flush=True)
        elif figure in _OF_A_CLASSIFIER and structure.classifier(model) is None:
            print(f"Not drawn: {figure}, because {model.name} has no classifier.", flush=True)
        elif figure in _OF_A_MODEL:
            _draw(figure, model, description or model.description, paths[figure])
            print(f"Written: {', '.join(map(str, paths[figure]))}", flush=True)
    if "relu_against_tanh" in figures:
        _compare_relu_and_tanh(folder, rates)


def _file_names(figure, layers):
    if figure == "architecture":
        return ["architecture.svg", "architecture.png"]
    if figure == "strongest":
        return [f"strongest_{layer}.png" for layer in layers]
    return ["conv1_kernels.png" if figure == "kernels" else f"{figure}.png"]


def _draw(figure, model, description, paths):
    """Writes a figure of a model."""
    from alexnet_tf.figures import architecture, plots
    from alexnet_tf.model import variant_name

    if figure == "architecture":
        for path in paths:
            architecture.save_architecture(path, variant_name(model), model.output_shape[-1])
        return
    for path, picture in zip(paths, _pictures(figure, model, description), strict=True):
        plots.save_png(path, picture)


def _pictures(figure, model, description) -> Any:
    """The pictures of a figure: one, or one for each layer."""
    from alexnet_tf.evaluation import panels
    from alexnet_tf.figures import activations, kernels, occlusion, optimized_inputs, strongest_images
    from alexnet_tf.training import initial_kernels

    flag, names = flags.FLAGS, description.class_names
    data = (flag.data_dir, description)
    match figure:
        case "kernels":
            initial = initial_kernels.load_initial_kernels(flag.model)
            return [kernels.draw_kernels(kernels.first_kernels(model), initial)]
        case "activations":
            return [activations.draw_activations(model, _images(model, description)[0], names)]
        case "strongest":
            return strongest_images.draw_strongest_images(
                model, flag.layers, *data, flag.split, flag.maps, flag.images
            ).values()
        case "optimized":
            return [optimized_inputs.draw_optimized_inputs(model, flag.layers, flag.maps, names)]
        case "occlusion":
            images = _images(model, description)
            chosen = images if flag.image else occlusion.doubtful_images(model, images, _OCCLUDED)
            return [occlusion.draw_occlusion(model, chosen, names)]
        case "panel":
            return [panels.draw_predictions(model, *data)]
        case "neighbours":
            return [panels.draw_nearest_training_images(model, *data)]


def _images(model, description):
    """The images of --image, or 100 spread evenly over the validation split, preprocessed for the network."""
    from alexnet_tf import notebook
    from alexnet_tf.figures import image_grids
    from alexnet_tf.tfrecords import crops, reader

    flag = flags.FLAGS
    if flag.image:
        upright = bool(description.exif_orientation)
        return notebook.preprocess(flag.image, model, image_px=description.image_px, exif_orientation=upright)
    indices = image_grids.spread_evenly(description.splits["validation"].count, 100)
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
