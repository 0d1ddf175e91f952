"""The examples in the docstrings of the public names."""

import doctest

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import alexnet_tf

NAMES = [name for name in alexnet_tf.__all__ if name != "VARIANTS"]


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name, tiny_data_dir, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos").symlink_to(tiny_data_dir)
    monkeypatch.chdir(tmp_path)
    names = {"alexnet_tf": alexnet_tf, "keras": keras, "np": np, "PIL": PIL, "tf": tf}
    examples = doctest.DocTestFinder(recurse=False).find(getattr(alexnet_tf, name), name, globs=names)
    (failed, attempted), printed = (0, 0), []
    for example in examples:
        failed, attempted = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=printed.append)
    assert attempted, f"{name} has no example"
    assert not failed, "".join(printed)
