"""Detects training that fails without an error."""

import math
import threading
import time
from typing import Any

import keras
from absl import logging

# A network at chance level has a loss within this fraction of ln(classes). Networks begin there, so the warning comes
# after this many consecutive steps, judged by the mean loss of a window of steps.
_CHANCE_MARGIN = 0.01
_CHANCE_STEPS = 100
_CHANCE_WINDOW = 20


class TrainingHealthChecks(keras.callbacks.Callback):
    """Raises FloatingPointError in the step in which the loss is not finite, before anything is saved.

    Warns, with advice, if the loss stays at chance level, ln(classes), or if no step ends for minutes.

    Args:
        classes: number of classes.
        patience_seconds: a step that takes longer is a warning.
    """

    def __init__(self, classes: int, patience_seconds: float = 120):
        super().__init__()
        self.patience_seconds = patience_seconds
        self.chance_loss = math.log(classes)
        self.steps_at_chance = 0

    def on_train_begin(self, logs=None):
        self._last_step_end = time.monotonic()
        self._training_ended = threading.Event()
        threading.Thread(target=self._watch_clock, daemon=True).start()

    def on_train_end(self, logs=None):
        self._training_ended.set()

    def _watch_clock(self):
        warned_of = None
        while not self._training_ended.wait(self.patience_seconds / 4):
            last = self._last_step_end
            if time.monotonic() - last > self.patience_seconds and last != warned_of:
                warned_of = last
                logging.warning(
                    "No step has ended for %.0f seconds. Check the data's disk, the workers and --data_service.",
                    time.monotonic() - last,
                )

    def on_test_batch_end(self, batch, logs=None):
        self._last_step_end = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._window_batch = 0
        self._window_loss = 0.0

    def on_train_batch_end(self, batch, logs: Any = None):
        self._last_step_end = time.monotonic()
        loss = logs["loss"]  # the mean over the epoch so far
        if not math.isfinite(loss):
            step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
            raise FloatingPointError(
                f"The loss of step {step} is {loss}. The newest checkpoint is older. "
                "Try a lower --learning_rate, or inputs of unit variance (--input_scale=0.0125)."
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
                "The loss has been at %.3f, which is ln(classes), for %d steps: the network is at chance level. "
                "With the paper's initial weights (standard deviation 0.01) that can last for hundreds of steps. "
                "If it persists, try --initializer=he_normal --input_scale=0.0125 or another --learning_rate, "
                "and look at the augmented inputs in TensorBoard.",
                window_loss,
                self.steps_at_chance,
            )
