"""What a run writes to TensorBoard, and its summary, training.json.

A run's folder `tensorboard` holds

    train/          scalars some steps apart and of each epoch, graph, pictures, histograms, texts, the profiler's trace
    validation/     the same scalars of each epoch by the same names, so that both are on one chart; confusion matrix
    .               the flags, by which TensorBoard compares runs (HParams), and the embedding projector's files
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

from alexnet_tf.figures import plots
from alexnet_tf.files import write_json
from alexnet_tf.training import projector, summaries
from alexnet_tf.training.callbacks import Stopped
from alexnet_tf.training.fit import InputClock
from alexnet_tf.training.gradient_norms import GradientNorms
from alexnet_tf.training.metrics import ConfusionMatrix

# TensorBoard's table of runs shows five flags until more are selected, those first that are marked as different.
_FLAGS_SHOWN_FIRST = ("variant", "learning_rate", "batch_size", "schedule", "epochs")
# What it shows beside them: a name, the folder and the tag.
_FINAL_METRICS = (
    ("top-1 error", "validation", "epoch/top1_error"),
    ("top-5 error", "validation", "epoch/top5_error"),
    ("loss", "validation", "epoch/loss"),
    ("training loss", "train", "epoch/loss"),
    ("images/s", "train", "speed/images_per_second"),
)


@contextlib.contextmanager
def _warning_of_failure(name: str) -> Iterator[None]:
    """A picture must not end a training of days: what fails here is a warning."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        logging.warning("TensorBoard's %s can't be drawn, and training goes on: %r", name, error)


def _write_image(name: str, draw: Callable[[], np.ndarray]) -> None:
    with _warning_of_failure(name):
        tf.summary.image(name, draw()[None])


