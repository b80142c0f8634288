"""The Scrapyd that has started this crawl, which is a coordinator, as one of its jobs: by cron, a timer, or by hand."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from scrapy import Spider

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.local_slots import is_local
from scrapy_distributed.words import listed

logger = logging.getLogger(__name__)

_NO_CFG = (
    "this crawl is a job of a Scrapyd, and the egg of a project has no scrapy.cfg: nodes that are named there, and"
    " their credentials, are not known here. Expected host:port or URLs in DISTRIBUTED_TARGET_HOSTS, and credentials in"
    " the ~/.netrc of the user of this Scrapyd"
)


def project_there(spider: Spider) -> str:
    """What it calls the project of *spider*, '' if this crawl is no job of a Scrapyd."""
    return os.environ.get("SCRAPY_PROJECT", "") if getattr(spider, "_job", None) else ""


def warn_of_names(hosts: Iterable[str], spider: Spider, *, targets: Collection[str]) -> None:
    """*hosts* that may be names of *targets* that are not known here: else they would just be no hosts."""
    names = [host for host in hosts if not (is_local(host) or set(":.*?[") & set(host))]
    if names and _lacks_cfg(spider, targets):
        logger.warning("DISTRIBUTED_TARGET_HOSTS: found %s: %s", listed(names), _NO_CFG, extra={"spider": spider})


@contextmanager
def without_cfg(spider: Spider, *, targets: Collection[str]) -> Iterator[None]:
    """What is refused here may have that reason."""
    try:
        yield
    except ConfigError as error:
        if not _lacks_cfg(spider, targets):
            raise
        raise type(error)(f"{error}\n  {_NO_CFG}") from None


def _lacks_cfg(spider: Spider, targets: Collection[str]) -> bool:
    return bool(project_there(spider)) and not targets
