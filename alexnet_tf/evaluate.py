"""Top-1 and top-5 error of a trained model: centre crop and the paper's ten views, side by side."""

import json
import pathlib
import sys

import numpy as np
from absl import app, flags
from tqdm import tqdm

from alexnet_tf import checkpoint, figures, program
from alexnet_tf.tfrecords import reader, schema, verify


def predict_probabilities(model, dataset):
    """Class probabilities of every image of a data set, averaged over its views where it has several.

    Args:
        model: from RGB pixels (batch, side, side, 3) to probabilities (batch, classes).
        dataset: `tf.data.Dataset` of (uint8 images (batch, side, side, 3) or (batch, views, side, side, 3), labels).

    Returns:
        (probabilities, labels): float32 (n, classes) and int32 (n,).

    Source: section 4.1: the softmax outputs of the ten views are averaged.
    """
    probabilities, labels = [], []
    for images, batch_labels in tqdm(dataset, unit="batch", file=sys.stdout):
        batch, side = images.shape[0], images.shape[-2]
        outputs = model.predict_on_batch(images.numpy().reshape(-1, side, side, 3))
        probabilities.append(outputs.reshape(batch, -1, outputs.shape[-1]).mean(axis=1))
        labels.append(batch_labels.numpy())
    return np.concatenate(probabilities), np.concatenate(labels)


def top_k_error(probabilities, labels, k):
    """Share of images whose class is not among the k most probable.

    Among equal probabilities the class of the lower number counts as the more probable.

    Args:
        probabilities: float (n, classes).
        labels: int (n,).
        k: how many classes count; with fewer classes than k, all.

    Returns: a float in [0, 1].

    Source: section 2.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean(~np.any(best == labels[:, None], axis=1)))


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file in one.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Folder of TFRecords made by alexnet-tfrecords.", required=True)
    flags.DEFINE_string("split", "validation", "Which images: train or validation.")
    flags.DEFINE_string(
        "output_dir", None, "Where evaluation.json and confusion_matrix.png go: beside the model by default."
    )
    flags.DEFINE_integer("batch_size", 128, "Images in a batch; of ten views, a tenth as many.", lower_bound=1)
    flags.DEFINE_enum(
        "on_bad_record",
        "fail",
        ["fail", "skip"],
        "What to do about images that can't be read: stop and name them, or look at all first and leave those out.",
    )
    flags.DEFINE_integer("max_bad_records", 100, "How many records may be left out.", lower_bound=0)
    flags.DEFINE_bool("ten_views", True, "Whether to measure ten views too, which takes ten times as long.")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"This program takes flags only. Received: {argv[1:]}")
    flag = flags.FLAGS
    model, learned = checkpoint.load_model(flag.model)
    description = schema.load_description(flag.data_dir)
    left_out = []
    if flag.on_bad_record == "skip":
        description, left_out = verify.leave_out_damaged(flag.data_dir, description, flag.max_bad_records)
        for problem in left_out:
            print(f"Left out: {problem}")
    if learned.class_names != description.class_names:
        raise ValueError(
            f"The model must have learned the classes of the data. {flag.model} learned {len(learned.class_names)} "
            f"({', '.join(learned.class_names[:3])}, ...); {flag.data_dir} holds {len(description.class_names)} "
            f"({', '.join(description.class_names[:3])}, ...)."
        )
    classes = len(description.class_names)
    crop_px = model.input_shape[1]
    chance = {"top1_error": 1 - 1 / classes, "top5_error": 1 - min(5, classes) / classes}
    result = {"split": flag.split, "images": description.splits[flag.split].count, "chance": chance}
    result["records_left_out"] = len(left_out)
    for name, views in [("center_crop", 1), ("ten_views", 10)][: 2 if flag.ten_views else 1]:
        batch_size = max(1, flag.batch_size // views)
        print(f"{name.replace('_', ' ')}:")
        dataset = reader.make_evaluation_dataset(
            flag.data_dir, batch_size, crop_px, description=description, split=flag.split, views=views
        )
        with reader.naming_damaged_shards(flag.data_dir):
            probabilities, labels = predict_probabilities(model, dataset)
        result[name] = {f"top{k}_error": top_k_error(probabilities, labels, k) for k in (1, 5)}
        if views == 1:
            confusion = figures.confusion_matrix(labels, probabilities.argmax(axis=1), description.class_names)

    output_dir = pathlib.Path(
        flag.output_dir or (pathlib.Path(flag.model).parent if flag.model.endswith(".keras") else flag.model)
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    figures.save_png(output_dir / "confusion_matrix.png", confusion)
    figures.save_png(output_dir / "conv1_kernels.png", figures.kernel_sheet(model.get_layer("conv1")))
    text = json.dumps(result, indent=2) + "\n"
    schema.write_whole(output_dir / "evaluation.json", lambda file: file.write(text.encode()))

    print(f"\n{result['images']:,} images of {flag.split}  top-1 error  top-5 error")
    for name in ("center_crop", "ten_views", "chance"):
        if name in result:
            errors = result[name]
            print(f"  {name.replace('_', ' '):<24}{errors['top1_error']:>11.2%}{errors['top5_error']:>13.2%}")
    print(f"Written: evaluation.json, confusion_matrix.png and conv1_kernels.png in {output_dir}")


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
