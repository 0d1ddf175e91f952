"""The best epoch, and what is saved after each epoch."""

import signal
import types

import pytest
import tensorflow as tf

from alexnet_tf.training import callbacks, checkpoints


def test_best_epoch_is_the_first_of_equal_ones():
    best = callbacks.BestEpoch(early_stopping_epochs=2)
    best.set_model(types.SimpleNamespace(stop_training=False))
    for epoch in range(3):
        best.on_epoch_end(epoch, {"val_top1": 0.5})
    assert best.state == {"epoch": 1, "top1": 0.5} and best.model.stop_training
    assert best.describe() == "Lowest validation error: 50.00%, in epoch 1."


def test_best_epoch_is_saved_as_the_best_if_it_is_kept(make_config, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoints, "save", lambda run_dir, network, model, progress, settings: saved.append(progress))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for keep_best in (True, False):
        best, compiled = callbacks.BestEpoch(), types.SimpleNamespace(network=None, training_model=None)
        saver = callbacks.SaveCheckpoints(make_config(keep_best=keep_best), compiled, {}, 8, best)
        best.set_model(types.SimpleNamespace())
        for epoch, top1 in enumerate((0.4, 0.6, 0.5)):
            for callback in (best, saver):
                callback.on_epoch_end(epoch, {"val_top1": top1})
    assert [progress.is_best for progress in saved] == [True, True, False, False, False, False]
    assert saved[-1] == checkpoints.Progress(8, best={"epoch": 2, "top1": 0.6})


def test_steps_are_counted_whatever_the_optimizer_counts(make_config, monkeypatch):
    saved = []  # the optimizer does not count steps whose gradients overflowed
    monkeypatch.setattr(checkpoints, "save", lambda *arguments: saved.append(arguments[3].step))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    compiled = types.SimpleNamespace(network=None, training_model=None)
    config = make_config(checkpoint_every_steps=2)
    saver = callbacks.SaveCheckpoints(config, compiled, {}, 8, callbacks.BestEpoch())
    saver.set_params({"steps": 6})
    for batch in range(6):
        saver.on_train_batch_begin(batch)
        saver.on_train_batch_end(batch)
    saver.on_epoch_end(2)
    assert saved == [10, 12, 14]  # that of the last step comes after the validation


@pytest.mark.parametrize("begin", ["on_train_batch_begin", "on_test_batch_begin"])
def test_signal_between_batches_is_told_to_the_other_workers(begin, make_config, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    compiled = types.SimpleNamespace(network=None, training_model=None)
    saver = callbacks.SaveCheckpoints(make_config(), compiled, {}, 0, callbacks.BestEpoch())
    saver.distributed = types.SimpleNamespace(stop_requested=tf.Variable(0.0))
    getattr(saver, begin)(0)
    assert saver.distributed.stop_requested.numpy() == 0
    saver._on_signal(signal.SIGTERM, None)
    getattr(saver, begin)(1)
    assert saver.distributed.stop_requested.numpy() == 1
