"""A job as Scrapyd lists it, and what may be asked of one: the limits of names and of a worker's command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES
from scrapy_distributed.words import shortened

#: Bytes of all arguments of one job: half of what Linux allows for arguments and environment together.
MAX_ARGUMENTS_BYTES = 1_000_000
#: Names that ``schedule.json`` takes itself, and those its own call of the scheduler can't take twice.
RESERVED_KEYS = frozenset(
    {"project", "spider", "jobid", "priority", "setting", "_version", "_job", "_project", "_spider"}
    | {"name", "settings", "spider_name", "self"}
)
#: Bytes of a spider's name: beside the folder of its logs, which has its name, is one with ``.receipts`` behind it.
MAX_SPIDER_BYTES = 255 - len(".receipts")
#: Bytes of a project's name: Scrapyd has a database of that name, and SQLite a journal beside it. A longer one is worse
#: than useless: Scrapyd 1.6 makes the folder first, and from then on can't open that database at any deploy or start.
MAX_PROJECT_BYTES = 255 - len(".db-journal")
_SHORTEN = "shorten what -a and -s give, and DISTRIBUTED_WORKER_SETTINGS"
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


def check_project(project: str) -> None:
    """Raise ``ConfigError`` for a name that Scrapyd can't make folders and a database of."""
    wrong = _wrong(project, MAX_PROJECT_BYTES)
    if wrong:
        raise ConfigError(f"project {_shown(project)}: {wrong}: set DISTRIBUTED_PROJECT, or project in scrapy.cfg")


def check_spider(spider: str) -> None:
    """Raise ``ConfigError`` for a name that Scrapyd takes and can't run. Most of these cost a node one of its process
    slots a job, until it is restarted."""
    wrong = _wrong(spider, MAX_SPIDER_BYTES)
    if not wrong and spider.startswith("-"):
        wrong = "it begins with a -, and Scrapyd gives it to a command that takes it for an option"
    if not wrong and spider.endswith(".receipts"):
        wrong = "it ends with .receipts, where the receipts of another spider may lie among its logs"
    if wrong:
        raise ConfigError(f"spider {_shown(spider)}: {wrong}: give the spider another name, and deploy it")


def _wrong(name: str, longest: int) -> str:
    """Why *name* can't be that of a folder on a node; '' if it can."""
    if "/" in name or name in ("", ".", ".."):
        return "found what is a path, and Scrapyd makes a folder of that name, expected one without /, . or .. alone"
    if "\0" in name or name.splitlines() != [name]:
        return "found a NUL or a line end in it, expected a name on one line"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it can't be encoded as UTF-8"
    return f"it has {length} bytes, at most {longest} can be the name of a folder there" if length > longest else ""


def _shown(name: str) -> str:
    return repr(shortened(name, 100))


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
        raise ConfigError(
            f"settings and arguments of a job, its batch among them: {total} bytes, at most {MAX_ARGUMENTS_BYTES} can"
            f" travel: {_SHORTEN}"
        )


def _argument_bytes(kind: str, key: str, value: str) -> int:
    try:
        argument = f"{key}={value}".encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{kind} {key!r}: its value can't be encoded as UTF-8") from None
    if b"\0" in argument:
        raise ConfigError(f"{kind} {key!r}: it holds a NUL byte, which no command line can carry")
    if len(argument) > MAX_ARGUMENT_BYTES:
        raise ConfigError(
            f"{kind} {key!r}: {len(argument)} bytes with its name, at most {MAX_ARGUMENT_BYTES} can travel: {_SHORTEN}"
        )
    return len(argument)
