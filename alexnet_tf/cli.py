"""How every program starts and ends.

Nothing here imports TensorFlow, so that `--help` and flag errors do not wait for it. Programs define their flags in a
function, not on import, so that two programs can be imported together.
"""

import io
import math
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from alexnet_tf import options, quiet

flags.disclaim_key_flags()  # flags defined here count as the calling program's, so that its --help lists them

# Lines of TensorFlow's errors that say where, not what: the operation, and a traceback that may be long.
_WHERE = re.compile(
    r"Graph execution error:|in user code:|Detected at node |<stack traces unavailable>|\d+ root error|\s+File |\s{8}"
)

# Files are renamed once they are complete, which object stores don't support: "gs://a" would become a folder "gs:".
# TensorFlow reads data sets and third-party TFRecords from there, and TensorFlow Datasets reads its own files.
_OBJECT_STORE = re.compile(r"(\w+:)?(gs|s3a?|abfss?|az|wasbs?|adl|oss|hdfs|viewfs)://")
_READ_ANYWHERE = {
    "data_dir": (None, "tfrecords:"),
    "source": ("tfrecords:",),
    "class_names": (None,),
    "tfds_data_dir": (None,),
}

# absl's message about a required flag that was not given.
_REQUIRED = re.compile(r"flag --\w+=\S+: Flag --(\w+) must have a value other than None\.")

# What programs open as a model, for their flags' help.
MODELS = (
    "a run's folder (--run_dir of alexnet-train), a .keras file, or published weights by name (torchvision, caffe, "
    "caffenet, ...; alexnet-describe --weights lists them)"
)

EXIT_USAGE = 2  # a user's mistake: a flag, a file, an address


def start(module, define_flags, main, arguments=""):
    """Defines a program's flags, reads them, runs its main function, and exits.

    A user's mistake (ValueError, OSError, a missing package, data that TensorFlow can't read or that memory can't hold)
    ends with one line on stderr and status 2, Ctrl-C with status 130; `--debug` shows the traceback. Any other
    exception is a bug and always shows its traceback.

    Args:
        module: the program's `__name__`.
        define_flags: a function that defines the flags.
        main: a function that takes the list of arguments that are not flags.
        arguments: description of these arguments for messages, such as "IMAGE ..."; in brackets if they are optional;
            empty if the program takes only flags.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # the terminal's encoding may lack characters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    define_flags()
    options.groups["debug"] = "Messages"
    flags.DEFINE_bool("debug", False, "Show TensorFlow's log messages, and the traceback of an error.")
    # absl's --help lists the flags of the main module, which isn't the program when a console script calls it.
    for flag in flags.FLAGS.get_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)

    def run(argv):
        given = argv[1:]
        if given and not arguments:
            _fail(f"The program takes only flags. Received: {' '.join(given)}")
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

    if not {"--help", "-help", "-h"}.isdisjoint(sys.argv[1:]):
        _print_help(module, arguments)
        sys.exit(0)
    app.run(run, flags_parser=_parse_flags)


def _print_help(module, arguments):
    """Prints what a program does, examples, its arguments, and its flags by group in the order of their definition."""
    own = flags.FLAGS.get_flags_for_module(module)
    required = [flag for flag in own if any("other than None" in each.message for each in flag.validators)]
    spec = sys.modules["__main__"].__spec__
    program = f"python -m {spec.name}" if module == "__main__" and spec else pathlib.Path(sys.argv[0]).stem
    usage = [program, *(f"--{flag.name}=..." for flag in required), "[FLAGS]", arguments]
    lines = [str(sys.modules[module].__doc__).strip(), "", f"Usage: {' '.join(usage)}".rstrip()]
    for index, flag in enumerate(own):
        if flag.name in options.groups or index == 0:
            lines += ["", f"{options.groups.get(flag.name, 'Flags')}:"]
        name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
        choices = getattr(flag.parser, "enum_values", [])
        text = re.sub(r";\s+repeat this option.*", "", flag.help)
        text = text.replace("|".join(choices), " | ".join(choices), 1) if choices else text
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        text += f" Default: {default}." if default not in (None, False, "", 0) else ""
        lines.append(flags.text_wrap(f"{name}: {text}", indent="      ", firstline_indent="  "))
    sys.stdout.write("\n".join([*lines, ""]))


def _parse_flags(argv):
    try:
        rest = flags.FLAGS(argv)
    except flags.CantOpenFlagFileError as error:
        _fail(f"`flagfile` can't be read: {str(error).rpartition('] ')[2]}")
    except flags.Error as error:
        lines = [_REQUIRED.sub(r"--\1 is required", line) for line in str(error).splitlines()]
        _fail(f"{'; '.join(lines)} (--help lists the flags)")
    except SystemExit:  # absl ends --helpfull with status 1, although it is not a failure
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
    """The message about a path in an object store that must be on a disk."""
    return (
        f"`{argument}` must be on a disk. Mount an object store or HDFS as one: gcsfuse, mount-s3, blobfuse2, "
        f"hdfs-fuse. Received: {argument}={path}"
    )


def _is_mistake(error):
    tensorflow = sys.modules.get("tensorflow")
    mistakes = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)
    return isinstance(error, mistakes if tensorflow is None else (*mistakes, tensorflow.errors.OpError))


def reason(error: Exception) -> str:
    """The first line of an error's message; for TensorFlow's errors, the line with the root cause."""
    text = str(error).strip() or ("not enough memory" if isinstance(error, MemoryError) else repr(error))
    lines = [line for line in text.splitlines() if line.strip()]
    first = next((line for line in lines if not _WHERE.match(line)), lines[0]).strip()
    first = re.sub(r"^\{\{.*?\}\} ?| \[Op:.*$", "", first)
    return f"{first} [{len(lines) - 1} more lines with --debug]" if len(lines) > 1 else first


def printable(text: str) -> str:
    """Replaces the characters that a terminal would interpret instead of showing them."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _fail(message, status=EXIT_USAGE):
    print(f"{pathlib.Path(sys.argv[0]).stem}: error: {message}", file=sys.stderr)
    sys.exit(status)


