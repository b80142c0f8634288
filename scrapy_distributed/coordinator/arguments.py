"""The arguments that a spider was given."""

from __future__ import annotations

import inspect
from typing import Any

from scrapy.crawler import Crawler

from scrapy_distributed.errors import ConfigError

_STARTS = ("crawl", "crawl_async")


def arguments_of(crawler: Crawler) -> dict[str, Any]:
    """Those of the call that runs *crawler*, by name; to be asked while its components are made.

    Scrapy hands them to the spider and keeps them nowhere, and no hook of it comes before the spider is made. What the
    spider has kept is no evidence: ``Spider.__init__`` makes attributes of those that are left over, a spider's own may
    do anything. But ``Crawler.crawl`` and ``crawl_async`` still run while they make the components, with all that they
    were called with; ``scrapy crawl``, processes and runners all come by one of them.

    Raises ``ConfigError`` for arguments without a name, and where none of the two runs.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in _STARTS and frame.f_locals.get("self") is crawler:
            if unnamed := frame.f_locals["args"]:
                raise ConfigError(
                    f"spider arguments: found {len(unnamed)} without a name, expected all of them with one, as they"
                    " travel to the jobs by name: crawl(spider, NAME=VALUE)"
                )
            return dict(frame.f_locals["kwargs"])
        frame = frame.f_back
    raise ConfigError(
        "spider arguments: nobody knows those of this crawl, expected one that crawl() or crawl_async() of Scrapy's"
        " Crawler has begun"
    )
