"""What a run writes to TensorBoard, and its summary, training.json.

The run's folder `tensorboard` holds

    train/          scalars of log points and epochs, graph, pictures, histograms, texts, the profiler's trace
    validation/     scalars of epochs under the same names, so that both are in one chart; confusion matrix
    .               the flags by which TensorBoard compares runs (HParams), and the embedding projector's files
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

from alexnet_tf.figures import activations, image_grids, kernels, plots
from alexnet_tf.files import write_json
from alexnet_tf.tfrecords import reader
from alexnet_tf.training import initial_kernels, summaries
from alexnet_tf.training.build import CompiledNetwork
from alexnet_tf.training.callbacks import Stopped
from alexnet_tf.training.config import TrainConfig
from alexnet_tf.training.fit import InputWaitTimer
from alexnet_tf.training.inputs import RunData

# TensorBoard's table of runs shows five flags until more are selected, and those marked as different first.
_FLAGS_SHOWN_FIRST = ("variant", "learning_rate", "batch_size", "schedule", "epochs")
# Metrics in this table: name, folder and tag.
_FINAL_METRICS = (
    ("top-1 error", "validation", "epoch/top1_error"),
    ("top-5 error", "validation", "epoch/top5_error"),
    ("loss", "validation", "epoch/loss"),
    ("training loss", "train", "epoch/loss"),
    ("images/s", "train", "speed/images_per_second"),
)
_INPUTS_SHOWN = 8


@contextlib.contextmanager
def _warning_of_failure(name: str) -> Iterator[None]:
    """Turns an error into a warning: a picture must not stop a training of days."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        logging.warning("Can't draw TensorBoard's %s; training continues: %r", name, error)


def _write_image(name: str, draw: Callable[[], np.ndarray]) -> None:
    with _warning_of_failure(name):
        tf.summary.image(name, draw()[None])


