"""A coordinator that kills itself at an exact point: ``python launcher.py POINT NUMBER crawl ...``.

*POINT* is one of ``POINTS`` and their like, or ``NEVER``; *NUMBER* which time it is reached. What follows is given to
``scrapy``. The command and the code that run are the ordinary ones; only the named method is wrapped. Where the
environment names a folder of ``SWITCHES``, so are the files that items of workers come home to.
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scrapy.exporters import JsonLinesItemExporter
from scrapy.extensions.feedexport import FileFeedStorage

from scrapy_distributed.agent.warm_process import WarmProcess
from scrapy_distributed.coordinator.homecoming import Homecoming
from scrapy_distributed.dispatch.local_carrier import LocalCarrier
from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.items.spool import Draft, OwnItems
from scrapy_distributed.ledger.sqlite_account import Account
from scrapy_distributed.ledger.sqlite_bookings import Bookings
from scrapy_distributed.ledger.sqlite_intake import Intake
from scrapy_distributed.ledger.sqlite_verdicts import Verdicts

SECONDS_BEFORE_REPLY = 0.5
NEVER = "never"
SWITCHES = "CHAOS_SWITCHES"
SPOOL_FULL = "spool-full"
"""A file of this name there: what is written to the spool meanwhile finds no room for its second half."""
FEED_FULL = "feed-full"
"""The same of the coordinator's own feeds."""

Methods = dict[str, list[tuple[type, str]]]
METHODS: Methods = {
    "divert": [(Intake, "divert")],
    "cut": [(Intake, "cut")],
    "bind": [(Bookings, "bind")],
    "post": [(Node, "schedule"), (LocalCarrier, "send")],
    "mark": [(Bookings, "sent")],
    "settle": [(Verdicts, "settle")],
    "walked": [(Intake, "walked")],
    "end": [(Account, "end")],
}
METHODS_OF_ITEMS: Methods = {
    "fetch": [(ScrapydCarrier, "items"), (LocalCarrier, "items")],
    "keep": [(Draft, "keep")],
    "export": [(JsonLinesItemExporter, "export_item")],
    "close": [(Homecoming, "close")],
}
METHODS_HERE: Methods = {"fork": [(WarmProcess, "fork")]}


def _around(methods: Iterable[str]) -> list[str]:
    return [f"{when}-{name}" for name in methods for when in ("before", "after")]


POINTS = [*_around(METHODS), "during-post"]
"""``during-post``: the node has been asked, and has not answered for ``SECONDS_BEFORE_REPLY``."""
POINTS_OF_ITEMS = _around(METHODS_OF_ITEMS)
"""On the way of items that come home; ``export``: into the feed."""
POINTS_HERE = _around(METHODS_HERE)
"""Where workers are started on the coordinator's machine; after the fork the worker has not been told its job."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, number: int) -> None:
    """Wrap the methods of *point* so that the process dies around their call with this *number*, counted from 1."""
    when, _, name = point.partition("-")
    for owner, method in (METHODS | METHODS_OF_ITEMS | METHODS_HERE)[name]:
        _arm(owner, method, when, number)


def _arm(owner: type, method: str, when: str, number: int) -> None:
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


class Disk:
    """*file*, on a disk that is full while there is a file called *switch*."""

    def __init__(self, file: Any, switch: Path) -> None:
        self._file = file
        self._switch = switch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if self._switch.exists():
            self._file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "the disk is full")
        return int(self._file.write(data))

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self.write(line)


def put_on_disks(switches: Path) -> None:
    """The files of the spool, and of the coordinator's own feeds."""
    _wrap(Draft, "file", switches / SPOOL_FULL)
    _wrap(OwnItems, "_file", switches / SPOOL_FULL)
    storage: Any = FileFeedStorage
    opened = storage.open
    storage.open = lambda self, spider: Disk(opened(self, spider), switches / FEED_FULL)


def _wrap(owner: Any, name: str, switch: Path) -> None:
    original = owner.__init__

    def made(self: Any, path: Path) -> None:
        original(self, path)
        setattr(self, name, Disk(getattr(self, name), switch))

    owner.__init__ = made


if __name__ == "__main__":
    if sys.argv[1] != NEVER:
        arm(sys.argv[1], int(sys.argv[2]))
    if folder := os.environ.get(SWITCHES):
        put_on_disks(Path(folder))
    from scrapy.cmdline import execute

    execute(["scrapy", *sys.argv[3:]])
