"""Registers the project's layers, optimizers and schedules with Keras as soon as Keras is imported.

`keras.models.load_model` opens a saved network only when its classes are registered, and they are registered when their
modules are imported. `import alexnet_tf` can't import these: they import Keras, which takes seconds, and every program
and every worker process of the builder imports the package. So the import of Keras is watched.
"""

import importlib
import sys

from alexnet_tf import import_hook

# All modules with a class that is decorated with `register_keras_serializable`. They import without TensorFlow, which
# is missing on Keras's other backends. None needs a name from another while it is imported: the one that imports Keras
# first is only half imported when the others are.
_MODULES = (
    "alexnet_tf.layers",
    "alexnet_tf.lpips",
    "alexnet_tf.training.optimizers",
    "alexnet_tf.training.schedules",
)


def register_with_keras() -> None:
    """Imports the modules above: at once if Keras is imported, otherwise right after it."""
    if "keras" in sys.modules:
        _import_modules()
    else:
        import_hook.around_import("keras", _import_keras)


def _import_keras(module, execute):
    execute()
    _import_modules()


def _import_modules() -> None:
    for name in _MODULES:
        importlib.import_module(name)
