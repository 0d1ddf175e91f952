"""Logits and training steps of the testing network on Keras's backend, which a test compares with other backends'.

python backend_training.py OUTPUT.npz BACKEND
"""

import sys

import keras
import numpy as np

from alexnet_tf import model
from alexnet_tf.training import optimizers

RULES = {"paper": optimizers.PaperMomentum(0.01, weight_decay=0.05), "LARS": optimizers.Lars(0.1)}


def logits_and_changes() -> dict[str, np.ndarray]:
    """The logits before training, and by how much each rule changes each weight in three steps."""
    keras.utils.set_random_seed(0)
    alexnet = model.build_alexnet("testing", 10, initializer="zeros", input_scale=1 / 80)
    random = np.random.default_rng(0)
    for weight in alexnet.weights:  # at this scale every layer has a gradient
        spread = (2 / np.prod(weight.shape[:-1])) ** 0.5 if len(weight.shape) > 1 else 0.1
        weight.assign(random.normal(scale=spread, size=weight.shape))
    alexnet.get_layer("mean_image").set_mean_image(np.full((56, 56, 3), 120.0))
    images, labels = random.integers(0, 256, (4, 56, 56, 3)).astype("uint8"), np.arange(4)
    logits = keras.Model(alexnet.input, alexnet.get_layer("fc8").output)
    results = {"logits": logits.predict_on_batch(images)}
    for name in ("drop6", "drop7"):
        alexnet.get_layer(name).rate = 0.0  # backends draw different random numbers
    before = alexnet.get_weights()
    for rule, optimizer in RULES.items():
        alexnet.set_weights(before)
        alexnet.compile(optimizer, "sparse_categorical_crossentropy")
        alexnet.train_on_batch(images, labels)
        # Frozen when it already has momentum, which must become 0.
        optimizer.set_rate_multipliers({"bias": 2.0, "conv2/kernel_2": 0.0})
        for _ in range(2):
            alexnet.train_on_batch(images, labels)
        for weight, old in zip(alexnet.weights, before, strict=True):
            results[f"{rule}: {weight.path}"] = keras.ops.convert_to_numpy(weight) - old
    return results


if __name__ == "__main__":
    output, backend = sys.argv[1:]
    assert keras.backend.backend() == backend
    np.savez(output, **logits_and_changes())
