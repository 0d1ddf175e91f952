"""Child processes that end with the process that started them, even if that is killed."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1  # in <linux/prctl.h>: the signal that a process gets when its parent ends


def kill_with_parent() -> None:
    """On Linux, has this process killed when its parent ends. `subprocess.Popen` can call it as `preexec_fn`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent() -> None:
    """Ends this process, which `multiprocessing` started, when its parent ends or if it has ended already."""

    def wait():
        parent = multiprocessing.parent_process()
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    kill_with_parent()  # the thread may not run while TensorFlow waits for another process
