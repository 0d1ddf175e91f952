"""Runs a function around the first import of a package, which need not be installed."""

import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence


def around_import(name: str, run: Callable[[types.ModuleType, Callable[[], None]], None]) -> None:
    """Has a function called instead of a package's first import, once.

    Args:
        name: the package, which must not have been imported yet.
        run: takes the module and a function without arguments that executes it.
    """
    if not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, run))


class _Finder:
    """A finder for `sys.meta_path` that wraps the loader of one package."""

    def __init__(self, name, run):
        self.name, self._run = name, run

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((s for s in (finder.find_spec(fullname, path, target) for finder in others) if s), None)
        if spec is not None and spec.loader is not None:
            exec_module = spec.loader.exec_module

            def exec_wrapped(module: types.ModuleType) -> None:
                sys.meta_path.remove(self)
                self._run(module, lambda: exec_module(module))

            spec.loader.exec_module = exec_wrapped
        return spec
