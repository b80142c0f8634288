"""Workers on this machine, as an entry of ``DISTRIBUTED_TARGET_HOSTS``: ``local``, or ``local:4`` for four at once."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.words import shortened

LOCAL = "local"
MOST = 1000  # workers: each takes memory of this machine
_ENTRY = re.compile(rf"\s*{LOCAL}(?::([^/@\s]*))?\s*", re.IGNORECASE)


def is_local(entry: str) -> bool:
    return _ENTRY.fullmatch(entry) is not None


def local_slots(hosts: Sequence[str], targets: Collection[str] = ()) -> int:
    """How many workers at once *hosts* ask for on this machine; 0 if none of them does. *targets*: names in
    ``scrapy.cfg``. Raises ``ConfigError``."""
    asked = [found for found in map(_ENTRY.fullmatch, hosts) if found]
    if not asked:
        return 0
    if len(asked) > 1:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found {len(asked)} entries for workers on this machine, expected one, e.g."
            f" {LOCAL}:4"
        )
    (number,) = asked[0].groups()
    if number is None and LOCAL in targets:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found {LOCAL!r}, which is the name of a target in scrapy.cfg and means workers"
            f" on this machine as well: write {LOCAL}:{cores()} for these; or the target's host:port, or rename it"
        )
    slots = cores() if number is None else int(number) if number.isdecimal() else 0
    if not 1 <= slots <= MOST:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found {LOCAL}:{shortened(str(number))}, expected {LOCAL} or {LOCAL}:N for N"
            f" workers on this machine, 1 to {MOST}; for a host of that name give its URL, http://{LOCAL}:6800"
        )
    return slots


def cores() -> int:
    """How many CPUs this process has: by its affinity, and by the quota of its container."""
    with suppress(AttributeError):  # macOS does not have it
        return max(1, min(len(os.sched_getaffinity(0)), round(_quota())))
    return os.cpu_count() or 1


def _quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs, of the tightest control group that this process is in: version 2, else version 1."""
    quota = float(os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                places = [root, *_folders(root, path)]
                limits = [_read(place / "cpu.max") for place in places]
            elif "cpu" in controllers.split(","):
                places = [root / "cpu", *_folders(root / "cpu", path)]
                limits = [_read(place / "cpu.cfs_quota_us", place / "cpu.cfs_period_us") for place in places]
            else:
                continue
            quota = min([quota, *(limit for limit in limits if limit)])
    return quota


def _folders(root: Path, path: str) -> list[Path]:
    """Those of a group and of all above it; in a container they may not be there."""
    group = root / path.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]


def _read(*files: Path) -> float:
    """Microseconds of CPU by those of a period; 0 where nothing is said."""
    try:
        quota, period = " ".join(file.read_text().strip() for file in files).split()
        return max(0.0, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0
