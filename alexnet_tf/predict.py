"""Prints the five most probable classes of image files, and writes the probabilities of all classes.

Examples:

    alexnet-predict --model=torchvision photo.jpg
    alexnet-predict --model=runs/photos --panel=panel.png --csv=probabilities.csv photos
"""

import csv
import io
import pathlib
import sys

from absl import flags

from alexnet_tf import cli, files

_MAX_IN_PANEL = 40


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string(
        "model", None, f"Model to predict with: {cli.MODELS}; or a numbered folder of alexnet-export.", required=True
    )
    flags.DEFINE_string("panel", None, "PNG file to write: the first 40 images with their predictions, as in figure 4.")
    flags.DEFINE_string(
        "csv", None, "CSV file to write with the probabilities of all classes: one row per image, one column per class."
    )
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    for name in ("panel", "csv"):
        if flag[name].value:
            cli.check_outputs(name, [flag[name].value], flag.overwrite, arguments)
    # Imported here, so that --help and flag errors do not wait for TensorFlow.
    from alexnet_tf.evaluation import metrics
    from alexnet_tf.serving import classifier, image_requests

    folders = [image_requests.find_files([each]) if pathlib.Path(each).is_dir() else [each] for each in arguments]
    if not any(pathlib.Path(each).exists() for each in arguments):
        cli.check_exists(*arguments)
    classify = classifier.open_classifier(flag.model, all_classes=bool(flag.csv))
    import tensorflow as tf  # after open_classifier, which imports only what the model needs

    shown, table, failed = [], [], False
    for path in (pathlib.Path(each) for folder in folders for each in folder):
        try:
            encoded = image_requests.read_file(path)
            names, probabilities = classify(encoded)
        except (OSError, tf.errors.InvalidArgumentError) as error:
            missing = isinstance(error, FileNotFoundError)
            problem = "does not exist" if missing else f"not an image that can be read: {cli.reason(error)}"
            print(f"{cli.printable(str(path))}: {problem}", file=sys.stderr)
            failed = True
            continue
        if flag.csv:
            if not table:
                table.append(["file", *names])
            table.append([path, *(f"{probability:.6g}" for probability in probabilities)])
            best = metrics.top_k(probabilities, 5)
            names, probabilities = [names[index] for index in best], probabilities[best]
        if flag.panel and len(shown) < _MAX_IN_PANEL:
            shown.append((path.stem, encoded, names, probabilities))
        print(cli.printable(str(path)))
        for name, probability in zip(names, probabilities, strict=True):
            print(f"  {probability:7.2%}  {cli.printable(name)}")
    if shown:
        from alexnet_tf.serving import prediction_panel  # matplotlib takes half a second

        if prediction_panel.write_panel(flag.panel, shown):
            print(f"Written: {flag.panel}")
    if table:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        files.write_text(flag.csv, text.getvalue())
        print(f"Written: {flag.csv}")
    if failed:
        sys.exit(1)


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "IMAGE|FOLDER ...")


if __name__ == "__main__":
    run()