class TensorBoardLogger(keras.callbacks.Callback):
    """Logs training to TensorBoard. Only one worker should.

    Args:
        run_dir: the run's folder: `training.json` is written there after each epoch, the rest into `tensorboard`.
        log_every: steps between two entries. There is another at the end of each epoch.
        batch_size: images in a step, on all devices together.
        first_step: steps done before this start.
        first_images: uint8 (n, rows, columns, 3): augmented images as the network sees them, written once.
        pictures: by name, functions that draw what is written after each epoch, uint8 (rows, columns, 3).
        texts: Markdown by title, written once: what is trained, on what, with which flags.
        class_names: names in the order of the labels.
        confusion_matrix: None, or that of the compiled model.
        gradient_norms: those of the optimizer.
        hparams: flags by name, by which runs are compared.
        input_clock: that of the run.
        profile_steps: None, or the first and the last step, counted from 1, that the profiler records.
        records_skipped: how many of the data set's records are not read, since they are damaged.
        network: the model whose weights are in the histograms; None for the one that trains.
    """

    def __init__(
        self,
        run_dir: str | pathlib.Path,
        *,
        log_every: int,
        batch_size: int,
        first_step: int,
        first_images: np.ndarray,
        pictures: Mapping[str, Callable[[], np.ndarray]],
        texts: Mapping[str, str],
        class_names: Sequence[str],
        confusion_matrix: ConfusionMatrix | None,
        gradient_norms: GradientNorms,
        hparams: Mapping[str, float | str | bool],
        input_clock: InputClock,
        profile_steps: tuple[int, int] | None = None,
        records_skipped: int = 0,
        network: keras.Model | None = None,
    ):
        super().__init__()
        self.run_dir = pathlib.Path(run_dir)
        self.folder = self.run_dir / "tensorboard"
        self.train_writer = tf.summary.create_file_writer(str(self.folder / "train"))
        self.validation_writer = tf.summary.create_file_writer(str(self.folder / "validation"))
        self.log_every = log_every
        self.batch_size = batch_size
        self.step = first_step
        self.first_images = first_images
        self.pictures = pictures
        self.texts = texts
        self.class_names = class_names
        self.confusion_matrix = confusion_matrix
        self.gradient_norms = gradient_norms
        self.hparams = dict(hparams)
        self.input_clock = input_clock
        self.profile_steps = profile_steps or (0, 0)
        self.records_skipped = records_skipped
        self.network = network
        self.has_begun = False
        self.profiling = False
        self.images_seen = 0
        self.seconds = 0.0
        self._write_hparams()

    def set_model(self, model):
        super().set_model(model)
        self.kernels = {
            layer.name: [weight for weight in layer.trainable_weights if len(weight.shape) > 1]
            for layer in model.layers
            if any(len(weight.shape) > 1 for weight in layer.trainable_weights)
        }

    def on_train_begin(self, logs=None):
        if self.has_begun:  # the rest of an interrupted epoch was a fit of its own
            return
        self.has_begun = True
        with self.train_writer.as_default(step=self.step):
            for title, text in self.texts.items():
                tf.summary.text(title, text)
            _write_image("augmented inputs", lambda: summaries.image_sheet(self.first_images))
            tf.summary.graph(summaries.network_graph(self.model))

    def _write_hparams(self):
        for old in self.folder.glob("events*"):  # of an earlier start, maybe with other flags
            old.unlink()
        self.hparams_writer = tf.summary.create_file_writer(str(self.folder))
        columns = [api_pb2.HParamInfo(name=name, differs=name in _FLAGS_SHOWN_FIRST) for name in self.hparams]
        metrics = [
            api_pb2.MetricInfo(name=api_pb2.MetricName(group=group, tag=tag), display_name=name)
            for name, group, tag in _FINAL_METRICS
        ]
        with self.hparams_writer.as_default(step=0):
            experiment = hparams_summary.experiment_pb(columns, metrics)
            tf.summary.experimental.write_raw_pb(experiment.SerializeToString(), step=0)
            hparams_api.hparams(self.hparams, trial_id=str(self.run_dir))
        self.hparams_writer.flush()

    def on_epoch_begin(self, epoch, logs=None):
        self._entry_batch = 0
        self._entry_logs = {}

    def on_train_batch_begin(self, batch, logs=None):
        if self.step + 1 == self.profile_steps[0]:
            tf.profiler.experimental.start(str(self.folder / "train"))
            self.profiling = True
        if self.profiling:
            self._profiled_step = tf.profiler.experimental.Trace("train", step_num=self.step + 1, _r=1)
            self._profiled_step.__enter__()
        if self._is_entry(batch, self.step + 1):
            self.gradient_norms.enable(True)
            # Of this step, not the next.
            self._entry_rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)

    def _is_entry(self, batch, step):
        return step % self.log_every == 0 or batch + 1 == self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.profiling:
            self._profiled_step.__exit__(None, None, None)
        if self.profiling and self.step == self.profile_steps[1]:
            self._stop_profiler()
        if batch == 0:  # which may have compiled
            self._restart_clocks()
        if self._is_entry(batch, self.step):
            self.gradient_norms.enable(False)
            self._write_entry(batch, logs)

    def _restart_clocks(self):
        self._entry_start = time.perf_counter()
        self._entry_waited = self.input_clock.seconds

    def _write_entry(self, batch, logs):
        means = summaries.means_since(logs, batch + 1, self._entry_logs, self._entry_batch)
        with self.train_writer.as_default(step=self.step):
            for name, value in summaries.loss_and_errors(means).items():
                tf.summary.scalar(f"step/{name}", value)
            tf.summary.scalar("step/learning_rate", self._entry_rate)
            for layer, kernels in self.kernels.items():
                weight_norms = [self.gradient_norms.weight_norm(kernel) for kernel in kernels]
                tf.summary.scalar(f"weight_norm/{layer}", summaries.norm_of_norms(weight_norms))
                gradient_norms = [self.gradient_norms.norm(kernel) for kernel in kernels]
                tf.summary.scalar(f"gradient_norm/{layer}", summaries.norm_of_norms(gradient_norms))
            steps = batch + 1 - max(self._entry_batch, 1)
            if steps:
                seconds = time.perf_counter() - self._entry_start
                self.images_seen += steps * self.batch_size
                self.seconds += seconds
                waited = self.input_clock.seconds - self._entry_waited
                tf.summary.scalar("speed/images_per_second", steps * self.batch_size / seconds)
                tf.summary.scalar("speed/step_ms", 1000 * seconds / steps)
                tf.summary.scalar("speed/waiting_for_input_ms", 1000 * waited / steps)
        self._entry_batch, self._entry_logs = batch + 1, dict(logs)
        self._restart_clocks()

    def on_epoch_end(self, epoch, logs: Any = None):
        with self.train_writer.as_default(step=self.step):
            for name, draw in self.pictures.items():
                _write_image(name, draw)
            for name, value in summaries.loss_and_errors(logs).items():
                tf.summary.scalar(f"epoch/{name}", value)
            for layer in (self.network or self.model).layers:
                for weight in layer.trainable_weights:
                    tf.summary.histogram(f"{layer.name}/{weight.name}", summaries.sample(weight))
        with self.validation_writer.as_default(step=self.step):
            for name, value in summaries.loss_and_errors(logs, "val_").items():
                tf.summary.scalar(f"epoch/{name}", value)
            if self.confusion_matrix is not None:
                _write_image("confusion matrix", lambda: self._draw_confusion_matrix(self.confusion_matrix))
        self.train_writer.flush()
        self.validation_writer.flush()
        summary = {
            "epochs": epoch + 1,
            "val_top1_error": 1 - logs["val_top1"],
            "val_top5_error": 1 - logs["val_top5"],
            # Over all steps but the first of each epoch, which may compile.
            "images_per_second": self.images_seen / self.seconds if self.seconds else 0.0,
            "records_left_out": self.records_skipped,
        }
        write_json(self.run_dir / "training.json", summary)

    def _draw_confusion_matrix(self, metric):
        # Of this worker's replicas: with several workers each has validated a share of the images.
        parts = self.model.distribute_strategy.experimental_local_results(metric.counts.value)
        counts = np.int64(sum(np.asarray(part) for part in parts))
        labels, predictions = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
        return plots.confusion_matrix(labels, predictions, self.class_names)

    def finish(self, model: keras.Model, validation_data: tf.data.Dataset) -> None:
        """Writes what is known at the end of the last epoch: fc7 for the projector, and that the run has ended.

        Args:
            model: the model that takes pixels alone.
            validation_data: (images, labels).
        """
        if self.profiling:
            self._stop_profiler()
        with _warning_of_failure("embedding projector"):
            projector.write(self.folder, model, validation_data, self.class_names)
        with self.hparams_writer.as_default(step=0):
            ended = hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=0)
        for writer in (self.train_writer, self.validation_writer, self.hparams_writer):
            writer.close()

    def _stop_profiler(self):
        tf.profiler.experimental.stop()
        self.profiling = False