def define_overwrite():
    """Defines --overwrite, for the programs whose flags name files to write."""
    flags.DEFINE_bool("overwrite", False, "Replace existing files.")


def check_exists(*paths: str | pathlib.Path) -> None:
    """Raises ValueError if a file or folder does not exist."""
    for path in paths:
        if not pathlib.Path(path).exists():
            raise ValueError(f"{path} does not exist.")


def check_unique(argument: str, items: Sequence[str]) -> None:
    """Raises ValueError if an item of a flag occurs twice."""
    if len(set(items)) < len(items):
        raise ValueError(f"`{argument}` must not name anything twice. Received: {','.join(items)}")


def check_outputs(argument, paths, overwrite, inputs=(), makes_folder=False):
    """Refuses to overwrite files, or to write into a missing folder, before any work is done.

    Args:
        argument: name of the flag with the paths.
        paths: the files that will be written.
        overwrite: whether they may exist.
        inputs: files that the program reads, which it never overwrites.
        makes_folder: whether the program makes the files' folder if it does not exist.

    Raises:
        ValueError: if a file must not exist and does, or its folder must exist and does not.
    """
    for path in map(pathlib.Path, paths):
        if any(path.exists() and path.samefile(each) for each in map(pathlib.Path, inputs) if each.exists()):
            raise ValueError(f"`{argument}` must not overwrite a file that is read. Received: {path}")
        if not makes_folder and not path.parent.is_dir():
            raise ValueError(f"`{argument}` must be in a folder that exists. Received: {path}")
        if path.is_dir():
            raise ValueError(f"`{argument}` must name a file. Received the folder {path}")
        if path.exists() and not overwrite:
            raise ValueError(f"`{argument}` must not overwrite a file, unless with --overwrite. Received: {path}")
