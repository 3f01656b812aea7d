"""When this process started, so that the seconds of a run count what its user waited for."""

import os
import time
from pathlib import Path

import psutil

STAT = Path("/proc/self/stat")
START = 19
"""Place of the start time among the fields after the name of the program, in clock ticks since the machine started."""


def process_start() -> float:
    """Return when this process started, on the clock of `time.perf_counter`. For a fork that is when it was forked."""
    try:
        ticks = int(STAT.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[START])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux; psutil is exact to a second
        age = time.time() - psutil.Process().create_time()
    return time.perf_counter() - max(0.0, age)
