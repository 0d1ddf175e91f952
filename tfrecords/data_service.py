"""A tf.data service: its dispatcher and workers, and datasets that read through it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import tensorflow as tf

from alexnet_tf import processes
from alexnet_tf.tfrecords import epochs

_HEARTBEAT_MS = 2_000
# The dispatcher drops a worker after this time without a heartbeat, and trainers stop reading from it.
_WORKER_TIMEOUT_MS = 20_000
# A worker that ends sooner than this has failed to start; the program gives up after that many failures in a row.
_START_SECONDS = 30
_MAX_FAILURES = 5


def distribute(address: str, job_name: str | None = None) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Returns the transformation, for `Dataset.apply`, that moves a dataset's work to a tf.data service.

    Each element of the dataset's source, a window of an epoch, goes to the first free worker.

    Args:
        address: "host:port" of the dispatcher.
        job_name: name under which several trainers share the elements; None if one trainer reads them all.
    """
    return tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
        service=f"grpc://{address}",
        job_name=job_name,
        compression=None,  # compressing pixels costs more time than it saves
    )


def check_reachable(address: str, seconds: float = 30) -> None:
    """Raises ValueError if nothing listens at an address. TensorFlow would wait forever, without a message.

    Args:
        address: "host:port" of the dispatcher.
        seconds: how long to wait for it.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"`data_service` must be HOST:PORT. Received: {address!r}")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    "`data_service` must be the address of a running dispatcher (alexnet-data-service). Received: "
                    f"{address}, where nothing listens: {error}"
                ) from error
            time.sleep(1)


def start_dispatcher(port: int, work_dir: str | None = None) -> tf.data.experimental.service.DispatchServer:
    """Starts a dispatcher in this process.

    Args:
        port: the port to listen on; 0 for any free port.
        work_dir: folder of the journal from which a restarted dispatcher resumes; None for no journal.

    Raises:
        ValueError: if the port is in use. (TensorFlow would share it.)
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released counts as free
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError as error:
            raise ValueError(f"`port` must be free. Received: {port}, {error}") from error
    return tf.data.experimental.service.DispatchServer(
        tf.data.experimental.service.DispatcherConfig(
            port=port,
            protocol="grpc",
            work_dir=work_dir,
            fault_tolerant_mode=work_dir is not None,
            worker_timeout_ms=_WORKER_TIMEOUT_MS,
        )
    )


def run_worker(dispatcher: str, host: str) -> None:
    """Serves images until this process ends. Call it in a process of its own.

    Args:
        dispatcher: "host:port" of the dispatcher.
        host: name under which trainers reach this machine.
    """
    processes.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    server = tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(
            dispatcher_address=dispatcher,
            worker_address=f"{host}:%port%",
            heartbeat_interval_ms=_HEARTBEAT_MS,
        )
    )
    print(f"Process {os.getpid()} serves images.", flush=True)
    server.join()


def keep_workers(dispatcher: str, host: str, num_workers: int) -> None:
    """Runs worker processes until this process ends. Reports and restarts a worker that dies.

    Args:
        dispatcher, host: see `run_worker`.
        num_workers: number of processes.

    Raises:
        RuntimeError: if workers keep failing to start.
    """
    context = multiprocessing.get_context("spawn")

    def start():
        worker = context.Process(target=run_worker, args=(dispatcher, host), daemon=True)
        worker.start()
        return worker

    workers = [start() for _ in range(num_workers)]
    started, failures = [time.monotonic()] * num_workers, 0
    while True:
        # The timeout lets Python handle signals.
        multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=1)
        for number, worker in enumerate(workers):
            if worker.exitcode is None:
                continue
            failures = failures + 1 if time.monotonic() - started[number] < _START_SECONDS else 0
            if failures > _MAX_FAILURES:
                raise RuntimeError(
                    f"Workers ended {failures} times within {_START_SECONDS} seconds of their start, the last with "
                    f"status {worker.exitcode}. Is a dispatcher running at {dispatcher}?"
                )
            print(
                f"Worker {number} (process {worker.pid}) ended with status {worker.exitcode}; restarting it. "
                f"This epoch lacks the images that it had read but not delivered: at most {2 * epochs.WINDOW_IMAGES}.",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(1)
            workers[number], started[number] = start(), time.monotonic()