class TensorBoardLogger(keras.callbacks.Callback):
    """Logs training to TensorBoard. Only one worker should.

    Args:
        config: the run's configuration. `training.json` is written to its `run_dir` after each epoch, the rest to
            `tensorboard` there.
        compiled: what is trained.
        data: the run's images.
        initial_step: number of completed steps.
        input_wait_timer: measures the wait for batches.
    """

    def __init__(
        self,
        config: TrainConfig,
        compiled: CompiledNetwork,
        data: RunData,
        initial_step: int,
        input_wait_timer: InputWaitTimer,
    ):
        super().__init__()
        self.config = config
        self.compiled = compiled
        self.data = data
        self.step = initial_step
        self.input_wait_timer = input_wait_timer
        self.folder = pathlib.Path(config.run_dir) / "tensorboard"
        self.train_writer = tf.summary.create_file_writer(str(self.folder / "train"))
        self.validation_writer = tf.summary.create_file_writer(str(self.folder / "validation"))
        self.profile_steps = config.profile_steps or (0, 0)
        self.profiling = False
        self.images_seen = 0
        self.seconds = 0.0
        self.kernels = {
            layer.name: [weight for weight in layer.trainable_weights if len(weight.shape) > 1]
            for layer in compiled.training_model.layers
            if any(len(weight.shape) > 1 for weight in layer.trainable_weights)
        }
        self._write_hparams()
        self._write_beginning()

    def _write_hparams(self):
        hparams = self.config.hparams() | {"training_images": self.data.training_images}
        for old in self.folder.glob("events*"):  # of an earlier start, maybe with other flags
            old.unlink()
        self.hparams_writer = tf.summary.create_file_writer(str(self.folder))
        columns = [api_pb2.HParamInfo(name=name, differs=name in _FLAGS_SHOWN_FIRST) for name in hparams]
        metrics = [
            api_pb2.MetricInfo(name=api_pb2.MetricName(group=group, tag=tag), display_name=name)
            for name, group, tag in _FINAL_METRICS
        ]
        with self.hparams_writer.as_default(step=0):
            experiment = hparams_summary.experiment_pb(columns, metrics)
            tf.summary.experimental.write_raw_pb(experiment.SerializeToString(), step=0)
            hparams_api.hparams(hparams, trial_id=self.config.run_dir)
        self.hparams_writer.flush()

    def _write_beginning(self):
        texts = summaries.describe_run(self.data.description, len(self.data.skipped), self.config.as_flags())
        first_images = summaries.augmented_inputs(self.data.training(0, reader.Share()), _INPUTS_SHOWN)
        with self.train_writer.as_default(step=self.step):
            for title, text in texts.items():
                tf.summary.text(title, text)
            _write_image("augmented inputs", lambda: image_grids.tile(first_images, columns=4))
            tf.summary.graph(summaries.network_graph(self.compiled.training_model))

    def on_epoch_begin(self, epoch, logs=None):
        self._batches_before = 0
        self._logs_before = {}

    def on_train_batch_begin(self, batch, logs=None):
        if self.step + 1 == self.profile_steps[0]:
            tf.profiler.experimental.start(str(self.folder / "train"))
            self.profiling = True
        if self.profiling:
            self._profiled_step = tf.profiler.experimental.Trace("train", step_num=self.step + 1, _r=1)
            self._profiled_step.__enter__()
        if self._is_log_point(batch, self.step + 1):
            self.compiled.optimizer.gradient_norms.enable(True)
            # The rate of this step, not of the next one.
            self._learning_rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)

    def _is_log_point(self, batch, step):
        return step % self.config.log_every == 0 or batch + 1 == self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.profiling:
            self._profiled_step.__exit__(None, None, None)
        if self.profiling and self.step == self.profile_steps[1]:
            self._stop_profiler()
        if batch == 0:  # this step may have compiled
            self._restart_clocks()
        if self._is_log_point(batch, self.step):
            self.compiled.optimizer.gradient_norms.enable(False)
            self._write_log_point(batch, logs)

    def _restart_clocks(self):
        self._clock_start = time.perf_counter()
        self._waited_before = self.input_wait_timer.seconds

    def _write_log_point(self, batch, logs):
        means = summaries.means_since(logs, batch + 1, self._logs_before, self._batches_before)
        with self.train_writer.as_default(step=self.step):
            for name, value in summaries.loss_and_errors(means).items():
                tf.summary.scalar(f"step/{name}", value)
            tf.summary.scalar("step/learning_rate", self._learning_rate)
            norms = self.compiled.optimizer.gradient_norms
            for layer, columns in self.kernels.items():
                tf.summary.scalar(f"weight_norm/{layer}", np.linalg.norm([norms.weight_norm(k) for k in columns]))
                tf.summary.scalar(f"gradient_norm/{layer}", np.linalg.norm([norms.norm(k) for k in columns]))
            steps = batch + 1 - max(self._batches_before, 1)
            if steps:
                seconds = time.perf_counter() - self._clock_start
                self.images_seen += steps * self.config.batch_size
                self.seconds += seconds
                waited = self.input_wait_timer.seconds - self._waited_before
                tf.summary.scalar("speed/images_per_second", steps * self.config.batch_size / seconds)
                tf.summary.scalar("speed/step_ms", 1000 * seconds / steps)
                tf.summary.scalar("speed/waiting_for_input_ms", 1000 * waited / steps)
        self._batches_before, self._logs_before = batch + 1, dict(logs)
        self._restart_clocks()

    def on_epoch_end(self, epoch, logs: Any = None):
        network, class_names = self.compiled.network, self.data.description.class_names
        with self.train_writer.as_default(step=self.step):
            _write_image("conv1 kernels", self._draw_kernels)
            _write_image(
                "activations",
                lambda: activations.draw_activations(network, self.data.first_validation_image(), class_names),
            )
            for name, value in summaries.loss_and_errors(logs).items():
                tf.summary.scalar(f"epoch/{name}", value)
            for layer in network.layers:
                for weight in layer.trainable_weights:
                    tf.summary.histogram(f"{layer.name}/{weight.name}", summaries.sample(weight))
        with self.validation_writer.as_default(step=self.step):
            for name, value in summaries.loss_and_errors(logs, "val_").items():
                tf.summary.scalar(f"epoch/{name}", value)
            if self.compiled.confusion_matrix is not None:
                _write_image("confusion matrix", self._draw_confusion_matrix)
        self.train_writer.flush()
        self.validation_writer.flush()
        summary = {
            "epochs": epoch + 1,
            "val_top1_error": 1 - logs["val_top1"],
            "val_top5_error": 1 - logs["val_top5"],
            "records_left_out": len(self.data.skipped),
        }
        if self.seconds:  # of the steps after the first of each epoch, which may compile
            summary["images_per_second"] = self.images_seen / self.seconds
        write_json(pathlib.Path(self.config.run_dir) / "training.json", summary)

    def _draw_kernels(self):
        conv1 = self.compiled.network.get_layer("conv1")
        return kernels.draw_kernels(conv1.kernels, initial_kernels.load_initial_kernels(self.config.run_dir))

    def _draw_confusion_matrix(self):
        # The counts of this worker's replicas: each worker has validated a share of the images.
        counts = self.compiled.confusion_matrix.counts.value
        parts = self.model.distribute_strategy.experimental_local_results(counts)
        counts = np.int64(sum(np.asarray(part) for part in parts))
        labels, predictions = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
        return plots.confusion_matrix(labels, predictions, self.data.description.class_names)

    def finish(self) -> None:
        """Writes the embedding projector's files, and that the run has ended."""
        if self.profiling:
            self._stop_profiler()
        with _warning_of_failure("embedding projector"):
            validation, class_names = self.data.validation(reader.Share()), self.data.description.class_names
            summaries.write_projector(self.folder, self.compiled.network, validation, class_names)
        with self.hparams_writer.as_default(step=0):
            ended = hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=0)
        for writer in (self.train_writer, self.validation_writer, self.hparams_writer):
            writer.close()

    def _stop_profiler(self):
        tf.profiler.experimental.stop()
        self.profiling = False
