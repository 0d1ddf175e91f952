"""Asks a served model about image files: a table or JSON lines, and a panel of pictures."""

import json
import pathlib
import sys

from absl import flags

from alexnet_tf.serving import remote_model
from alexnet_tf.tfrecords import program

_MOST_IN_PANEL = 40
_MOST_REQUEST_BYTES = 32 * 1024 * 1024  # larger requests are sent as several


def find_files(paths):
    """The files of some paths: those named, and those in named folders, at any depth, in the order of their names.

    Files and folders whose names begin with a dot are left out, unless they are named themselves.

    Raises:
        ValueError: where there is nothing at a path.
    """
    files = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
            files += [file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)]
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"There is no file or folder {path}.")
    return files


def requests(files, batch_size):
    """Groups files into requests.

    Yields: lists of (path, content), content being bytes, or the OSError that reading raised. At most `batch_size` in a
    list, and fewer where they are large.
    """
    group, size = [], 0
    for path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            content = error
        length = len(content) if isinstance(content, bytes) else 0
        if group and (len(group) == batch_size or size + length > _MOST_REQUEST_BYTES):
            yield group
            group, size = [], 0
        group.append((path, content))
        size += length
    if group:
        yield group


def ask(connection, files, batch_size, deadline_s):
    """Asks about files.

    Yields: (path, content, answer, error) of each, in order: a `remote_model.Answer` and None, or None and a text.
    """
    for group in requests(files, batch_size):
        readable = [content for _, content in group if isinstance(content, bytes)]
        failure, answers = None, iter(())
        try:
            answers = iter(remote_model.ask_persistently(connection, readable, deadline_s) if readable else ())
        except remote_model.RequestFailed as error:
            failure = str(error)
        for path, content in group:
            if not isinstance(content, bytes):
                yield path, None, None, f"can't be read: {content}"
            elif failure:
                yield path, content, None, failure
            else:
                answer = next(answers)
                yield path, content, *((answer, None) if answer.valid else (None, "not an image that can be read"))


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_string(
        "server", "http://localhost:8501", "grpc://, grpcs://, http:// or https://, host and port of the server."
    )
    flags.DEFINE_string("model", "alexnet", "The model's name on the server.")
    flags.DEFINE_integer("version", None, "The model's version; by default the newest.", lower_bound=1)
    flags.DEFINE_enum("signature", "serving_default", ["serving_default", "ten_view"], "Centre crop, or ten views.")
    flags.DEFINE_string(
        "ca_certificate", None, "PEM file of the authority that signed the server's certificate; makes it TLS."
    )
    flags.DEFINE_integer(
        "batch_size", 16, "Images in a request, at most; no more than the server's max_batch_size.", lower_bound=1
    )
    flags.DEFINE_float("deadline", 30.0, "Seconds for a request, all its tries included.", lower_bound=0.001)
    flags.DEFINE_enum("format", "table", ["table", "jsonl"], "What is printed: a table, or a JSON object a line.")
    flags.DEFINE_string("panel", None, "Where to write the first 40 images with their classes as a PNG.")
    program.define_overwrite()


def main(arguments):
    flag = flags.FLAGS
    connection = remote_model.connect(
        flag.server,
        flag.model,
        version=flag.version,
        signature=flag.signature,
        ca_certificate=flag.ca_certificate,
    )
    files = find_files(arguments)
    if not files:
        raise ValueError(f"There are no files in {', '.join(arguments)}.")
    if flag.panel:
        program.check_outputs("panel", [flag.panel], flag.overwrite, files)
    width = max(len(str(path)) for path in files)
    failed, shown = 0, []
    for path, content, answer, error in ask(connection, files, flag.batch_size, flag.deadline):
        failed += error is not None
        if flag.format == "jsonl":
            classes = [
                {"class": name, "probability": probability}
                for name, probability in (zip(answer.class_names, answer.probabilities, strict=True) if answer else ())
            ]
            print(json.dumps({"file": str(path), "classes": classes, "error": error}), flush=True)
        elif error:
            print(f"{path}: {error}", file=sys.stderr, flush=True)
        else:
            best = zip(answer.class_names, answer.probabilities, strict=True)
            print(f"{path!s:<{width}}  " + "  ".join(f"{p:6.2%} {name}" for name, p in best), flush=True)
        if answer and flag.panel and len(shown) < _MOST_IN_PANEL:
            shown.append((path, content, answer))
    if flag.panel and shown:
        write_panel(flag.panel, shown)
        print(f"Written: {flag.panel}", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(files)} files without an answer.", file=sys.stderr)
        sys.exit(1)


def write_panel(path, shown):
    """Writes a PNG of images with their most probable classes; `shown` holds (path, content, `remote_model.Answer`)."""
    import tensorflow as tf

    from alexnet_tf.serving import preprocessing
    from alexnet_tf.visualization import plots

    pictures = [preprocessing.decode_square(tf.constant(content), 256).numpy() for _, content, _ in shown]
    answers = [(answer.class_names, answer.probabilities) for _, _, answer in shown]
    plots.save_png(path, plots.prediction_panel(pictures, answers, [file.stem for file, _, _ in shown]))


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main, "IMAGE ...")


if __name__ == "__main__":
    run()
