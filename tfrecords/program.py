"""How every program starts, as a module and as a console script."""

import sys

from absl import app, flags


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
