"""What the Scrapyd that has started this process says of itself in its configuration."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any, NamedTuple

from scrapy_distributed.wire.code import Egg, egg_of
from scrapy_distributed.wire.receipt import MAX_POLL, MAX_SLOTS

AT_ONCE = "scrapy_distributed.warm.launcher.WarmLauncher"


class ItsNode(NamedTuple):
    """How many jobs it runs at once, and the seconds between two polls of its queue, 0 where its launcher starts jobs
    at once; the *egg* that it has started. ``None`` for what can't be known."""

    slots: int | None = None
    poll_seconds: float | None = None
    egg: Egg | None = None


def of_its_node(spider: type) -> ItsNode:
    """What the worker of *spider* knows of it.

    Scrapyd starts a job in its own folder and environment, with ``scrapyd.runner``, which has imported the module that
    reads its configuration: nothing is imported here. It takes half a millisecond.
    """
    slots, poll = _pace()
    return ItsNode(slots, poll, egg_of(spider))


def _pace() -> tuple[int | None, float | None]:
    module: Any = sys.modules.get("scrapyd.config")
    try:
        config = module.Config()
        # As in ``Launcher._get_max_proc`` and ``Launcher.__init__``.
        slots = config.getint("max_proc", 0) or multiprocessing.cpu_count() * config.getint("max_proc_per_cpu", 4)
        poll = 0.0 if config.get("launcher", "") == AT_ONCE else config.getfloat("poll_interval", 5)
    except Exception:  # no Scrapyd, or one of another kind
        return None, None
    return (slots if 0 < slots <= MAX_SLOTS else None), (poll if 0 <= poll <= MAX_POLL else None)
