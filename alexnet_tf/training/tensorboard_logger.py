"""What a run writes to TensorBoard, and its summary, training.json.

A run's folder `tensorboard` holds

    train/          scalars some steps apart and of each epoch, graph, pictures, histograms, texts, the profiler's trace
    validation/     the same scalars of each epoch by the same names, so that both are on one chart; confusion matrix
    .               the flags, by which TensorBoard compares runs (HParams), and the embedding projector's files
"""

import json
import pathlib
import re
import time

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

from alexnet_tf.tfrecords import schema
from alexnet_tf.training import projector
from alexnet_tf.visualization import plots

# Of a large kernel so many weights are drawn for its histogram: all 38 million of fc6 would take TensorBoard gigabytes.
_WEIGHTS_IN_HISTOGRAM = 100_000
# TensorBoard's table of runs shows five flags until more are asked for, those first that are marked as different.
_FLAGS_SHOWN_FIRST = ("variant", "learning_rate", "batch_size", "schedule", "epochs")
# What it shows beside them: a name, the folder and the tag.
_FINAL_METRICS = (
    ("top-1 error", "validation", "epoch/top1_error"),
    ("top-5 error", "validation", "epoch/top5_error"),
    ("loss", "validation", "epoch/loss"),
    ("training loss", "train", "epoch/loss"),
    ("images/s", "train", "speed/images_per_second"),
)


