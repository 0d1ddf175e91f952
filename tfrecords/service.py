"""Reads and decodes images in other processes or on other machines, with TensorFlow's tf.data service.

Use it if a machine's cores can't feed its GPUs:

    alexnet-data-service --port=5050 --num_workers=2                        # on one machine: dispatcher and workers
    alexnet-data-service --dispatcher=first.machine:5050 --num_workers=16   # on the others: more workers
    alexnet-train --data_service=first.machine:5050 ...

All machines must see the data set under the same path.
"""

import signal
import socket
import sys
import time

from absl import flags

from alexnet_tf import cli


def define_flags() -> None:
    """Defines the command-line flags."""
    flags.DEFINE_integer("port", 0, "Port of the dispatcher; 0 for any free port.", lower_bound=0)
    flags.DEFINE_string("dispatcher", None, "HOST:PORT of a running dispatcher; by default the program starts one.")
    flags.DEFINE_string(
        "work_dir", None, "Folder of the dispatcher's journal, from which a restarted dispatcher resumes."
    )
    flags.DEFINE_integer("num_workers", 1, "Number of processes on this machine that read images.", lower_bound=0)
    flags.DEFINE_string("host", socket.gethostname(), "Name under which other machines reach this machine.")


def main(arguments: list[str]) -> None:
    flag = flags.FLAGS
    address = flag.dispatcher
    if address and not flag.num_workers:
        raise ValueError("--num_workers must be at least 1 with --dispatcher. Received: 0")
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts background processes with SIGINT ignored
        signal.signal(number, lambda *_: sys.exit(0))

    # Imports TensorFlow, which takes seconds: only once the flags are checked.
    from alexnet_tf.tfrecords import data_service

    if not address:
        server = data_service.start_dispatcher(flag.port, flag.work_dir)
        address = f"{flag.host}:{server.target.rpartition(':')[2]}"
    print(f"Dispatcher: {address}. Workers on this machine: {flag.num_workers}.", flush=True)
    if flag.num_workers:
        data_service.keep_workers(address, flag.host, flag.num_workers)
    while True:  # no signal interrupts server.join(), and pause() misses a signal that came just before it
        time.sleep(1)


def run() -> None:
    """Entry point, as a module and as a console script."""
    cli.start(__name__, define_flags, main)


if __name__ == "__main__":
    run()
