"""The process of one job: its command line and environment come through standard input, not through arguments.

An argument of a command has at most 131,071 bytes on Linux, and every user of the machine sees it in ``ps``.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

DETACHED = "--detached"
"""As its first argument: leave the session of whoever has started it."""
#: How a node, or a worker of shared runs, may be told its password. No job has a use for it, and each would get it with
#: the environment.
SECRETS = (
    "SCRAPYD_USERNAME", "SCRAPYD_PASSWORD", "DISTRIBUTED_REDIS_USERNAME", "DISTRIBUTED_REDIS_PASSWORD",
    "DISTRIBUTED_REDIS_CERTIFICATE", "DISTRIBUTED_REDIS_KEY",
)  # fmt: skip


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """*environment* for a job, or for a process that forks jobs: what it has begun with can be read in ``/proc``."""
    return {name: value for name, value in environment.items() if name not in SECRETS}


def payload(
    runner: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: str | None = None,
    path: Sequence[str] | None = None,
) -> bytes:
    """What a job's process reads: it is to be ``python -m RUNNER ARGUMENTS`` with *environment*; where they are given,
    in *folder*, with *path* as its ``sys.path``."""
    told = {"runner": runner, "arguments": arguments, "environment": dict(environment), "folder": folder, "path": path}
    return json.dumps(told).encode()


def run(job: bytes) -> None:
    """Be the process that *job*, a ``payload``, describes. Ends as the runner ends, so most often in ``SystemExit``."""
    told = json.loads(job)
    os.environ.clear()
    os.environ.update(told["environment"])
    if told["folder"] is not None:
        os.chdir(told["folder"])
    if told["path"] is not None:
        sys.path[:] = told["path"]
    sys.argv[1:] = told["arguments"]  # runpy sets the first
    with suppress(OSError), open("/proc/self/comm", "w") as name:  # for top and ps; only Linux has it
        name.write(" ".join(told["arguments"][:2]))
    runpy.run_module(told["runner"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if sys.argv[1:] == [DETACHED]:
        os.setsid()
    run(sys.stdin.buffer.read())
