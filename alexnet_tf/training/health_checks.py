"""What to say when training goes wrong without an error."""

import math
import threading
import time

import keras
from absl import logging

# A network that tells nothing apart has a loss within this fraction of ln(classes). All networks begin there, so it
# takes this many steps in a row to be worth a word, by the mean loss of so many at a time.
_CHANCE_MARGIN = 0.01
_CHANCE_STEPS = 100
_CHANCE_WINDOW = 20


class Alarms(keras.callbacks.Callback):
    """Raises FloatingPointError in the step in which the loss is not finite, before anything is saved.

    Warns, with advice, while the loss sits at ln(classes), where the network tells nothing apart, and when no step ends
    for minutes.

    Args:
        classes: number of classes.
        patience_seconds: how long a step may take before there is a word about it.
    """

    def __init__(self, classes, patience_seconds=120):
        super().__init__()
        self.patience_seconds = patience_seconds
        self.chance_loss = math.log(classes)
        self.steps_at_chance = 0

    def on_train_begin(self, logs=None):
        self._last_step_end = time.monotonic()
        self._training_ended = threading.Event()
        threading.Thread(target=self._watch_the_clock, daemon=True).start()

    def on_train_end(self, logs=None):
        self._training_ended.set()

    def _watch_the_clock(self):
        warned_of = None
        while not self._training_ended.wait(self.patience_seconds / 4):
            last = self._last_step_end
            if time.monotonic() - last > self.patience_seconds and last != warned_of:
                warned_of = last
                logging.warning(
                    "No step has ended for %.0f seconds. If that lasts: are the data's disk, the workers, and all "
                    "of --data_service still there?",
                    time.monotonic() - last,
                )

    def on_test_batch_end(self, batch, logs=None):
        self._last_step_end = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._window_batch = 0
        self._window_loss = 0.0

    def on_train_batch_end(self, batch, logs=None):
        self._last_step_end = time.monotonic()
        loss = logs["loss"]  # the mean over the epoch so far
        if not math.isfinite(loss):
            step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
            raise FloatingPointError(
                f"The loss of step {step} is {loss}. The newest checkpoint is from before it. "
                "A lower --learning_rate, or inputs of unit variance (--input_scale=0.0125), may help."
            )
        steps = batch + 1 - self._window_batch
        if steps < _CHANCE_WINDOW:
            return
        window_loss = (loss * (batch + 1) - self._window_loss * self._window_batch) / steps
        self._window_batch, self._window_loss = batch + 1, loss
        before = self.steps_at_chance
        at_chance = abs(window_loss - self.chance_loss) < _CHANCE_MARGIN * self.chance_loss
        self.steps_at_chance = before + steps if at_chance else 0
        if before < _CHANCE_STEPS <= self.steps_at_chance:
            logging.warning(
                "The loss has been at %.3f, which is ln(classes), for %d steps: so far the network tells nothing "
                "apart. With the paper's first weights (standard deviation 0.01) that can last for hundreds of steps. "
                "If it does not end: try --initializer=he_normal --input_scale=0.0125, or another --learning_rate; "
                "and look at the augmented inputs in TensorBoard.",
                window_loss,
                self.steps_at_chance,
            )
