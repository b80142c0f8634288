"""How long this process has lived."""

from __future__ import annotations

import os
import time
from pathlib import Path


def process_age(stat: Path = Path("/proc/self/stat")) -> float:
    """Seconds since this process was started, or forked: what it spent on imports before any code of ours is in it.

    Where the system does not tell in *stat* (field 22, see proc(5)), the CPU seconds that it has used, which are fewer.
    """
    try:
        ticks = int(stat.read_bytes().rpartition(b")")[2].split()[19])  # the name before may hold anything
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, LookupError, AttributeError):
        return time.process_time()
