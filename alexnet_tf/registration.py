"""Registers the project's layers, optimizers and schedules with Keras as soon as Keras is imported.

`keras.models.load_model` opens a saved network only when its classes are registered, and they are registered when their
modules are imported. `import alexnet_tf` can't import these: they import Keras, which takes seconds, and every program
and every worker process of the builder imports the package. So the import of Keras is watched.
"""

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Sequence

# All modules with a class that is decorated with `register_keras_serializable`. They import without TensorFlow, which
# is missing on Keras's other backends, and none needs a name of another while it is imported: the one that
# imports Keras first is itself half imported when the others are.
_MODULES = ("alexnet_tf.layers", "alexnet_tf.training.optimizers", "alexnet_tf.training.schedules")


def register_with_keras() -> None:
    """Imports the modules above: at once if Keras is imported, otherwise right after it."""
    if "keras" in sys.modules:
        _import_modules()
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


def _import_modules() -> None:
    for name in _MODULES:
        importlib.import_module(name)


class _KerasFinder:
    """A finder for `sys.meta_path` of Keras, whose loader then imports the modules above too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((s for s in (finder.find_spec(fullname, path, target) for finder in others) if s), None)
        if spec is not None and spec.loader is not None:
            exec_module = spec.loader.exec_module

            def exec_and_register(module: types.ModuleType) -> None:
                exec_module(module)
                sys.meta_path.remove(self)
                _import_modules()

            spec.loader.exec_module = exec_and_register
        return spec
