"""Exports a trained model as a numbered version: a SavedModel for TensorFlow Serving, a web page, or another format.

Examples:

    alexnet-export --model=runs/photos --data_dir=runs/photos/data --export_dir=served/alexnet
    alexnet-export --model=torchvision --export_dir=served/alexnet
    alexnet-export --model=runs/photos --data_dir=runs/photos/data --format=web --export_dir=served/page --serve=8000
    alexnet-export --model=runs/photos --data_dir=runs/photos/data --format=onnx --export_dir=served/onnx
"""

import functools
import http.server
import pathlib
import socket

from absl import flags

from alexnet_tf import cli, options
from alexnet_tf.serving import browser_runtime, formats
from alexnet_tf.weights import published


def define_flags():
    """Defines the command-line flags."""
    flags.DEFINE_string("model", None, f"Model to export: {cli.MODELS}.", required=True)
    flags.DEFINE_string(
        "export_dir", None, "Model base path of TensorFlow Serving. Each export is a numbered subfolder.", required=True
    )
    options.define_flags(formats.ExportConfig)
    flags.DEFINE_integer("serve", None, "web: local port at which to serve the page after the export.", lower_bound=0)


def main(arguments):
    flag = flags.FLAGS
    config = options.read_flags(formats.ExportConfig)
    if flag.serve is not None and config.format != "web":
        raise ValueError(f"`serve` is for --format=web. Received: --format={config.format}")
    published.check_model(flag.model)
    # Before the export, which takes minutes: is the package complete, and the port free?
    if config.runtime:
        browser_runtime.read_package(config.runtime)
    if flag.serve is not None:
        socket.create_server(("127.0.0.1", flag.serve)).close()
    # Imported here, so that --help and flag errors do not wait for TensorFlow.
    from alexnet_tf.model import load_model
    from alexnet_tf.serving import exporter
    from alexnet_tf.weights import pretrained

    model = load_model(flag.model)
    run = None if pretrained.published_name(flag.model) else pathlib.Path(flag.model)
    how = f"as {config.format} in {config.precision}"
    print(f"Exporting {model.name} {how}. The full network takes about a minute.", flush=True)
    folder = exporter.export_model(
        model, model.description, flag.export_dir, config, run=run.parent if run and run.is_file() else run
    )
    report = folder / exporter.ASSETS / "parity.md"
    if report.exists():
        print(report.read_text(encoding="utf-8"))
    print(f"Exported: {folder} ({formats.size_mb(folder):,.0f} MB)")
    if flag.serve is not None:
        _serve(folder, flag.serve)


def _serve(folder, port):
    """Serves a folder on 127.0.0.1, until Ctrl-C."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"Open http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)", flush=True)
        server.serve_forever()


def run():
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
