"""A Keras model of your own, trained by several workers with `fit`, which Keras 3 alone can't (keras issue 20585).

    TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}' \\
        python docs/distributed_keras.py

on machine a, and with index 1 on machine b. `alexnet_tf.DistributedModel` takes the place of `keras.Model`; all else is
as in Keras's guide: the strategy before any other operation, the model built and compiled in its scope, and on each
worker a share of the data. Without TF_CONFIG, it trains alone.
"""

import json
import os

import keras
import numpy as np
import tensorflow as tf

import alexnet_tf

GLOBAL_BATCH, STEPS = 64, 30

strategy = tf.distribute.MultiWorkerMirroredStrategy()
config = json.loads(os.environ.get("TF_CONFIG", "{}"))
workers = len(config["cluster"]["worker"]) if config else 1
index = config["task"]["index"] if config else 0
keras.utils.set_random_seed(0)

with strategy.scope():
    inputs = keras.Input((20,))
    hidden = keras.layers.Dense(32, activation="relu")(inputs)
    model = alexnet_tf.DistributedModel(inputs, keras.layers.Dense(3)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])

random = np.random.default_rng(0)
points = random.normal(size=(GLOBAL_BATCH * STEPS, 20)).astype("float32")
labels = points[:, :3].argmax(axis=1)
dataset = tf.data.Dataset.from_tensor_slices((points, labels)).shard(workers, index)
dataset = dataset.batch(GLOBAL_BATCH).repeat()  # `fit` divides each batch by the number of workers
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF  # it is sharded already

history = model.fit(dataset.with_options(options), epochs=3, steps_per_epoch=STEPS, verbose=2 if index == 0 else 0)
weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
print(f"worker {index} of {workers}: loss {history.history['loss'][-1]:.6f}, weights {np.abs(weights).sum():.6f}")
