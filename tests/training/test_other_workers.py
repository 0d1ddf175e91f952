"""alexnet-train stopped within an epoch, and resumed by another number of workers."""

import sys
import textwrap

import pytest

from alexnet_tf.distribution import local_workers

# alexnet-train, which stops after a step and writes the numbers of the images that it reads, a line for each batch.
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
            # By TensorFlow itself: no thread waits for Python when the process ends.
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
def test_two_then_three_then_one_worker_read_each_image_of_the_epoch_once(small_data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run_dir, seen = tmp_path / "run", []
    flags = [
        f"--data_dir={small_data_dir}",
        f"--run_dir={run_dir}",
        "--variant=testing",
        "--batch_size=6",
        "--epochs=1",
    ]
    for num_workers, first, end, others in ((2, 0, 3, []), (3, 3, 5, ["--fc_parallel"]), (1, 5, 7, [])):
        command = [sys.executable, "-c", RECORDED_TRAINING, str(tmp_path), str(end if end < 7 else 0), *flags, *others]
        status = local_workers.run_workers(command, num_workers, max_restarts=0)
        assert status == (local_workers.EXIT_STOPPED if end < 7 else 0)
        assert (run_dir / "checkpoints" / f"{end:08d}").is_dir()
        for worker in range(num_workers):
            lines = (tmp_path / f"step {first}, worker {worker} of {num_workers}").read_text().splitlines()
            seen += [int(number) for line in lines[: end - first] for number in line.strip("[]").split()]
    assert len(seen) == len(set(seen)) == 42
