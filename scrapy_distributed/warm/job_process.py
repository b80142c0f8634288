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


def payload(runner: str, arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """What a job's process reads: it is to be ``python -m RUNNER ARGUMENTS`` with *environment*."""
    return json.dumps({"runner": runner, "arguments": arguments, "environment": dict(environment)}).encode()


def run(job: bytes) -> None:
    """Be the process that *job*, a ``payload``, describes. Ends as the runner ends, so most often in ``SystemExit``."""
    told = json.loads(job)
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv[1:] = told["arguments"]  # runpy sets the first
    with suppress(OSError), open("/proc/self/comm", "w") as name:  # for top and ps; only Linux has it
        name.write(" ".join(told["arguments"][:2]))
    runpy.run_module(told["runner"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(sys.stdin.buffer.read())
