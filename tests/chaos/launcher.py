"""A coordinator that kills itself at an exact point: ``python launcher.py POINT NUMBER crawl ...``.

*POINT* is one of ``POINTS``, *NUMBER* which time it is reached. What follows is given to ``scrapy``. The command and
the code that run are the ordinary ones; only the named method is wrapped.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from typing import Any

from scrapy_distributed.fleet.node import Node
from scrapy_distributed.ledger.sqlite_account import Account
from scrapy_distributed.ledger.sqlite_bookings import Bookings
from scrapy_distributed.ledger.sqlite_intake import Intake
from scrapy_distributed.ledger.sqlite_verdicts import Verdicts

SECONDS_BEFORE_REPLY = 0.5

METHODS: dict[str, tuple[type, str]] = {
    "divert": (Intake, "divert"),
    "cut": (Intake, "cut"),
    "bind": (Bookings, "bind"),
    "post": (Node, "schedule"),
    "mark": (Bookings, "sent"),
    "settle": (Verdicts, "settle"),
    "walked": (Intake, "walked"),
    "end": (Account, "end"),
}
POINTS = [f"{when}-{name}" for name in METHODS for when in ("before", "after")] + ["during-post"]
"""``during-post``: the node has been asked, and has not answered for ``SECONDS_BEFORE_REPLY``."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, number: int) -> None:
    """Wrap the method of *point* so that the process dies around its call with this *number*, counted from 1."""
    when, _, name = point.partition("-")
    owner, method = METHODS[name]
    original = getattr(owner, method)
    calls = 0

    def reached() -> bool:
        nonlocal calls
        calls += 1
        return calls == number

    def called(*args: Any, **kwargs: Any) -> Any:
        now = reached()
        if now and when == "before":
            die()
        result = original(*args, **kwargs)
        if now:
            die()
        return result

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        from twisted.internet import reactor

        now = reached()
        if now and when == "before":
            die()
        if now and when == "during":
            reactor.callLater(SECONDS_BEFORE_REPLY, die)
        result = await original(*args, **kwargs)
        if now:
            die()
        return result

    setattr(owner, method, awaited if inspect.iscoroutinefunction(original) else called)


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    from scrapy.cmdline import execute

    execute(["scrapy", *sys.argv[3:]])
