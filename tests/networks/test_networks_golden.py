"""Every network in every form of its columns, against what it was before the table of variants was rows of layers."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from programs import ENVIRONMENT

from alexnet_tf.networks.variants import VARIANTS

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
EXPECTED = json.loads((GOLDENS / "networks.json").read_text())
_SMALL = ["testing", "four_layer", "four_layer_tanh"]
_FULL_WIDTH = [name for name in VARIANTS if name not in _SMALL]


def test_every_variant_has_a_golden_of_its_networks():
    assert EXPECTED.keys() == VARIANTS.keys()


@pytest.mark.parametrize(
    "variants",
    [
        pytest.param(_SMALL, id="small"),
        pytest.param(_FULL_WIDTH[:3], id="full_width", marks=pytest.mark.slow),
        pytest.param(_FULL_WIDTH[3:], id="other_full_width", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_layers_weights_devices_and_logits_equal_the_golden(variants):
    command = [sys.executable, GOLDENS / "networks.py", *variants]
    made = json.loads(subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout)
    for variant in variants:
        assert made[variant].keys() == EXPECTED[variant].keys(), variant
        for form, expected in EXPECTED[variant].items():
            network = made[variant][form]
            logits, expected_logits = (np.loadtxt(each.pop("logits")) for each in (network, expected))
            np.testing.assert_allclose(logits, expected_logits, atol=2e-3, err_msg=f"{variant}, {form}")
            assert network == expected, (variant, form)
