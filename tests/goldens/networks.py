"""Prints what `build_alexnet` makes of every variant, in each form of its columns: networks.json is its output.

    python tests/goldens/networks.py > tests/goldens/networks.json

Per layer: class, configuration, weights with their shapes and devices. Per network: the parameters, and the logits of
two images under weights that depend on nothing but their names and shapes.
"""

import json
import sys
import zlib

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf.model import build_alexnet
from alexnet_tf.networks.variants import VARIANTS

# Forms by the arguments of `build_alexnet`. A form that a variant does not have is left out.
FORMS = {
    "default": {},
    "merged": {"merge_columns": True},
    "split": {"merge_columns": False},
    "devices": {"merge_columns": False, "column_devices": ["CPU:1", "CPU:2"]},
}
_CLASSES = 10
_OF_KERAS = ("name", "trainable", "dtype", "build_config", "module", "registered_name", "autocast", "seed")


def _plain(value):
    """A configuration without what Keras adds, and with the name that an argument had in older files."""
    if isinstance(value, dict):
        renamed = {"sees": "input_columns"}
        return {renamed.get(key, key): _plain(each) for key, each in value.items() if key not in _OF_KERAS}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return round(value, 10) if isinstance(value, float) else value


def _fixed_values(name, shape):
    """Values of He's scale from the name and the shape alone: a kernel's are a short block of random ones, repeated."""
    random = np.random.default_rng(zlib.crc32(f"{name} {shape}".encode()))
    fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 1e4
    # 10,007 is prime, so that rows are not copies of one another.
    return np.resize(np.float32(random.normal(scale=np.sqrt(2 / fan_in), size=10_007)), shape)


def _set_fixed_weights(network):
    """The same function in each form: the weights of all columns together are drawn, and dealt out to the columns."""
    for layer in network.layers:
        if hasattr(layer, "kernels"):
            for name, parts in (("kernel", layer.kernels), ("bias", layer.biases)):
                if parts:
                    *others, units = parts[0].shape
                    whole = _fixed_values(f"{layer.name}/{name}", (*others, units * len(parts)))
                    for variable, part in zip(parts, np.split(whole, len(parts), axis=-1), strict=True):
                        variable.assign(part)
        elif layer.name == "mean_image":
            layer.set_mean_image(np.full(layer.mean.shape, 110.0, "float32"))


def network_of(variant, form):
    """The golden of one network: a dict that JSON can hold, or None where the variant does not have the form."""
    try:
        network = build_alexnet(variant, _CLASSES, input_scale=0.0125, **FORMS[form])
    except ValueError:
        return None
    layers = {}
    for layer in network.layers:
        weights = [f"{w.path.partition('/')[2] or w.path}{list(w.shape)}" for w in layer.weights]
        if form == "devices":
            weights = [f"{text}@{w.value.device[-5:]}" for text, w in zip(weights, layer.weights, strict=True)]
        layers[layer.name] = f"{type(layer).__name__} {json.dumps(_plain(layer.get_config()))} {' '.join(weights)}"
    _set_fixed_weights(network)
    side = network.input_shape[1]
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype("float32")
    probabilities = keras.ops.convert_to_numpy(network(images, training=False))
    logits = np.log(probabilities) - np.log(probabilities).mean(axis=1, keepdims=True)
    keras.backend.clear_session()
    return {
        "name": network.name,
        "parameters": network.count_params(),
        "logits": [" ".join(f"{value:.4f}" for value in row) for row in logits],
        "layers": layers,
    }


def main(variants):
    """Goldens by variant and form; the layers of a form other than the default are those that differ from its."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
    )
    goldens = {}
    for variant in variants or VARIANTS:
        forms = {form: network_of(variant, form) for form in FORMS}
        default = forms["default"]["layers"]
        for form, network in forms.items():
            if network and form != "default":
                assert list(network["layers"]) == list(default)
                network["layers"] = {n: text for n, text in network["layers"].items() if text != default[n]}
        goldens[variant] = {form: network for form, network in forms.items() if network}
    print(json.dumps(goldens, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
