"""Reads and decodes images on other machines, or in other processes, with TensorFlow's tf.data service.

Where the cores of a machine can't feed its GPUs:

    alexnet-data-service --port=5050 --num_workers=2                        # on one machine: dispatcher and workers
    alexnet-data-service --dispatcher=first.machine:5050 --num_workers=16   # on each other one: more workers
    alexnet-train --data_service=first.machine:5050 ...

All machines must see the data set under the same path.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time

import tensorflow as tf
from absl import flags

from alexnet_tf.tfrecords import program

# After so long without a word from a worker the dispatcher gives it up, and the trainers ask it for nothing more.
_WORKER_TIMEOUT_MS = 20_000
_HEARTBEAT_MS = 2_000
# A worker that ends so soon has not begun to serve; so often one after another, and nobody will.
_START_SECONDS = 30
_MOST_FAILURES = 5


def distribute(address, job_name=None):
    """The transformation of a `tf.data.Dataset` that has a tf.data service make its elements.

    Each element of the data set's source, a window of an epoch, goes to one of the workers, as they come.

    Args:
        address: "host:port" of the dispatcher.
        job_name: None, or the name under which several trainers share the elements between them.
    """
    return tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
        service=f"grpc://{address}",
        job_name=job_name,
        compression=None,  # of pixels it costs more than it saves
    )


def check_reachable(address, seconds=30):
    """Raises ValueError where nothing listens at "host:port": TensorFlow would wait for ever, without a word.

    Args:
        address: of the dispatcher.
        seconds: how long it may take to come up.
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
                    f"`data_service` must be the address of a dispatcher that runs (alexnet-data-service). Nothing "
                    f"listens at {address}: {error}"
                ) from error
            time.sleep(1)


def start_dispatcher(port, work_dir=None):
    """Starts a dispatcher in this process.

    Args:
        port: where it listens; 0 for any free port.
        work_dir: folder of its journal, from which one that is started again goes on; None for none.

    Returns: a `tf.data.experimental.service.DispatchServer`.

    Raises:
        ValueError: where something else listens there. (TensorFlow would share the port with it.)
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended is no hindrance
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


def run_worker(dispatcher, host):
    """Serves images until the process ends: to be called in a process of its own.

    Args:
        dispatcher: "host:port" of the dispatcher.
        host: name of this machine, under which the trainers reach it.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
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
    multiprocessing.parent_process().join()
    os._exit(1)


def keep_workers(dispatcher, host, num_workers):
    """Starts workers, and each anew that dies, until this process ends. Each death is told.

    Args:
        dispatcher, host: as `run_worker` takes them.
        num_workers: how many processes.
    """
    context = multiprocessing.get_context("spawn")

    def start():
        worker = context.Process(target=run_worker, args=(dispatcher, host), daemon=True)
        worker.start()
        return worker

    workers = [start() for _ in range(num_workers)]
    started, failures = [time.monotonic()] * num_workers, 0
    while True:
        multiprocessing.connection.wait([worker.sentinel for worker in workers])
        for number, worker in enumerate(workers):
            if worker.exitcode is None:
                continue
            failures = failures + 1 if time.monotonic() - started[number] < _START_SECONDS else 0
            if failures > _MOST_FAILURES:
                raise RuntimeError(
                    f"Workers ended {failures} times within {_START_SECONDS} seconds of their start, the last with "
                    f"status {worker.exitcode}. Is there a dispatcher at {dispatcher}?"
                )
            print(
                f"Worker {number} (process {worker.pid}) ended with status {worker.exitcode}; it is started again. "
                "What it had read and not yet handed on is missing from this epoch: two windows, 8,192 images, at "
                "most.",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(1)
            workers[number], started[number] = start(), time.monotonic()


def define_flags():
    """Defines the flags. Not at import: then two programs could not be imported together."""
    flags.DEFINE_integer("port", 0, "Where the dispatcher listens; 0 for any free port.", lower_bound=0)
    flags.DEFINE_string("dispatcher", None, "HOST:PORT of a dispatcher that runs already; without it one is started.")
    flags.DEFINE_string(
        "work_dir", None, "Folder of the dispatcher's journal: killed and started again with it, it goes on."
    )
    flags.DEFINE_integer("num_workers", 1, "Processes on this machine that read and decode images.", lower_bound=0)
    flags.DEFINE_string("host", socket.gethostname(), "Name under which other machines reach this one.")


def main(arguments):
    flag = flags.FLAGS
    address = flag.dispatcher
    if address and not flag.num_workers:
        raise ValueError("--num_workers must be at least 1 with --dispatcher: there is nothing else to start.")
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what is in its background with SIGINT ignored
        signal.signal(number, lambda *_: sys.exit(0))
    if not address:
        server = start_dispatcher(flag.port, flag.work_dir)
        address = f"{flag.host}:{server.target.rpartition(':')[2]}"
    print(f"Dispatcher: {address}. {flag.num_workers} workers here.", flush=True)
    if flag.num_workers:
        keep_workers(address, flag.host, flag.num_workers)
    while True:  # and not server.join(), which no signal interrupts
        signal.pause()


def run():
    """Entry point, as a module and as a console script."""
    program.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
