"""Detects training that fails without an error."""

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import keras
from absl import logging

from alexnet_tf.training.config import TrainConfig

# Tolerance of the loss at chance level. Networks begin there, so the warning comes after many consecutive steps, judged
# by the mean loss of a window of steps.
_CHANCE_MARGIN = 0.01
_CHANCE_STEPS = 100
_CHANCE_WINDOW = 20


class TrainingHealthChecks(keras.callbacks.Callback):
    """Raises FloatingPointError in the step in which the loss is not finite, before anything is saved.

    Warns, with advice, if the loss stays at chance level, or if no step ends for minutes. At chance level a network
    predicts all classes with equal probability, or with their frequencies.

    Args:
        config: the run's configuration, for the advice.
        count_per_class: number of training images of each class.
        patience_seconds: a warning is logged if a step takes longer.
    """

    def __init__(self, config: TrainConfig, count_per_class: Sequence[int], patience_seconds: float = 120):
        super().__init__()
        self.config = config
        self.patience_seconds = patience_seconds
        frequencies = [count / sum(count_per_class) for count in count_per_class if count]
        entropy = -sum(frequency * math.log(frequency) for frequency in frequencies)
        highest = math.log(len(count_per_class))
        self.chance_losses = (highest if config.class_weights == "balanced" else entropy), highest
        self.steps_at_chance = 0
        self.epoch_loss = math.inf

    def _is_chance(self, loss):
        lowest, highest = self.chance_losses
        return lowest * (1 - _CHANCE_MARGIN) < loss < highest * (1 + _CHANCE_MARGIN)

    def advice(self) -> str | None:
        """What to do if the last epoch's training loss is still at chance level; otherwise None."""
        if not self._is_chance(self.epoch_loss):
            return None
        return (
            f"The network has learned nothing: the training loss of the last epoch, {self.epoch_loss:.3f}, is still at "
            f"chance level. {self._remedy()}"
        )

    def _remedy(self):
        if self.config.initializer == "variant" and not self.config.init_from:
            return (
                "The likely reason is the paper's initial weights (standard deviation 0.01), with which a network can "
                "stay there for thousands of steps. For small data sets use the recipe "
                "--flagfile=alexnet_tf/recipes/demo.flags, or its --initializer=he_normal --input_scale=0.0125."
            )
        return (
            f"Try another --learning_rate than {self.config.learning_rate:g}, and look at the augmented inputs and the "
            "gradient norms in TensorBoard."
        )

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
        self.steps_at_chance = before + steps if self._is_chance(window_loss) else 0
        if before < _CHANCE_STEPS <= self.steps_at_chance:
            logging.warning(
                "The loss has been at chance level, %.3f, for %d steps. %s",
                window_loss,
                self.steps_at_chance,
                self._remedy(),
            )

    def on_epoch_end(self, epoch, logs: Any = None):
        self.epoch_loss = logs.get("loss", math.inf)
