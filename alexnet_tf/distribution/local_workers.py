"""Starts the workers of a training run on this machine, and restarts them when one is lost."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from absl import logging

from alexnet_tf.processes import kill_with_parent

# From <sysexits.h>. After these two a restart helps.
EXIT_STOPPED = os.EX_TEMPFAIL  # 75: stopped by SIGTERM or Ctrl-C; a checkpoint is saved
EXIT_WORKER_LOST = os.EX_UNAVAILABLE  # 69: another worker is gone
# Workers are killed if they take longer to notice that another is lost, by missing heartbeats, or to save and stop.
_SECONDS_TO_END = 90


def run_workers(command: Sequence[str], num_workers: int, max_restarts: int) -> int:
    """Runs a command as several workers until they end.

    Each of several workers gets TF_CONFIG in its environment. When one is killed, stopped, or loses another, all are
    ended and restarted. SIGTERM and SIGINT request all to stop, without a restart; a second signal kills them.

    Args:
        command: the program and its arguments.
        num_workers: number of processes.
        max_restarts: maximum number of restarts.

    Returns: the exit status: 0 if all succeeded, or that of the first worker that failed (128 + the signal's number if
        a signal killed it).
    """
    processes: list[subprocess.Popen] = []
    stop_signals = []

    def pass_on(number, frame):
        stop_signals.append(number)
        for process in processes:
            process.send_signal(signal.SIGTERM if len(stop_signals) == 1 else signal.SIGKILL)

    handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    status = 0
    try:
        for restart in range(max_restarts + 1):
            processes[:] = _start(command, num_workers)
            if stop_signals:  # received while the workers were started
                for process in processes:
                    process.send_signal(signal.SIGTERM)
            status = _wait(processes, stop_signals)
            worth_a_restart = status < 0 or status in (EXIT_STOPPED, EXIT_WORKER_LOST)
            if not worth_a_restart or stop_signals:
                break
            if restart < max_restarts:
                logging.warning("A worker ended with status %d. Restart %d of %d.", status, restart + 1, max_restarts)
        return status if status >= 0 else 128 - status
    finally:
        for process in processes:
            process.kill()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _start(command, num_workers) -> list[subprocess.Popen]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(num_workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    processes = []
    for index in range(num_workers):
        environment = dict(os.environ)
        if num_workers > 1:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        # In its own process group: this process receives the terminal's Ctrl-C and passes it on. If it is killed, the
        # workers must end, since the next run might write to the same folder.
        processes.append(subprocess.Popen(command, env=environment, preexec_fn=kill_with_parent, process_group=0))
    return processes


def _wait(processes, stop_signals) -> int:
    """Waits until all processes have ended; returns 0, or the return code of the first that failed."""
    first_bad, ending_since = 0, None
    while True:
        codes = [process.poll() for process in processes]
        if not first_bad:
            first_bad = next((code for code in codes if code), 0)
        if None not in codes:
            return first_bad
        if ending_since is None and (first_bad or stop_signals):
            ending_since = time.monotonic()
        if ending_since and time.monotonic() > ending_since + _SECONDS_TO_END:
            for process in processes:
                process.kill()
        time.sleep(0.1)
