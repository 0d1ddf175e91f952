"""The paper's figure 1: how many epochs a four-layer network needs with ReLU, and how many with tanh."""

import json
import pathlib

import keras

from alexnet_tf import model
from alexnet_tf.tfrecords import reader, schema, statistics
from alexnet_tf.training import optimizers
from alexnet_tf.visualization import plots

VARIANTS = ("four_layer", "four_layer_tanh")


def compare(data_dir, output_dir, learning_rates, goal_error=0.25, most_epochs=60, batch_size=128, seed=0):
    """Trains both networks at each learning rate, and draws the best training of each.

    A training ends with the epoch in which the training error, the mean over its steps, falls to the goal; one that
    needs more epochs than the best so far of its network is given up. What is finished is kept in
    `relu_vs_tanh.json`: the same call again goes on with what is missing.

    Args:
        data_dir: folder of a data set of images of 32 x 32 pixels or more, of which the middle 32 x 32 are used.
        output_dir: folder for `relu_vs_tanh.json` and `.png`.
        learning_rates: floats, all tried with both networks.
        goal_error: share of the training images, above 0 and below 1; in the paper 0.25.
        most_epochs: where a training is given up at the latest.
        batch_size: images in a step.
        seed: of the first weights and of the order of the images.

    Returns: a dict from each of `VARIANTS` to (learning rate, list of the training error of each epoch), the best;
    those that did not reach the goal are the worst, the lower their last error the better.

    Raises:
        ValueError: where `goal_error` or the list of rates is none.

    Source: figure 1: a four-layer network on CIFAR-10, rates "chosen independently to make training as fast as
    possible", no regularization "of any kind".
    Deviation: neither the layers' sizes (see the table of variants) nor the batch size are in the paper.
    """
    if not 0 < goal_error < 1:
        raise ValueError(f"`goal_error` must be above 0 and below 1. Received: goal_error={goal_error}")
    if not learning_rates:
        raise ValueError("`learning_rates` must name one rate at least.")
    path = pathlib.Path(output_dir) / "relu_against_tanh.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    description = schema.load_description(data_dir)
    settings = {
        "images": description.splits["train"].count,
        "source": description.settings["source"],
        "goal_error": goal_error,
        "most_epochs": most_epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    kept = json.loads(path.read_text()) if path.exists() else {"settings": settings, "trainings": []}
    if kept["settings"] != settings:
        raise ValueError(f"{path} is of other settings: {kept['settings']}. Received: {settings}")
    best = {}
    for variant in VARIANTS:
        trainings = {each["learning_rate"]: each for each in kept["trainings"] if each["variant"] == variant}
        limit = most_epochs
        for rate in learning_rates:
            if rate not in trainings:
                print(f"{variant}, learning rate {rate:g}, at most {limit} epochs:", flush=True)
                errors = _train(variant, data_dir, description, rate, goal_error, limit, batch_size, seed)
                trainings[rate] = {"variant": variant, "learning_rate": rate, "training_errors": errors}
                kept["trainings"].append(trainings[rate])
                text = json.dumps(kept, indent=2) + "\n"
                schema.write_whole(path, lambda file, text=text: file.write(text.encode()))
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


def epochs_to(errors, goal_error):
    """Epochs until the training error was at the goal, on the straight line between two; None where it never was."""
    for epoch, error in enumerate(errors, start=1):
        if error <= goal_error:
            before = errors[epoch - 2] if epoch > 1 else 1.0
            return epoch - (goal_error - error) / (before - error)
    return None


def _rank(errors, goal_error):
    epochs = epochs_to(errors, goal_error)
    return (0, epochs) if epochs else (1, errors[-1] if errors else 1.0)


def _train(variant, data_dir, description, rate, goal_error, most_epochs, batch_size, seed):
    keras.utils.set_random_seed(seed)
    classes = len(description.class_names)
    network = model.build_alexnet(variant, classes)
    network.get_layer("mean_image").set_mean_image(statistics.Statistics.load(data_dir).mean_image)
    side = network.input_shape[1]
    images = reader.make_evaluation_dataset(data_dir, batch_size, side, description=description, split="train")
    # No crops, no flips, no noise: figure 1 is without "any regularization". The pixels stay in memory.
    count = description.splits["train"].count
    images = images.unbatch().cache().shuffle(count, seed=seed).repeat().batch(batch_size).prefetch(2)
    network.compile(optimizers.PaperMomentum(rate, decay=0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    errors = []

    def stop_at_goal(epoch, logs):
        errors.append(1 - float(logs["accuracy"]))
        network.stop_training = errors[-1] <= goal_error

    network.fit(
        images,
        steps_per_epoch=count // batch_size,
        epochs=most_epochs,
        shuffle=False,  # the data set has done so
        verbose=2,
        callbacks=[keras.callbacks.TerminateOnNaN(), keras.callbacks.LambdaCallback(on_epoch_end=stop_at_goal)],
    )
    return errors
