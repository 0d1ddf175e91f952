"""alexnet-train resumes with another number of workers."""

import itertools
import sys
import textwrap

import pytest

from alexnet_tf.distribution import local_workers
from alexnet_tf.tfrecords import reader

# alexnet-train that stops after a step, and writes a line per batch with the numbers of its images.
RECORDED_TRAINING = textwrap.dedent("""
    import os, pathlib, signal, sys
    import tensorflow as tf
    from alexnet_tf import train
    from alexnet_tf.tfrecords import reader
    from alexnet_tf.training import callbacks
    folder, last_step = pathlib.Path(sys.argv.pop(1)), int(sys.argv.pop(1))
    make, begin = reader.make_training_dataset, callbacks.SaveCheckpoints.on_train_batch_begin
    def make_recorded(*arguments, start_step, share, **others):
        path = folder / f"step {start_step}, worker {share.worker} of {share.num_workers}"
        def record(inputs, labels):
            # TensorFlow prints it: no thread waits for Python when the process ends.
            tf.print(inputs["image"][:, 0, 0, 2], summarize=-1, output_stream=f"file://{path}")
            return inputs, labels
        return make(*arguments, start_step=start_step, share=share, **others).map(record)
    def stop(self, batch, logs=None):
        if self.step == last_step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        begin(self, batch, logs)
    reader.make_training_dataset = make_recorded
    callbacks.SaveCheckpoints.on_train_batch_begin = stop
    train.run()
""")


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_three_and_one_read_the_epoch_of_one(small_data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run_dir, steps = tmp_path / "run", []
    flags = [f"--data_dir={small_data_dir}", f"--run_dir={run_dir}", "--variant=testing", "--batch_size=6"]
    for num_workers, first, end, others in ((2, 0, 3, []), (3, 3, 5, ["--fc_parallel"]), (1, 5, 7, [])):
        stop = str(end if end < 7 else 0)
        command = [sys.executable, "-c", RECORDED_TRAINING, str(tmp_path), stop, *flags, "--epochs=1", *others]
        status = local_workers.run_workers(command, num_workers, max_restarts=0)
        assert status == (local_workers.EXIT_STOPPED if end < 7 else 0)
        assert (run_dir / "checkpoints" / f"{end:08d}").is_dir()
        paths = [tmp_path / f"step {first}, worker {worker} of {num_workers}" for worker in range(num_workers)]
        for lines in itertools.islice(
            zip(*(path.read_text().splitlines() for path in paths), strict=False), end - first
        ):
            steps.append([int(number) for line in lines for number in line.strip("[]").split()])
    epoch = reader.make_training_dataset(small_data_dir, 6, 56).take(7)
    assert steps == [batch["image"][:, 0, 0, 2].numpy().tolist() for batch, _ in epoch]
