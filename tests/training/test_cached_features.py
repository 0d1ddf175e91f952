"""Training on the features of frozen layers, which are computed once."""

import dataclasses

import keras
import numpy as np
import pytest

from alexnet_tf.evaluation import features
from alexnet_tf.model import build_alexnet
from alexnet_tf.tfrecords import reader
from alexnet_tf.training import cached_features, inputs

FROZEN = ("conv1", "conv2", "conv3", "conv4", "conv5")
CACHED = {"freeze": FROZEN, "cache_features": True, "initializer": "he_normal", "input_scale": 0.0125}


@pytest.fixture
def network():
    network = build_alexnet("testing", 2, initializer="he_normal", input_scale=0.0125)
    for name in FROZEN:
        network.get_layer(name).trainable = False
    return network


@pytest.fixture
def cached(make_config, network, tmp_path):
    return cached_features.open_features(tmp_path, inputs.open_data(make_config(**CACHED)), network)


def batches(dataset, count):
    return [(inputs["features"], labels) for inputs, labels in dataset.take(count).as_numpy_iterator()]


def test_trained_part_on_cached_features_is_the_network(cached, network):
    part, data = cached_features.trained_part(network), cached.data
    images = next(iter(data.validation(reader.Share())))[0]
    ((vectors, _),) = batches(cached.validation(reader.Share()), 1)
    np.testing.assert_allclose(part({"features": vectors}), network(images), rtol=1e-5)
    assert {variable.path for variable in part.trainable_variables} == {
        variable.path for variable in network.trainable_variables
    }


def test_epoch_has_each_image_once_with_its_label_in_another_order(cached):
    epochs = [batches(cached.training(4 * epoch, reader.Share()), 4) for epoch in (0, 1)]
    for epoch in epochs:
        rows = [np.flatnonzero((cached.splits["train"].vectors == x.ravel()).all(1)) for b, _ in epoch for x in b]
        assert len(np.unique(rows)) == 40  # of 46, in batches of 10
        assert np.array_equal(cached.splits["train"].labels[np.ravel(rows)], np.concatenate([y for _, y in epoch]))
    config = dataclasses.replace(cached.data.config, seed=1)
    other = dataclasses.replace(cached, data=dataclasses.replace(cached.data, config=config))
    for (vectors, _), *_ in (epochs[1], batches(other.training(0, reader.Share()), 1)):
        assert not np.array_equal(epochs[0][0][0], vectors)


def test_training_begins_at_any_step_of_the_same_order(cached):
    whole, rest = (batches(cached.training(step, reader.Share()), 8 - step) for step in (0, 3))
    for expected, found in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_resumed_run_is_bit_identical_and_does_not_compute_the_features_again(
    train_here, tmp_path, monkeypatch, capsys
):
    options = CACHED | {"schedule": "constant", "learning_rate": 0.01}
    train_here(tmp_path / "whole", epochs=2, **options)
    train_here(tmp_path / "broken", epochs=1, **options)
    assert "Computing pool5" in capsys.readouterr().out
    monkeypatch.delattr(features, "extract")
    train_here(tmp_path / "broken", epochs=2, **options)
    assert "without random crops" in capsys.readouterr().out
    whole, broken = (keras.models.load_model(tmp_path / run / "model.keras") for run in ("whole", "broken"))
    for expected, found in zip(whole.get_weights(), broken.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_features_of_other_weights_are_computed_again(cached, network, tmp_path):
    before = cached.splits["train"].vectors
    network.get_layer("conv5").biases[0].assign_add(np.ones(8))
    after = cached_features.open_features(tmp_path, cached.data, network).splits["train"].vectors
    assert not np.array_equal(after, before)


def test_dropout_below_the_trained_layers_is_not_cached():
    network = build_alexnet("one_weird_trick", 2, image_px=64)
    for name in FROZEN:
        network.get_layer(name).trainable = False
    below, above = cached_features.split(network)
    assert below.name == "pool5" and "drop" in above[0].name


def test_cached_features_need_one_device(make_config):
    with pytest.raises(ValueError, match="`cache_features` can't be given with"):
        dataclasses.replace(make_config(), cache_features=True, column_devices=("CPU:0", "CPU:1"))
