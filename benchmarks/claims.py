"""Trains small networks with and without the paper's choices, to see which of its claims hold on little data.

    python benchmarks/claims.py --output_dir=runs/claims

Each training is a line of claims.jsonl, and figure 1's are in folders of their own, so that an interrupted run
continues. The last lines are the table in docs/reproduce.md.
"""

import json
import pathlib
import statistics

import keras
from absl import app, flags

from alexnet_tf import model
from alexnet_tf.networks import rows, variants
from alexnet_tf.tfrecords import dataset_builder, reader, schema
from alexnet_tf.tfrecords.augmentation import Augmentation
from alexnet_tf.tfrecords.statistics import Statistics
from alexnet_tf.training import optimizers, relu_vs_tanh

BATCH_SIZE = 32
RATES = [0.01, 0.003, 0.03, 0.001]  # of figure 1, for both networks; the likely best first, which shortens the others
CIFAR = {"image_px": 32, "rate": 0.001, "epochs": 8, "weight_decay": 0.004, "layer_decays": {"conv1": 0, "conv2": 0}}


def small_network() -> rows.Variant:
    """The paper's network with fewer kernels on 56 pixels, whose initial weights have the paper's ratio to He's."""
    paper, small = variants.VARIANTS["paper"], variants.VARIANTS["testing"]
    for names, size in (("conv1", 16), ("conv2 conv5", 32), ("conv3 conv4", 48)):
        small = small.with_layers(names, filters=size)
    small = small.with_layers("fc6 fc7", units=256)
    large_fan_in, fan_in = ({shape.name: shape.fan_in for shape in rows.trace(each, 10)} for each in (paper, small))
    for layer in small.layers:
        if isinstance(layer, rows.Conv | rows.Dense):
            ratio = large_fan_in[layer.name] / fan_in[layer.name]
            small = small.with_layers(layer.name, std=round((layer.std or 0) * ratio**0.5, 4))
    return small


def trainings() -> dict[str, dict]:
    """The arguments of `train`, by the name of the experiment."""
    small, cifar = small_network(), variants.VARIANTS["cifar_11pct"]
    no_biases = small.with_layers(rows.Conv, bias=0.0).with_layers(rows.Dense, bias=0.0)
    return {
        "all of the paper": {"variant": small},
        "initial biases 0": {"variant": no_biases},
        "weight decay 0": {"variant": small, "weight_decay": 0.0},
        "no crops or flips": {"variant": small, "augment": False},
        "no dropout": {"variant": small.without(rows.Dropout)},
        "section 3.3 with LRN": {"variant": cifar, **CIFAR},
        "section 3.3 without LRN": {"variant": cifar.without(rows.LRN), **CIFAR},
    }


def train(
    folder, seed, variant, image_px=64, rate=0.01, epochs=12, weight_decay=0.0005, layer_decays=None, augment=True
):
    """Trains a network; returns its errors (fractions) by epoch, and on all training images at the end."""
    keras.utils.set_random_seed(seed)
    data_dir = make_data(folder, image_px)
    variants.VARIANTS["claims"] = variant
    network = model.build_alexnet("claims", 10)
    network.get_layer("mean_image").set_mean_image(Statistics.load(data_dir).mean_image)
    augmentation = Augmentation(color_noise="none", center_crops=not augment, flip=augment)
    training = reader.make_training_dataset(
        data_dir, BATCH_SIZE, variant.image_px, seed=seed, augmentation=augmentation
    )
    every, validation = (
        reader.make_evaluation_dataset(data_dir, 250, variant.image_px, split=split).cache() for split in schema.SPLITS
    )
    network.compile(
        optimizers.PaperMomentum(rate, weight_decay=weight_decay, layer_decays=layer_decays),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    logs = network.fit(
        training.map(lambda inputs, labels: (inputs["image"], labels)),
        steps_per_epoch=reader.steps_per_epoch(schema.load_description(data_dir), BATCH_SIZE),
        epochs=epochs,
        verbose=0,
        shuffle=False,  # the data set is shuffled
        validation_data=validation,
    ).history
    loss, accuracy = network.evaluate(every, verbose=0)
    return {
        "training_error": [round(1 - value, 4) for value in logs["accuracy"]],
        "validation_error": [round(1 - value, 4) for value in logs["val_accuracy"]],
        "final_training_error": round(1 - accuracy, 4),
        "final_training_loss": round(loss, 4),
    }


def make_data(folder, image_px):
    data_dir = folder / f"data_{image_px}"
    if not (data_dir / schema.DATASET_FILE).exists():
        dataset_builder.build_dataset(flags.FLAGS.source, data_dir, image_px=image_px)
    return data_dir


def figure_1(folder, seed):
    best = relu_vs_tanh.compare(make_data(folder, 32), folder / f"figure_1_seed_{seed}", RATES, seed=seed)
    for name, (rate, errors) in best.items():
        print(f"figure 1, seed {seed}, {name}: rate {rate}, epochs {relu_vs_tanh.epochs_to(errors, 0.25)}", flush=True)


def summarize(results):
    """The lines of the table: means over the seeds, with the smallest and the largest value."""
    lines = ["| training | seeds | training error | validation error | epochs to 50% | to 30% |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dict.fromkeys(each["name"] for each in results):
        runs = [each for each in results if each["name"] == name]
        columns = [
            [100 * each["final_training_error"] for each in runs],
            [100 * each["validation_error"][-1] for each in runs],
            *([_epochs_to(each["training_error"], goal) for each in runs] for goal in (0.5, 0.3)),
        ]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(map(_spread, columns))} |")
    return lines


def _epochs_to(errors, goal):
    return next((epoch for epoch, error in enumerate(errors, 1) if error <= goal), None)


def _spread(values):
    if None in values:
        return ", ".join("never" if value is None else str(value) for value in values)
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main(_):
    folder = pathlib.Path(flags.FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "claims.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    chosen = flags.FLAGS.only or [*trainings(), "figure 1"]
    for seed in map(int, flags.FLAGS.seeds):
        for name in chosen:
            if name == "figure 1":
                figure_1(folder, seed)
            elif not any(each["name"] == name and each["seed"] == seed for each in results):
                results.append({"name": name, "seed": seed} | train(folder, seed, **trainings()[name]))
                with path.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print("\n".join(summarize(results)))


if __name__ == "__main__":
    flags.DEFINE_string("output_dir", "runs/claims", "Folder of the results.")
    flags.DEFINE_string("source", "fashion_mnist", "Source of the images, as in alexnet-tfrecords.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
    flags.DEFINE_list("only", [], "Names of trainings, or figure 1; all by default.")
    app.run(main)
