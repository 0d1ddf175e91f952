"""The example for KerasHub in docs/keras.md."""

import pathlib
import re

import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "keras.md"


def test_classifier_over_our_backbone_opens_from_its_preset(tmp_path, monkeypatch):
    pytest.importorskip("keras_hub")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {"__name__": "example"}
    exec(example.replace('weights="imagenet"', "weights=None"), names)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype("uint8")
    expected = names["classifier"].predict(pixels, verbose=0)
    np.testing.assert_array_equal(names["again"].predict(pixels, verbose=0), expected)
    assert expected.shape == (2, 5) and np.ptp(expected) > 0
