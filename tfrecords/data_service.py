"""The dispatcher and the workers of a tf.data service, and the data sets that read through them."""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import tensorflow as tf

# The dispatcher drops a worker that has not been heard of for so long, and trainers stop reading from it.
_WORKER_TIMEOUT_MS = 20_000
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>: the signal that a process gets when its parent ends
_HEARTBEAT_MS = 2_000
# A worker that ends within so many seconds never served. After so many of these in a row none ever will.
_START_SECONDS = 30
_MAX_FAILURES = 5


def distribute(address: str, job_name: str | None = None) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Returns the transformation, for `Dataset.apply`, that moves the work of a data set to a tf.data service.

    Each element of the data set's source, a window of an epoch, goes to the first worker that is free.

    Args:
        address: "host:port" of the dispatcher.
        job_name: name under which several trainers share the elements; None for a trainer that reads all.
    """
    return tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
        service=f"grpc://{address}",
        job_name=job_name,
        compression=None,  # of pixels it costs more than it saves
    )


def check_reachable(address: str, seconds: float = 30) -> None:
    """Raises ValueError if nothing listens at an address: TensorFlow would wait for ever without a message.

    Args:
        address: "host:port" of the dispatcher.
        seconds: how long it may take to start.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            if not host or not port.isdecimal():
                raise ValueError(f"`data_service` must be HOST:PORT. Received: {address!r}")
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"`data_service` must be the address of a running dispatcher (alexnet-data-service). Nothing "
                    f"listens at {address}: {error}"
                ) from error
            time.sleep(1)


def start_dispatcher(port: int, work_dir: str | None = None) -> tf.data.experimental.service.DispatchServer:
    """Starts a dispatcher in this process.

    Args:
        port: the port it listens on; 0 for any free one.
        work_dir: folder of its journal, from which a restarted dispatcher resumes; None for no journal.

    Returns: a `tf.data.experimental.service.DispatchServer`.

    Raises:
        ValueError: if the port is in use. (TensorFlow would share it.)
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
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
    """Serves images until the process ends: to be called in a process of its own.

    Args:
        dispatcher: "host:port" of the dispatcher.
        host: name under which trainers reach this machine.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.platform == "linux":  # a thread may wait: a worker was seen to hang whose dispatcher ended as it registered
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
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


def _end_with_parent():
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def keep_workers(dispatcher: str, host: str, num_workers: int) -> None:
    """Runs worker processes until this process ends. One that dies is reported and restarted.

    Args:
        dispatcher, host: see `run_worker`.
        num_workers: number of processes.

    Raises:
        RuntimeError: if workers keep dying right after their start.
    """
    context = multiprocessing.get_context("spawn")

    def start():
        worker = context.Process(target=run_worker, args=(dispatcher, host), daemon=True)
        worker.start()
        return worker

    workers = [start() for _ in range(num_workers)]
    started, failures = [time.monotonic()] * num_workers, 0
    while True:
        multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=1)  # signals are seen, too
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
                "Images that it had read but not delivered are missing from this epoch: at most two windows, 8,192 "
                "images.",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(1)
            workers[number], started[number] = start(), time.monotonic()
