"""Prints the five most probable classes of image files."""

import pathlib
import sys

from absl import flags

from alexnet_tf import cli

_MAX_IN_PANEL = 40


def define_flags():
    """Defines the flags. Not at import: two programs can then be imported together."""
    flags.DEFINE_string(
        "model",
        None,
        "Run folder, .keras file, published weights, or numbered folder of alexnet-export.",
        required=True,
    )
    flags.DEFINE_string("panel", None, "PNG file to write: the first 40 images with their predictions, as in figure 4.")
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    if flag.panel:
        cli.check_outputs("panel", [flag.panel], flag.overwrite, arguments)
    # Imported here, so that --help and mistakes in flags are answered at once.
    from alexnet_tf.serving import classifier, image_requests

    classify = classifier.open_classifier(flag.model)
    import tensorflow as tf  # after open_classifier, which imports only what the model needs

    shown, failed = [], False
    for path in map(pathlib.Path, arguments):
        try:
            encoded = image_requests.read_file(path)
            names, probabilities = classify(encoded)
        except (OSError, tf.errors.InvalidArgumentError) as error:
            print(f"{cli.printable(str(path))}: not an image that can be read: {cli.reason(error)}", file=sys.stderr)
            failed = True
            continue
        if flag.panel and len(shown) < _MAX_IN_PANEL:
            shown.append((path.stem, encoded, names, probabilities))
        print(cli.printable(str(path)))
        for name, probability in zip(names, probabilities, strict=True):
            print(f"  {probability:7.2%}  {cli.printable(name)}")
    if shown:
        from alexnet_tf.serving import prediction_panel  # matplotlib takes half a second

        if prediction_panel.write_panel(flag.panel, [prediction_panel.ClassifiedImage(*each) for each in shown]):
            print(f"Written: {flag.panel}")
    if failed:
        sys.exit(1)


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "IMAGE ...")


if __name__ == "__main__":
    run()
