"""Exports a trained model as a numbered version: a SavedModel for TF Serving, a page, or another format."""

import functools
import http.server
import pathlib
import socket

from absl import flags

from alexnet_tf import cli
from alexnet_tf.serving import browser_runtime, formats


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "model", None, "A run's folder (the --run_dir of alexnet-train) or a .keras file in one.", required=True
    )
    flags.DEFINE_string(
        "export_dir",
        None,
        "TF Serving's base path of the model: the export becomes a numbered folder in it.",
        required=True,
    )
    flags.DEFINE_integer("version", None, "The version; by default the one after the largest there.", lower_bound=1)
    flags.DEFINE_enum("format", "savedmodel", sorted(formats.PRECISIONS), "Format of the model.")
    flags.DEFINE_enum(
        "precision",
        None,
        ["float32", "bfloat16", "float16", "int8"],
        "Of the weights; bfloat16, for a SavedModel, and int8, for the other formats: of products too. By default "
        "float32; of a page int8.",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "A data set of the same classes: the export is compared with the trained model on its validation images, and "
        "int8 is calibrated on its training images. A page shows images of both.",
    )
    flags.DEFINE_integer("num_images", 1000, "Images of --data_dir that are used, at most.", lower_bound=1)
    flags.DEFINE_integer(
        "max_pixels",
        formats.MAX_PIXELS,
        "Pixels that an image sent to the server may have: bounds the memory for decoding it.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "runtime",
        None,
        "web: the npm package onnxruntime-web, its folder or the .tgz of `npm pack onnxruntime-web`, which is copied; "
        "without it the page loads it from a CDN.",
    )
    flags.DEFINE_integer(
        "serve", None, "web: the port of this machine at which the page is served, once it is written.", lower_bound=0
    )


def main(arguments):
    flag = flags.FLAGS
    precision = flag.precision or formats.PRECISIONS[flag.format][0]
    formats.check(flag.format, precision, flag.data_dir)
    for name in ("runtime", "serve"):
        if getattr(flag, name) is not None and flag.format != "web":
            raise ValueError(f"`{name}` is for --format=web. Received: --format={flag.format}")
    # Before the work of minutes: is the package whole, and the port free?
    if flag.runtime:
        browser_runtime.open_package(flag.runtime)
    if flag.serve is not None:
        socket.create_server(("127.0.0.1", flag.serve)).close()
    # Not with the module: --help and wrong flags are answered without TensorFlow.
    from alexnet_tf.model import load_model
    from alexnet_tf.serving import exporter
    from alexnet_tf.weights import pretrained

    model, description = load_model(flag.model)
    run = None if pretrained.published_name(flag.model) else pathlib.Path(flag.model)
    folder = exporter.export_model(
        model,
        description,
        flag.export_dir,
        version=flag.version,
        model_format=flag.format,
        precision=precision,
        max_pixels=flag.max_pixels,
        run=run.parent if run and run.is_file() else run,
        data_dir=flag.data_dir,
        num_images=flag.num_images,
        runtime=flag.runtime,
    )
    report = folder / exporter.ASSETS / "parity.md"
    if report.exists():
        print(report.read_text(encoding="utf-8"))
    print(f"Exported: {folder} ({formats.size_mb(folder):,.0f} MB)")
    if flag.serve is not None:
        _serve(folder, flag.serve)


def _serve(folder, port):
    """Serves a folder to this machine alone, until Ctrl-C."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"Open http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)", flush=True)
        server.serve_forever()


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
