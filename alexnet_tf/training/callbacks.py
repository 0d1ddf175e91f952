"""What happens beside the training steps and changes them: the schedule and the checkpoints."""

import signal

import keras
import tensorflow as tf

from alexnet_tf.distribution import strategies
from alexnet_tf.training import checkpoints, schedules


class DivideRateOnPlateau(keras.callbacks.Callback):
    """Divides the learning rate by 10 when the validation error has stopped improving.

    Unlike `keras.callbacks.ReduceLROnPlateau` it can be stopped and go on: its state is in every checkpoint.

    Args:
        patience: epochs without improvement before the rate is divided.
        most_divisions: how often the rate is divided at most.

    Source: section 5: "divide the learning rate by 10 when the validation error rate stopped improving with the
    current learning rate", three times. How long to wait is not in the paper.
    """

    def __init__(self, patience, most_divisions=3):
        super().__init__()
        self.patience = patience
        self.most_divisions = most_divisions
        self.state = {"best_top1": -1.0, "epochs_without_improvement": 0, "divisions": 0}

    def on_epoch_end(self, epoch, logs=None):
        state = self.state
        if logs["val_top1"] > state["best_top1"]:
            state["best_top1"] = float(logs["val_top1"])
            state["epochs_without_improvement"] = 0
            return
        state["epochs_without_improvement"] += 1
        if state["epochs_without_improvement"] >= self.patience and state["divisions"] < self.most_divisions:
            state["divisions"] += 1
            state["epochs_without_improvement"] = 0
            optimizer = self.model.optimizer
            rate = _learning_rate(optimizer) / 10
            optimizer.learning_rate = rate
            print(
                f"\nEpoch {epoch + 1}: the validation error stopped improving at {1 - state['best_top1']:.2%}; "
                f"the learning rate is now {rate:g}."
            )


class FollowOriginalSchedule(keras.callbacks.Callback):
    """Sets the rates that the original program had in each epoch.

    They follow from the number of the epoch alone, so a run that was stopped goes on with the right ones.

    Args:
        optimizer: the `optimizers.PaperMomentum` that trains.
        learning_rate: the first rate, 0.01 in the original program.

    Source: the original program's notes; see `schedules.ORIGINAL_PHASES`.
    """

    def __init__(self, optimizer, learning_rate):
        super().__init__()
        self.optimizer = optimizer
        self.first_learning_rate = learning_rate

    def on_epoch_begin(self, epoch, logs=None):
        phase = schedules.original_phase(epoch)
        self.optimizer.learning_rate = self.first_learning_rate * phase.weights
        self.optimizer.set_rate_multipliers(
            {
                "bias": phase.biases / phase.weights,
                "conv1/kernel": phase.conv1_weights / phase.weights,
                "conv1/bias": phase.conv1_biases / phase.biases,
            }
        )


class Stopped(Exception):
    """Training was asked to stop, and a checkpoint is saved from which it can go on."""


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint after every `every_steps` steps, at the end of every epoch, and when a signal asks to stop.

    A machine that is to be switched off gets SIGTERM some seconds before; Ctrl-C is SIGINT. Then `Stopped` is raised
    after the step in hand, on all workers after the same, or within the validation, which is done again later; before
    the first step, at once. From its making this object handles both signals.

    Args:
        run_dir: the run's folder.
        model: the model that takes pixels alone, whose layers the trained model shares.
        every_steps: steps between checkpoints within an epoch.
        settings: what a resumed run must have in common with this one, a dict that JSON can hold.
        first_step: steps done before this start. (Not the optimizer's count, which leaves out the steps whose gradients
            overflowed in half precision.)
        schedule: None or the `DivideRateOnPlateau` whose state is to be saved. It must come earlier in the list of
            callbacks, so that the checkpoint of an epoch knows what the epoch's validation error changed.
        writes: whether this process writes, or another worker.
    """

    def __init__(self, run_dir, model, every_steps, settings, first_step=0, schedule=None, writes=True):
        super().__init__()
        self.run_dir = run_dir
        self.inference_model = model
        self.every_steps = every_steps
        self.settings = settings
        self.step = first_step
        self.schedule = schedule
        self.writes = writes
        self.has_begun = False
        self.asked = False
        self.stop_requested = tf.Variable(
            0.0, trainable=False
        )  # of this worker: a strategy would mirror it in its scope
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number, frame):
        if number == signal.SIGINT and self.asked:
            raise KeyboardInterrupt  # asked twice: at once, then
        if not self.has_begun:
            raise Stopped
        self.asked = True  # and not the variable: the signal may come while TensorFlow traces a graph

    def set_model(self, model):
        super().set_model(model)
        if isinstance(model, strategies.DistributedModel):
            model.stop_requested = self.stop_requested

    def _stop_agreed(self):
        if isinstance(self.model, strategies.DistributedModel):
            return self.model.stop_agreed
        return self.asked

    def _vote(self):
        self.has_begun = True
        if self.asked:
            self.stop_requested.assign(1.0)

    def _save(self, validation_due=False):
        if not self.writes:
            return
        progress = {"step": self.step, "settings": self.settings, "validation_due": validation_due}
        if self.schedule is not None:
            progress["schedule"] = self.schedule.state
        checkpoints.save(self.run_dir, self.inference_model, self.model, progress)

    def on_train_batch_begin(self, batch, logs=None):
        self._vote()

    def on_test_batch_begin(self, batch, logs=None):
        self._vote()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        # The last step of an epoch is left to the validation, which comes after it, and to on_epoch_end.
        if batch + 1 == self.params["steps"]:
            return
        stop = self._stop_agreed()
        if stop or (batch + 1) % self.every_steps == 0:
            self._save()
        if stop:
            raise Stopped

    def on_test_batch_end(self, batch, logs=None):
        if self._stop_agreed():
            self._save(validation_due=True)
            raise Stopped

    def on_epoch_end(self, epoch, logs=None):
        self._save()
        if self._stop_agreed():
            raise Stopped


def _learning_rate(optimizer):
    # Not float(...), which a mirrored variable refuses.
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
