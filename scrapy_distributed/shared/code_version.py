"""Which code a run and a worker have: a worker crawls for runs of the very same."""

from __future__ import annotations

import scrapy
from scrapy.settings import BaseSettings

from scrapy_distributed import __version__
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.wire.code import code_in


def version_here(settings: BaseSettings) -> str:
    """That of the project with *settings*, whose modules are loaded, as its sources lie there now: a digest of these,
    and the versions of Scrapy and of this package; or ``DISTRIBUTED_VERSION``. Raises ``ConfigError`` where it can't be
    told."""
    if told := settings.get("DISTRIBUTED_VERSION"):
        return str(told)
    code = code_in((settings["SETTINGS_MODULE"] or "", *settings.getlist("SPIDER_MODULES")))
    if not code:
        raise ConfigError(
            "DISTRIBUTED_VERSION: found none, and the sources of this project can't be read, so that nobody could tell"
            " whether a worker has the code of a run; expected a project in a folder or an egg, or DISTRIBUTED_VERSION:"
            " any text that changes with the code"
        )
    return f"{code}/{scrapy.__version__}/{__version__}"
