"""The paper's figure 1: how many epochs a four-layer network needs with ReLU and with tanh."""

import json
import pathlib
from collections.abc import Sequence

import keras

from alexnet_tf import files, model
from alexnet_tf.figures import plots
from alexnet_tf.tfrecords import reader, schema, statistics
from alexnet_tf.training import optimizers

VARIANTS = ("four_layer", "four_layer_tanh")
_BATCH_SIZE = 128


def compare(
    data_dir: str | pathlib.Path,
    output_dir: str | pathlib.Path,
    learning_rates: Sequence[float],
    goal_error: float = 0.25,
    max_epochs: int = 60,
    seed: int = 0,
) -> dict[str, tuple[float, list[float]]]:
    """Trains both networks with each learning rate, and draws the best training of each network.

    A training ends after the epoch whose mean training error reaches the goal, or when it needs more epochs than the
    best one of its network. Finished trainings are kept in `relu_against_tanh.json`; the same call runs only those that
    are missing.

    Args:
        data_dir: folder of a data set of images of at least 32 x 32 pixels, whose central 32 x 32 are used.
        output_dir: folder for `relu_against_tanh.json` and `.png`.
        learning_rates: the rates that both networks are trained with.
        goal_error: training error, between 0 and 1; 0.25 in the paper.
        max_epochs: maximum number of epochs of a training.
        seed: seed of the initial weights and of the order of the images.

    Returns: a dict from each of `VARIANTS` to (learning rate, training error of each epoch) of its best training: the
    one that reached the goal first, or else the one with the lowest last error.

    Raises:
        ValueError: if `goal_error` is out of range, there are no learning rates, or `output_dir` holds trainings with
            other settings.

    Source: figure 1: a four-layer network on CIFAR-10, rates "chosen independently to make training as fast as
    possible", no regularization "of any kind".
    Deviation: the layers' sizes (see the table of variants) and the batch size are not in the paper.
    """
    if not 0 < goal_error < 1:
        raise ValueError(f"`goal_error` must be above 0 and below 1. Received: goal_error={goal_error}")
    if not learning_rates:
        raise ValueError("`learning_rates` must name at least one rate.")
    path = pathlib.Path(output_dir) / "relu_against_tanh.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    description = schema.load_description(data_dir)
    settings = {
        "images": description.splits["train"].count,
        "source": description.settings["source"],
        "goal_error": goal_error,
        "most_epochs": max_epochs,
        "batch_size": _BATCH_SIZE,
        "seed": seed,
    }
    kept = json.loads(path.read_text()) if path.exists() else {"settings": settings, "trainings": []}
    if kept["settings"] != settings:
        raise ValueError(f"{path} has other settings: {kept['settings']}. Received: {settings}")
    best = {}
    for variant in VARIANTS:
        trainings = {each["learning_rate"]: each for each in kept["trainings"] if each["variant"] == variant}
        limit = max_epochs
        for rate in learning_rates:
            if rate not in trainings:
                print(f"{variant}, learning rate {rate:g}, at most {limit} epochs:", flush=True)
                errors = _train(variant, data_dir, description, rate, goal_error, limit, seed)
                trainings[rate] = {"variant": variant, "learning_rate": rate, "training_errors": errors}
                kept["trainings"].append(trainings[rate])
                files.write_json(path, kept)
            errors = trainings[rate]["training_errors"]
            if errors and errors[-1] <= goal_error:
                limit = min(limit, len(errors))
        tried = [trainings[rate] for rate in learning_rates]
        chosen = min(tried, key=lambda each: _rank(each["training_errors"], goal_error))
        best[variant] = chosen["learning_rate"], chosen["training_errors"]
    name = pathlib.Path(data_dir).name
    labels = [f"{word}, learning rate {best[v][0]:g}" for word, v in zip(("ReLU", "tanh"), VARIANTS, strict=True)]
    curves = [best[variant][1] for variant in VARIANTS]
    plots.save_png(path.with_suffix(".png"), plots.training_curves(curves, labels, goal_error, name))
    return best


def epochs_to(errors: Sequence[float], goal_error: float) -> float | None:
    """Number of epochs until the training error reached the goal, interpolated linearly; None if it did not.

    Args:
        errors: the training error after each epoch.
        goal_error: the goal.
    """
    for epoch, error in enumerate(errors, start=1):
        if error <= goal_error:
            before = errors[epoch - 2] if epoch > 1 else 1.0
            return epoch - (goal_error - error) / (before - error)
    return None


def _rank(errors, goal_error):
    epochs = epochs_to(errors, goal_error)
    return (0, epochs) if epochs else (1, errors[-1] if errors else 1.0)


def _train(variant, data_dir, description, rate, goal_error, max_epochs, seed):
    keras.utils.set_random_seed(seed)
    classes = len(description.class_names)
    network = model.build_alexnet(variant, classes)
    network.get_layer("mean_image").set_mean_image(statistics.Statistics.load(data_dir).mean_image)
    side = network.input_shape[1]
    images = reader.make_evaluation_dataset(data_dir, _BATCH_SIZE, side, description=description, split="train")
    # No crops, flips or noise: figure 1 has no regularization. The pixels stay in memory.
    count = description.splits["train"].count
    images = images.unbatch().cache().shuffle(count, seed=seed).repeat().batch(_BATCH_SIZE).prefetch(2)
    network.compile(
        optimizers.PaperMomentum(rate, weight_decay=0.0), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    errors = []

    def stop_at_goal(epoch, logs):
        errors.append(1 - float(logs["accuracy"]))
        network.stop_training = errors[-1] <= goal_error

    network.fit(
        images,
        steps_per_epoch=count // _BATCH_SIZE,
        epochs=max_epochs,
        shuffle=False,  # the data set is shuffled
        verbose=2,
        callbacks=[keras.callbacks.TerminateOnNaN(), keras.callbacks.LambdaCallback(on_epoch_end=stop_at_goal)],
    )
    return errors