class Diary(keras.callbacks.Callback):
    """Writes down a run as it goes on. Only one worker should.

    Args:
        run_dir: the run's folder: `loop.json` is written there after each epoch, the rest into `tensorboard`.
        log_every: steps between two entries. There is another at the end of each epoch.
        batch_size: images in a step, on all devices together.
        first_step: steps done before this start.
        first_images: uint8 (n, rows, columns, 3): augmented images as the network sees them, written once.
        texts: a dict from titles to Markdown, written once: what is trained, on what, with which flags.
        class_names: names in the order of the labels.
        confusion_matrix: None, or the `loop.ConfusionMatrix` of the compiled model.
        hparams: a dict from the names of flags to their values, by which runs are compared.
        input_clock: the `loop.InputClock` of the run.
        profile_steps: None, or the first and the last step, counted from 1, that the profiler is to record.
        records_left_out: how many of the data set's records are not read, since they are damaged.
    """

    def __init__(
        self,
        run_dir,
        log_every,
        batch_size,
        first_step,
        first_images,
        texts,
        class_names,
        confusion_matrix,
        hparams,
        input_clock,
        profile_steps=None,
        records_left_out=0,
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
        self.texts = texts
        self.class_names = class_names
        self.confusion_matrix = confusion_matrix
        self.hparams = hparams
        self.input_clock = input_clock
        self.profile_steps = profile_steps or (0, 0)
        self.records_left_out = records_left_out
        self.has_begun = False
        self.profiling = False
        self.images_seen = 0
        self.seconds = 0.0
        self._write_hparams()

    def set_model(self, model):
        super().set_model(model)
        # In half precision Keras's optimizer, which scales the loss, is around the one that updates.
        self.optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self.kernels = {
            layer.name: [weight for weight in layer.trainable_weights if len(weight.shape) > 1]
            for layer in model.layers
            if any(len(weight.shape) > 1 for weight in layer.trainable_weights)
        }

    def on_train_begin(self, logs=None):
        if self.has_begun:  # the rest of a broken epoch was a fit of its own
            return
        self.has_begun = True
        with self.train_writer.as_default(step=self.step):
            for title, text in self.texts.items():
                tf.summary.text(title, text)
            tf.summary.image("augmented inputs", _sheet(self.first_images)[None])
            tf.summary.graph(self._graph())

    def _graph(self):
        """The network's operations, in groups by their layers' names, without the model's around them."""
        inputs = {name: tf.TensorSpec(tensor.shape, name=name) for name, tensor in self.model.input.items()}
        graph = tf.function(lambda inputs: self.model(inputs)).get_concrete_function(inputs).graph.as_graph_def()
        for node in graph.node:
            sources = [source for source in node.input if not source.startswith("^")]
            node.name, *sources = (re.sub(r"^[^/]+/([^/]+?)(_\d+)?/", r"\1/", name) for name in (node.name, *sources))
            node.input[:] = sources
        kept = [node for node in graph.node if node.op != "NoOp"]
        del graph.node[:]
        graph.node.extend(kept)
        return graph

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
            self._measure_gradients(True)
            self._entry_rate = keras.ops.convert_to_numpy(self.optimizer.learning_rate)  # of this step, not the next

    def _is_entry(self, batch, step):
        return step % self.log_every == 0 or batch + 1 == self.params["steps"]

    def _measure_gradients(self, measuring):
        if isinstance(self.optimizer.measuring, tf.Variable):
            self.optimizer.measuring.assign(measuring)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.profiling:
            self._profiled_step.__exit__(None, None, None)
        if self.profiling and self.step == self.profile_steps[1]:
            self._stop_profiler()
        if batch == 0:  # which may have compiled
            self._restart_clocks()
        if self._is_entry(batch, self.step):
            self._measure_gradients(False)
            self._write_entry(batch, logs)

    def _restart_clocks(self):
        self._entry_start = time.perf_counter()
        self._entry_waited = self.input_clock.seconds

    def _write_entry(self, batch, logs):
        with self.train_writer.as_default(step=self.step):
            # Keras gives the mean over the epoch so far; the mean since the last entry is what changed.
            means = {
                name: (value * (batch + 1) - self._entry_logs.get(name, 0.0) * self._entry_batch)
                / (batch + 1 - self._entry_batch)
                for name, value in logs.items()
            }
            for name, value in _scalars(means).items():
                tf.summary.scalar(f"step/{name}", value)
            tf.summary.scalar("step/learning_rate", self._entry_rate)
            for layer, kernels in self.kernels.items():
                tf.summary.scalar(f"weight_norm/{layer}", _norm_of_norms([_norm(kernel.value) for kernel in kernels]))
                norms = [self.optimizer.gradient_norm(kernel) for kernel in kernels]
                tf.summary.scalar(f"gradient_norm/{layer}", _norm_of_norms(norms))
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

    def on_epoch_end(self, epoch, logs=None):
        with self.train_writer.as_default(step=self.step):
            tf.summary.image("conv1 kernels", plots.kernel_sheet(self.model.get_layer("conv1"))[None])
            for name, value in _scalars(logs).items():
                tf.summary.scalar(f"epoch/{name}", value)
            for layer in self.model.layers:
                for weight in layer.trainable_weights:
                    tf.summary.histogram(f"{layer.name}/{weight.name}", _sample(weight))
        with self.validation_writer.as_default(step=self.step):
            for name, value in _scalars(logs, "val_").items():
                tf.summary.scalar(f"epoch/{name}", value)
            if self.confusion_matrix is not None:
                self._write_confusion_matrix()
        self.train_writer.flush()
        self.validation_writer.flush()
        summary = {
            "epochs": epoch + 1,
            "val_top1_error": 1 - logs["val_top1"],
            "val_top5_error": 1 - logs["val_top5"],
            # Over all steps but the first of each epoch, which may compile.
            "images_per_second": self.images_seen / self.seconds if self.seconds else 0.0,
            "records_left_out": self.records_left_out,
        }
        text = json.dumps(summary, indent=2) + "\n"
        schema.write_whole(self.run_dir / "training.json", lambda file: file.write(text.encode()))

    def _write_confusion_matrix(self):
        # Of this worker's replicas: with several workers each has validated a share of the images.
        parts = self.model.distribute_strategy.experimental_local_results(self.confusion_matrix.counts.value)
        counts = np.int64(sum(np.asarray(part) for part in parts))
        labels, predictions = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
        tf.summary.image("confusion matrix", plots.confusion_matrix(labels, predictions, self.class_names)[None])

    def finish(self, model, validation_data):
        """Writes what is known at the end of the last epoch: fc7 for the projector, and that the run has ended.

        Args:
            model: the model that takes pixels alone.
            validation_data: `tf.data.Dataset` of (images, labels).
        """
        if self.profiling:
            self._stop_profiler()
        projector.write(self.folder, model, validation_data, self.class_names)
        with self.hparams_writer.as_default(step=0):
            ended = hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString(), step=0)
        for writer in (self.train_writer, self.validation_writer, self.hparams_writer):
            writer.close()

    def _stop_profiler(self):
        tf.profiler.experimental.stop()
        self.profiling = False


def _scalars(logs, prefix=""):
    """What Keras logs of the loss and of accuracies, the latter as the errors that the paper tells."""
    scalars = {"loss": logs[prefix + "loss"]} if prefix + "loss" in logs else {}
    return scalars | {f"{name}_error": 1 - logs[prefix + name] for name in ("top1", "top5") if prefix + name in logs}


def _sheet(images, a_row=4):
    """Images of one size as one picture, in rows."""
    images = np.concatenate([images, np.zeros((-len(images) % a_row, *images.shape[1:]), images.dtype)])
    rows = [np.concatenate(images[start : start + a_row], axis=1) for start in range(0, len(images), a_row)]
    return np.concatenate(rows)


def _norm(tensor):
    return float(np.sqrt(2 * keras.ops.convert_to_numpy(tf.nn.l2_loss(tensor))))


def _norm_of_norms(norms):
    """That of a layer, from those of its columns' kernels."""
    return float(np.linalg.norm(norms))


def _sample(weight):
    values = keras.ops.convert_to_numpy(weight).ravel()
    if values.size <= _WEIGHTS_IN_HISTOGRAM:
        return values
    return values[np.random.default_rng(0).integers(values.size, size=_WEIGHTS_IN_HISTOGRAM)]
