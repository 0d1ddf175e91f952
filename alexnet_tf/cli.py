"""How every program starts and ends, as a module and as a console script.

Nothing here imports TensorFlow: --help and mistakes in flags are answered at once.
"""

import io
import math
import pathlib
import re
import sys
from typing import Any

from absl import app, flags, logging

from alexnet_tf import quiet

flags.disclaim_key_flags()  # what is defined here counts as the calling program's, which --help then lists

# Lines of TensorFlow's errors that tell where, not what: the operation, and a traceback that may be long.
_WHERE = re.compile(
    r"Graph execution error:|in user code:|Detected at node |<stack traces unavailable>|\d+ root error|\s+File |\s{8}"
)

# What is written is renamed when it is whole, which object stores do not do; "gs://a" would become a folder "gs:" here.
# Data sets and TFRecords of others are read there by TensorFlow, and TensorFlow Datasets reads its own files.
_OBJECT_STORE = re.compile(r"(\w+:)?(gs|s3a?|abfss?|az|wasbs?|adl|oss|hdfs|viewfs)://")
_READ_ANYWHERE = {
    "data_dir": (None, "tfrecords:"),
    "source": ("tfrecords:",),
    "class_names": (None,),
    "tfds_data_dir": (None,),
}

EXIT_USAGE = 2  # a mistake of the user's: a flag, a file, an address


def start(module, define_flags, main, arguments=""):
    """Defines a program's flags, reads them, runs its main function, and exits.

    A user's mistake (ValueError, OSError, a missing package, data that TensorFlow can't read) ends with a line on
    stderr and status 2, Ctrl-C with status 130; `--debug` shows the traceback. Any other exception is a bug of ours and
    shows its own.

    Args:
        module: the program's `__name__`.
        define_flags: a function that defines the flags.
        main: a function of the list of arguments that are not flags.
        arguments: what these arguments are, for messages, such as "IMAGE ..."; in brackets if they are optional; empty
            if the program takes flags only.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to end
        sys.stdout.reconfigure(errors="backslashreplace")
    define_flags()
    flags.DEFINE_bool("debug", False, "Show TensorFlow's log messages, and the traceback of an error.")
    # absl's --help lists the flags of the main module, which the program is not when a console script calls it.
    for flag in flags.FLAGS.get_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)

    def run(argv):
        given = argv[1:]
        if given and not arguments:
            _fail(f"The program takes flags only. Received: {' '.join(given)}")
        if not given and arguments and not arguments.startswith("["):
            _fail(f"The program needs arguments: {arguments}")
        if not flags.FLAGS.debug:
            logging.set_verbosity(logging.WARNING)
            quiet.silence_tensorflow()
        try:
            main(given)
        except KeyboardInterrupt:
            if flags.FLAGS.debug:
                raise
            _fail("interrupted", status=130)
        except Exception as error:
            if flags.FLAGS.debug or not _is_mistake(error):
                raise
            _fail(reason(error), status=1 if isinstance(error, FloatingPointError) else EXIT_USAGE)

    app.run(run, flags_parser=_parse_flags)


def _parse_flags(argv):
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{'; '.join(str(error).splitlines())} (--help lists the flags)")
    except SystemExit:  # absl ends --help, which is no failure, with status 1
        sys.exit(0)
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):  # bounds let NaN pass
            _fail(f"`{name}` must be a finite number. Received: {name}={value}")
        for path in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
            remote = _OBJECT_STORE.match(str(path))
            if remote and remote[1] not in _READ_ANYWHERE.get(name, ()):
                _fail(remote_path_error(name, path))
    return rest


def remote_path_error(argument: str, path: str) -> str:
    """The message about a path in an object store that is written, or read by something else than TensorFlow."""
    return (
        f"`{argument}` must be on a disk. Mount an object store or HDFS as one: gcsfuse, mount-s3, blobfuse2, "
        f"hdfs-fuse. Received: {argument}={path}"
    )


def _is_mistake(error):
    tensorflow = sys.modules.get("tensorflow")
    mistakes = (ValueError, OSError, ImportError, FloatingPointError)
    return isinstance(error, mistakes if tensorflow is None else (*mistakes, tensorflow.errors.OpError))


def reason(error: Exception) -> str:
    """The first line of an error's message; of TensorFlow's the one that says why, without names of operations."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [repr(error)]
    first = next((line for line in lines if not _WHERE.match(line)), lines[0]).strip()
    first = re.sub(r"^\{\{.*?\}\} ?| \[Op:.*$", "", first)
    return f"{first} [{len(lines) - 1} more lines with --debug]" if len(lines) > 1 else first


def printable(text: str) -> str:
    """Replaces the characters that a terminal would interpret instead of showing them."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _fail(message, status=EXIT_USAGE):
    print(f"{pathlib.Path(sys.argv[0]).stem}: error: {message}", file=sys.stderr)
    sys.exit(status)


RECORD_FORMAT = ("label_offset", "image_key", "label_key", "class_names")


def define_record_format() -> None:
    """Defines the flags of TFRecords of others, of the programs that read them."""
    flags.DEFINE_integer(
        "label_offset",
        None,
        "tfrecords: the label of the first class, 0 if not given: 1 in TensorFlow's first ImageNet scripts and the "
        "Model Garden, whose 0 is the background.",
    )
    for name, keys in (("image", "image/encoded or image"), ("label", "image/class/label or label")):
        flags.DEFINE_string(f"{name}_key", None, f"tfrecords: the feature with the {name}; {keys} if not given.")
    flags.DEFINE_string(
        "class_names",
        None,
        "tfrecords: a file with a class's name per line, in the order of the labels; if not given, the names are those "
        "of TensorFlow Datasets, of image/class/text in the records, or the labels.",
    )


def record_format(flag: flags.FlagValues, argument: str) -> dict[str, Any]:
    """The values of these flags, as far as they are given: a dict, empty if none is.

    Args:
        flag: the values of all flags.
        argument: name of the flag that names the source.

    Raises:
        ValueError: if one is given for a source that is not "tfrecords:PATH".
    """
    source = flag[argument].value
    given = {name: flag[name].value for name in RECORD_FORMAT if flag[name].value is not None}
    if given and not source.startswith("tfrecords:"):
        raise ValueError(
            f"--{', --'.join(given)} can't be given without --{argument}=tfrecords:PATH. "
            f"Received: --{argument}={source}"
        )
    return given


def define_overwrite():
    """Defines --overwrite, of the programs whose flags name files to be written."""
    flags.DEFINE_bool("overwrite", False, "Whether files that exist already may be replaced.")


def check_outputs(argument, paths, overwrite, inputs=(), makes_folder=False):
    """Refuses to write over what exists, or where there is no folder, before any work is done for it.

    Args:
        argument: name of the flag that the paths are from.
        paths: the files that will be written.
        overwrite: whether they may exist.
        inputs: files that the program reads, which it never writes over.
        makes_folder: whether the program makes the files' folder if it does not exist.

    Raises:
        ValueError: if a file exists that may not, or its folder does not.
    """
    for path in map(pathlib.Path, paths):
        if any(path.exists() and path.samefile(each) for each in map(pathlib.Path, inputs) if each.exists()):
            raise ValueError(f"`{argument}` must not write over a file that is read. Received: {path}")
        if not makes_folder and not path.parent.is_dir():
            raise ValueError(f"`{argument}` must be in a folder that exists. Received: {path}")
        if path.is_dir():
            raise ValueError(f"`{argument}` must name a file. Received the folder {path}")
        if path.exists() and not overwrite:
            raise ValueError(f"`{argument}` must not write over a file, unless with --overwrite. Received: {path}")
