"""Trains the testing network for some steps under a strategy; saves its weights and its validation.

    python replica_training.py DATA_DIR OUTPUT.npz STRATEGY AS_WORKERS [STEPS] [DROPOUT] [OPTIMIZER]

STRATEGY is a name for `strategies.make_strategy`; "mirrored" has two logical CPU devices; "fc_parallel" is
"multi_worker" with the fully-connected layers split. DROPOUT is 0 by default. With "one" each batch concatenates those
of AS_WORKERS workers: what they train on together. Each of several workers runs this file, with its TF_CONFIG.
"""

import sys
import types

import keras
import numpy as np
import tensorflow as tf

from alexnet_tf import model
from alexnet_tf.distribution import strategies, workers
from alexnet_tf.tfrecords import reader, schema
from alexnet_tf.training import fc_parallel, fit, optimizers
from alexnet_tf.training.checkpoints import Progress
from alexnet_tf.training.compilation import ConfusionMatrix
from alexnet_tf.training.gradient_norms import GradientNorms

BATCH_SIZE = 96  # 3,000 images leave a rest of 24, and 1,000 to be tested on of 40: none for some workers


def main(data_dir, output, name, as_workers, steps="20", dropout="0", optimizer="PaperMomentum"):
    if name == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    worker = workers.this_worker()
    strategy = strategies.make_strategy("multi_worker" if name == "fc_parallel" else name, worker)
    replicas, steps, as_workers = strategy.num_replicas_in_sync, int(steps), int(as_workers)
    # In float32 the order in which gradients are summed decides ties of max-pooling, which change the weights by 1e-4
    # within some steps.
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(worker.number)  # the initial weights are the chief's
    with strategy.scope():
        alexnet = model.build_alexnet("testing", 10, initializer="he_normal", input_scale=0.0125)
        for layer in ("drop6", "drop7"):
            alexnet.get_layer(layer).rate = float(dropout)
        model_class = strategies.DistributedModel if replicas > 1 else keras.Model
        trained = model.with_color_offset(alexnet, model_class)
        # Without top5, which TensorFlow can't count in float64.
        optimizer = getattr(optimizers, optimizer)(0.05)
        if name == "fc_parallel":
            trained, optimizer = fc_parallel.split(alexnet, optimizer, strategy, worker)
        optimizer.build(trained.trainable_variables)
        norms = optimizer.gradient_norms or GradientNorms(trained.trainable_variables)
        optimizer.gradient_norms = norms
        accuracy = ConfusionMatrix(10)
        trained.compile(optimizer, "sparse_categorical_crossentropy", metrics=[accuracy], jit_compile=False)

    description = schema.load_description(data_dir)

    def training(step, share):
        shares = [share] if replicas > 1 else [reader.Share(number, as_workers) for number in range(as_workers)]
        parts = [reader.make_training_dataset(data_dir, BATCH_SIZE, 56, share=part) for part in shares]
        if len(parts) == 1:
            return parts[0]
        return tf.data.Dataset.zip(*parts).map(
            lambda *batches: tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *batches)
        )

    data = types.SimpleNamespace(
        steps_per_epoch=steps,
        training=training,
        validation=lambda share: reader.make_evaluation_dataset(data_dir, BATCH_SIZE, 56, share=share),
        validation_steps=lambda replicas: reader.evaluation_steps(description, BATCH_SIZE, all_replicas=replicas),
    )
    history = keras.callbacks.History()
    # As at the log points of a run: LARS must not depend on whether the norms are logged.
    log_last = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: norms.enable(batch + 1 == steps))
    fit.fit(trained, data, Progress(), 1, [history, log_last], worker)
    if replicas > 1:
        trained.gather_weights()
    np.savez(
        str(output).format(worker=worker.number),
        *alexnet.get_weights(),
        **{key: values[0] for key, values in history.history.items()},
        gradient_norms=[norms.norm(v) for v in trained.trainable_variables if len(v.shape) > 1],
        weight_norms=[norms.weight_norm(v) for v in trained.trainable_variables if len(v.shape) > 1],
        replicas=replicas,
        gathered=strategies.gather_rows(strategy, worker, np.full((1 + worker.number, 2), worker.number)),
    )
    strategies.check_workers_agree(strategy, worker, {"finished": True})


if __name__ == "__main__":
    main(*sys.argv[1:])
