"""The tf.data service: the same images from other processes, even if one of them is killed."""

import contextlib
import itertools
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from programs import ENVIRONMENT, call, program, run_well, train_flags

from alexnet_tf.tfrecords import data_service as tf_data_service
from alexnet_tf.tfrecords import epochs, reader


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def data_service(*flags, num_workers=2):
    """Runs alexnet-data-service; yields the process and its address."""
    process = subprocess.Popen(
        program("tfrecords.service", "--host=localhost", f"--num_workers={num_workers}", *flags),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = re.match(r"Dispatcher: (\S+)\. ", process.stdout.readline())[1]
        yield process, address
    finally:
        process.kill()
        process.communicate(timeout=60)  # which waits for the workers, too: they end with it


def workers_of(process):
    """The process IDs of the service's workers, once they serve."""
    workers = set()
    while len(workers) < 2:
        line = process.stdout.readline()
        assert line, "the service has ended"
        workers.update(int(number) for number in re.findall(r"Process (\d+) serves images", line))
    return workers


class TestService:
    @pytest.mark.slow
    def test_images_equal_local_ones_and_none_comes_twice(self, tiny_data_dir, monkeypatch):
        monkeypatch.setattr(epochs, "WINDOW_IMAGES", 10)

        def images(count, **arguments):
            dataset = reader.make_training_dataset(tiny_data_dir, 5, 32, **arguments)
            for inputs, labels in itertools.islice(dataset, count):
                for values in zip(inputs["image"].numpy(), inputs["color_offset"].numpy(), labels.numpy(), strict=True):
                    yield b"".join(np.asarray(value).tobytes() for value in values)

        here = list(images(10 * 9))  # ten epochs of nine batches of five images
        with data_service() as (_, address):
            through = list(images(3 * 9, data_service=address))
        assert len(set(through)) == len(through) == 3 * 45
        assert set(through) <= set(here)
        # Which worker takes which window is random, but each window is read.
        assert len(set(through) & set(here[: 5 * 45])) > 2 * 45

    @pytest.mark.slow
    @pytest.mark.long
    def test_training_continues_after_a_worker_is_killed(self, data_dir, tmp_path):
        with data_service() as (process, address):
            workers = workers_of(process)
            flags = train_flags(data_dir, tmp_path / "run", "--epochs=4", f"--data_service={address}")
            training = subprocess.Popen(
                program("train", *flags), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            shown = ""
            while "60/60" not in shown:
                part = training.stdout.read(50)
                assert part, "training has ended"
                shown = (shown + part)[-100:]
            victim = min(workers)
            os.kill(victim, signal.SIGKILL)
            output, _ = training.communicate(timeout=120)
            assert training.returncode == 0, output
            process.kill()
            _, errors = process.communicate()
            assert f"(process {victim}) ended with status -9; restarting it." in errors

    @pytest.mark.slow
    @pytest.mark.long
    def test_dispatcher_resumes_from_its_journal(self, data_dir, tmp_path):
        port = free_port()
        flags = [f"--port={port}", f"--work_dir={tmp_path / 'journal'}"]
        with contextlib.ExitStack() as stack:
            dispatcher, address = stack.enter_context(data_service(*flags, num_workers=0))
            stack.enter_context(data_service(f"--dispatcher={address}"))
            batches = iter(reader.make_training_dataset(data_dir, 50, 56, data_service=address))
            seen = [next(batches)[1] for _ in range(20)]
            dispatcher.kill()
            dispatcher.wait()
            stack.enter_context(data_service(*flags, num_workers=0))
            seen += [next(batches)[1] for _ in range(400)]
        assert len(seen) == 420

    @pytest.mark.slow
    @pytest.mark.long
    def test_several_trainers_share_the_service(self, data_dir, tmp_path):
        with data_service() as (_, address):
            flags = train_flags(data_dir, tmp_path / "run", "--epochs=2", f"--data_service={address}")
            output = run_well("train", *flags, "--num_local_workers=2")
        assert "on 2 workers" in output
        assert pathlib.Path(tmp_path / "run" / "model.keras").exists()

    @pytest.mark.slow
    @pytest.mark.long
    def test_workers_end_with_the_service(self):
        with data_service() as (process, _):
            workers = workers_of(process)
        deadline = time.monotonic() + 30
        while any(pathlib.Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_dispatcher_stops_on_a_signal(self, number):
        with data_service(num_workers=0) as (process, _):
            process.send_signal(number)
            assert process.wait(timeout=60) == 0

    def test_wrong_flags_are_errors(self):
        with pytest.raises(ValueError, match="--num_workers must be at least 1"):
            call("tfrecords.service", "--dispatcher=localhost:1", "--num_workers=0")
        with socket.create_server(("", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(ValueError, match=f"`port` must be free. Received: {port}"):
                tf_data_service.start_dispatcher(port)

    @pytest.mark.parametrize("address", ["localhost:1", "localhost", "localhost:port"])
    def test_address_where_nothing_listens_is_an_error(self, address):
        with pytest.raises(ValueError, match=rf"`data_service` must be .*{address}"):
            tf_data_service.check_reachable(address, seconds=0)

    def test_several_trainers_without_a_job_name_are_an_error(self, tiny_data_dir):
        with socket.create_server(("localhost", 0)) as listener, pytest.raises(ValueError, match="`data_service_job`"):
            address = f"localhost:{listener.getsockname()[1]}"
            reader.make_training_dataset(tiny_data_dir, 10, 32, share=reader.Share(0, 2), data_service=address)
