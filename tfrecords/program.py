"""How every program starts, as a module and as a console script."""

import pathlib
import sys

from absl import app, flags

flags.disclaim_key_flags()  # what is defined here counts as the calling program's, which --help then lists


def start(module, define_flags, main):
    """Defines a program's flags, reads them, and runs its main function.

    Args:
        module: the program's `__name__`.
        define_flags: a function that defines the flags.
        main: a function of the arguments that are no flags, the program's name first.
    """
    define_flags()
    # absl's --help lists the flags of the main module, which the program is not when a console script calls it.
    for flag in flags.FLAGS.get_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main)


def define_overwrite():
    """Defines --overwrite, of the programs whose flags name files to be written."""
    flags.DEFINE_bool("overwrite", False, "Whether files that exist already may be replaced.")


def check_outputs(argument, paths, overwrite, inputs=()):
    """Refuses to write over what exists, before any work is done for it.

    Args:
        argument: name of the flag that the paths are from.
        paths: the files that will be written.
        overwrite: whether they may exist.
        inputs: files that the program reads, which it never writes over.

    Raises:
        ValueError: where a file exists that may not.
    """
    for path in map(pathlib.Path, paths):
        if any(path.exists() and path.samefile(each) for each in map(pathlib.Path, inputs) if each.exists()):
            raise ValueError(f"`{argument}` must not write over a file that is read. Received: {path}")
        if path.is_dir():
            raise ValueError(f"`{argument}` must name a file. Received the folder {path}")
        if path.exists() and not overwrite:
            raise ValueError(f"`{argument}` must not write over a file, unless with --overwrite. Received: {path}")
