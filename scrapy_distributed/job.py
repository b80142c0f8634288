"""A job as Scrapyd lists it, and what may be asked of one: the limits of a worker's command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.wire import MAX_ARGUMENT_BYTES

#: Bytes of all arguments of one job: half of what Linux allows for arguments and environment together.
MAX_ARGUMENTS_BYTES = 1_000_000
#: Names that ``schedule.json`` takes itself, and those its own call of the scheduler can't take twice.
RESERVED_KEYS = frozenset(
    {"project", "spider", "jobid", "priority", "setting", "_version", "_job", "_project", "_spider"}
    | {"name", "settings", "spider_name", "self"}
)
_JOB_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of ``listjobs.json``. Times are the node's own words; a pending job has neither *pid* nor times."""

    id: str
    project: str
    spider: str
    pid: int | None = None
    start_time: str | None = None
    end_time: str | None = None


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What a node knows of its jobs. Finished says nothing about success."""

    pending: tuple[Job, ...]
    running: tuple[Job, ...]
    finished: tuple[Job, ...]


def check_job_id(job: str) -> None:
    """Raise ``ConfigError`` for an id that can't be a file name everywhere."""
    if not _JOB_ID.fullmatch(job):
        raise ConfigError(f"job id {job[:250]!r}: it may have 1 to 200 of the characters A-Z a-z 0-9 . _ -")


def check_job(jobid: str, settings: Mapping[str, str], args: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` for a job that Scrapyd would accept and never run, or can't take."""
    check_job_id(jobid)
    total = 0
    for kind, mapping in (("setting", settings), ("spider argument", args)):
        for key, value in mapping.items():
            if key in RESERVED_KEYS:
                raise ConfigError(f"{kind} {key!r}: Scrapyd uses this name itself, use another one")
            if not key or "=" in key:
                raise ConfigError(f"{kind} {key!r}: a name must not be empty and have no '='")
            total += _argument_bytes(kind, key, value)
    if total > MAX_ARGUMENTS_BYTES:
        raise ConfigError(f"settings and arguments of a job: {total} bytes, at most {MAX_ARGUMENTS_BYTES} travel")


def _argument_bytes(kind: str, key: str, value: str) -> int:
    try:
        argument = f"{key}={value}".encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{kind} {key!r}: its value can't be encoded as UTF-8") from None
    if b"\0" in argument:
        raise ConfigError(f"{kind} {key!r}: it holds a NUL byte, which no command line can carry")
    if len(argument) > MAX_ARGUMENT_BYTES:
        raise ConfigError(
            f"{kind} {key!r}: {len(argument)} bytes with its name, at most {MAX_ARGUMENT_BYTES} can travel"
        )
    return len(argument)
