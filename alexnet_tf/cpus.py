"""How many processes and threads to start."""

import contextlib
import math
import os
import pathlib

_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_OWN_CGROUPS = pathlib.Path("/proc/self/cgroup")


def available_cpus() -> int:
    """CPUs that this process may use: those of its affinity, or fewer if its container (cgroup) is limited."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits: list[float] = [count]
    for line in _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.exists() else ():
        _, controllers, own = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = _CGROUPS / "cpu" if controllers else _CGROUPS
        own = top / own.lstrip("/")
        for place in (own, *own.parents):  # a limit of any of them holds; in a container only the top is there
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
                if controllers:
                    quota, period = (int((place / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
                else:
                    quota, period = map(int, (place / "cpu.max").read_text().split())
                if quota > 0:  # -1: no limit
                    limits.append(quota / period)
    return max(1, math.ceil(min(limits)))
