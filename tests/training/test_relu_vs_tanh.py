"""The comparison of ReLU with tanh."""

import keras
import numpy as np
import pytest

from alexnet_tf.tfrecords import reader, schema
from alexnet_tf.training import relu_vs_tanh


class TestEpochsTo:
    def test_epochs_are_interpolated_linearly(self):
        assert relu_vs_tanh.epochs_to([0.6, 0.4, 0.2], 0.25) == pytest.approx(2.75)
        assert relu_vs_tanh.epochs_to([0.2], 0.6) == pytest.approx(0.5)
        assert relu_vs_tanh.epochs_to([0.6, 0.4], 0.25) is None


class TestCompare:
    def test_best_training_is_the_first_at_the_goal_or_else_the_nearest_to_it(
        self, tiny_data_dir, tmp_path, monkeypatch
    ):
        errors = {
            ("four_layer", 0.1): [0.5, 0.4, 0.3],
            ("four_layer", 0.2): [0.5, 0.2],  # reaches it, and the next need not go on longer
            ("four_layer", 0.3): [0.9, 0.8],
            ("four_layer_tanh", 0.1): [0.6, 0.5, 0.45],
            ("four_layer_tanh", 0.2): [0.6, 0.5, 0.4],
            ("four_layer_tanh", 0.3): [0.7, 0.6, 0.5],
        }
        limits = []

        def train(variant, data_dir, description, rate, goal_error, limit, seed):
            limits.append((variant, rate, limit))
            return errors[variant, rate]

        monkeypatch.setattr(relu_vs_tanh, "_train", train)
        best = relu_vs_tanh.compare(tiny_data_dir, tmp_path, [0.1, 0.2, 0.3], goal_error=0.25, max_epochs=3)
        assert best == {"four_layer": (0.2, [0.5, 0.2]), "four_layer_tanh": (0.2, [0.6, 0.5, 0.4])}
        assert [limit for *_, limit in limits] == [3, 3, 2, 3, 3, 3]
        assert relu_vs_tanh.compare(tiny_data_dir, tmp_path, [0.2, 0.1], goal_error=0.25, max_epochs=3) == best
        assert len(limits) == 6  # nothing is trained again

    def test_training_has_no_regularization_and_ends_at_the_goal(self, small_data_dir, monkeypatch):
        received = {}

        def fit(network, images, steps_per_epoch, epochs, callbacks, **_):
            batch, _ = next(iter(images))
            received.update(optimizer=network.optimizer, pixels=batch.numpy(), steps=steps_per_epoch)
            for epoch, accuracy in enumerate((0.5, 0.625, 0.75, 0.875)):
                callbacks[-1].on_epoch_end(epoch, {"accuracy": accuracy})
                if network.stop_training:
                    break

        monkeypatch.setattr(keras.Model, "fit", fit)
        monkeypatch.setattr(relu_vs_tanh, "_BATCH_SIZE", 20)
        description = schema.load_description(small_data_dir)
        errors = relu_vs_tanh._train("testing", small_data_dir, description, 0.25, 0.25, max_epochs=5, seed=1)
        assert errors == [0.5, 0.375, 0.25]
        optimizer = received["optimizer"]
        assert (optimizer.weight_decay, float(optimizer.learning_rate), received["steps"]) == (0, 0.25, 2)
        dataset = reader.make_evaluation_dataset(small_data_dir, 46, 56, split="train")
        centers = {batch.tobytes() for images, _ in dataset for batch in images.numpy()}
        shown = [image.tobytes() for image in received["pixels"]]
        assert len({*shown}) == 20 and {*shown} <= centers
        assert not np.array_equal(received["pixels"], next(iter(dataset))[0][:20])  # shuffled
