"""Classifies image files with a model on a server, and prints a table or JSON lines.

IMAGE is an image file or a folder of images.

Examples:

    alexnet-client --server=grpc://localhost:8500 --panel=panel.png photos
    alexnet-client --server=https://models.example --format=jsonl photos > answers.jsonl
"""

import json
import sys

from absl import flags

from alexnet_tf import cli
from alexnet_tf.serving import image_requests, remote_model

_MAX_IN_PANEL = 40


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string(
        "server",
        "http://localhost:8501",
        "Server address: grpc://, grpcs://, http:// or https://, host and port. gRPC takes about five seconds to "
        "start, because it imports TensorFlow.",
    )
    flags.DEFINE_string("model", "alexnet", "Model name on the server.")
    flags.DEFINE_integer("version", None, "Model version; by default the newest.", lower_bound=1)
    flags.DEFINE_enum(
        "signature", "serving_default", ["serving_default", "ten_view"], "Prediction from the center crop or ten views."
    )
    flags.DEFINE_string(
        "ca_certificate", None, "PEM file of the authority that signed the server's certificate. Turns on TLS."
    )
    flags.DEFINE_integer(
        "batch_size",
        16,
        "Maximum number of images in a request. Must not exceed the server's max_batch_size.",
        lower_bound=1,
    )
    flags.DEFINE_float("deadline", 30.0, "Seconds for a request, including retries.", lower_bound=0.001)
    flags.DEFINE_enum("format", "table", ["table", "jsonl"], "Output format: a table or JSON lines.")
    flags.DEFINE_string("panel", None, "PNG file to write: the first 40 images with their predictions.")
    cli.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    connection = remote_model.connect(
        flag.server,
        flag.model,
        version=flag.version,
        signature=flag.signature,
        ca_certificate=flag.ca_certificate,
    )
    files = image_requests.find_files(arguments)
    if flag.panel:
        cli.check_outputs("panel", [flag.panel], flag.overwrite, files)
    width = max(len(str(path)) for path in files)
    answered, failed, shown = 0, 0, []
    for path, content, prediction, error in image_requests.predict_files(
        connection, files, flag.batch_size, flag.deadline
    ):
        best = list(zip(prediction.class_names, prediction.probabilities, strict=True)) if prediction else []
        answered, failed = answered + 1, failed + (error is not None)
        if flag.format == "jsonl":
            classes = [{"class": name, "probability": probability} for name, probability in best]
            print(json.dumps({"file": str(path), "classes": classes, "error": error}), flush=True)
        elif error:
            print(f"{cli.printable(str(path))}: {error}", file=sys.stderr, flush=True)
        else:
            row = "  ".join(f"{p:6.2%} {name}" for name, p in best)
            print(f"{cli.printable(str(path)):<{width}}  {row}", flush=True)
        if prediction and flag.panel and len(shown) < _MAX_IN_PANEL:
            shown.append((path.stem, content, prediction.class_names, prediction.probabilities))
    if shown:
        from alexnet_tf.serving import prediction_panel  # Matplotlib takes half a second to import

        if prediction_panel.write_panel(flag.panel, shown):
            print(f"Written: {flag.panel}", file=sys.stderr)
    if answered < len(files):
        print(f"{flag.server} doesn't respond: {len(files) - answered} files were not sent.", file=sys.stderr)
    if failed:
        print(f"No prediction for {failed + len(files) - answered} of {len(files)} files.", file=sys.stderr)
        sys.exit(1)


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main, "IMAGE ...")


if __name__ == "__main__":
    run()
